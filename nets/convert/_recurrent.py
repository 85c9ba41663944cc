"""Torch's recurrent layers, whose names hold the layer and the direction."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._cells import simple_cell
from .._gru import gru_cell
from .._lstm import lstm_cell
from .._rnn import bidirectional
from .._stack_cells import stack_cells
from ._entry import Arrays, Entry, Layer, joined, moved, same


def _simple(layer: Layer, suffix: str = "_l0") -> Sequence[Entry]:
    """One bias here stands for the sum of theirs; the second one is zero there, but where a gate lies between."""
    w, u = moved("params/w", f"weight_ih{suffix}", (1, 0)), moved("params/u", f"weight_hh{suffix}", (1, 0))
    biases = f"bias_ih{suffix}", f"bias_hh{suffix}"

    def back(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return (b + b_h,)

    return w, u, Entry(("params/b",), biases, lambda b: (b, np.zeros_like(b)), back)


def _gru(layer: Layer, suffix: str = "_l0") -> Sequence[Entry]:
    w, u, bias = _simple(layer, suffix)
    size = layer.shapes["params/u"][0]

    def to(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return b, joined(np.zeros_like(b[: 2 * size]), b_h)

    def back(b: np.ndarray, b_h: np.ndarray) -> Arrays:
        return joined(b[: 2 * size] + b_h[: 2 * size], b[2 * size :]), b_h[2 * size :]

    return w, u, Entry(("params/b", "params/b_h"), bias.theirs, to, back)


_CELLS: dict[Any, Any] = {lstm_cell: _simple, simple_cell: _simple, gru_cell: _gru}


def recurrent(layer: Layer) -> Sequence[Entry]:
    """`torch.nn.LSTM` and its like."""
    parts = [("", "", layer.call.args[0])]
    if layer.call.function is bidirectional:
        backward = layer.call.kwargs.get("backward", layer.call.args[0])
        parts = [("/forward", "", layer.call.args[0]), ("/backward", "_reverse", backward)]
    return [entry for path, suffix, cell in parts for entry in _directed(layer, path, suffix, cell)]


def _directed(layer: Layer, path: str, suffix: str, cell: Any) -> Sequence[Entry]:
    if cell.call.function is stack_cells:
        stacked = enumerate(cell.call.args)
        return [
            entry
            for index, each in stacked
            for entry in _one(layer, f"{path}/cells/{index}", f"_l{index}{suffix}", each)
        ]
    return _one(layer, path, f"_l0{suffix}", cell)


def _one(layer: Layer, path: str, suffix: str, cell: Any) -> Sequence[Entry]:
    """The entries of one cell whose params stand at a path below `params`; its own names where torch has none."""
    start = f"params{path}/"
    shapes = {f"params/{name[len(start) :]}": s for name, s in layer.shapes.items() if name.startswith(start)}
    if cell.call.function not in _CELLS or (cell.call.function is gru_cell and "params/b_h" not in shapes):
        return [same(f"{start}{name[7:]}", f"{start[7:]}{name[7:]}") for name in shapes]
    entries = _CELLS[cell.call.function](layer._replace(shapes=shapes), suffix)
    return [entry._replace(ours=tuple(f"{start}{name[7:]}" for name in entry.ours)) for entry in entries]
