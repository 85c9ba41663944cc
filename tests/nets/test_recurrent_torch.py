"""Recurrent networks equal torch's for the same parameters; collected where torch is installed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from renga import nets

from .kit import KEY, floats, values

BATCH, TIME, IN, SIZE = 3, 5, 3, 4
CELLS: dict[str, tuple[nets.Cell, type, dict]] = {
    "RNN": (nets.simple_cell(SIZE), torch.nn.RNN, {}),
    "rectified RNN": (nets.simple_cell(SIZE, activation=jax.nn.relu), torch.nn.RNN, {"nonlinearity": "relu"}),
    "LSTM": (nets.lstm_cell(SIZE), torch.nn.LSTM, {}),
    "GRU": (nets.gru_cell(SIZE), torch.nn.GRU, {}),
}


def to_torch(params: dict) -> dict[str, np.ndarray]:
    """A cell's parameters as torch names and lays them out: two biases, the second of which we need in one gate."""
    w, u, b = (np.asarray(params[name]) for name in ("w", "u", "b"))
    second = np.zeros_like(b)
    if "b_h" in params:
        second[-len(params["b_h"]) :] = params["b_h"]
    return {"weight_ih": w.T, "weight_hh": u.T, "bias_ih": b, "bias_hh": second}


def from_torch(theirs: dict[str, np.ndarray], like: dict) -> dict:
    """Torch's gradients as ours."""
    ours = {"w": theirs["weight_ih"].T, "u": theirs["weight_hh"].T, "b": theirs["bias_ih"]}
    return ours | ({"b_h": theirs["bias_hh"][-len(like["b_h"]) :]} if "b_h" in like else {})


def run_torch(module: Any, cells: dict[str, dict], x: jax.Array, lengths: Any, weights: Any) -> tuple[Any, ...]:
    """Outputs and last state of a torch module, and gradients with respect to `cells`, by suffix, and `x`."""
    for suffix, params in cells.items():
        for name, array in to_torch(params).items():
            getattr(module, name + suffix).data = torch.tensor(array)
    inputs = torch.tensor(np.asarray(x), requires_grad=True)
    if lengths is None:
        ys, state = module(inputs)
    else:
        packed, state = module(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False))
        ys, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    (ys * torch.tensor(np.asarray(weights))).sum().backward()
    grads = {}
    for suffix, params in cells.items():
        found = {name: getattr(module, name + suffix).grad.numpy() for name in to_torch(params)}
        grads[suffix] = from_torch(found, params)
    state = state if isinstance(state, tuple) else (state,)
    assert inputs.grad is not None
    return ys.detach().numpy(), [part.detach().numpy() for part in state], grads, inputs.grad.numpy()


def ours(net: nets.Net, x: jax.Array, lengths: Any) -> tuple[Any, ...]:
    """Parameters, outputs and carry, and gradients of a weighted sum of the outputs, with the weights."""
    params = jax.tree.map(lambda leaf: 0.5 * leaf, values(jax.eval_shape(net.init, KEY, x)))
    given = {} if lengths is None else {"lengths": jnp.array(lengths)}
    (weights,) = values(floats(*jax.eval_shape(net.apply, params, x)[0].shape))

    @jax.jit
    def graded(params: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            ys, carry = net.apply(params, x, **given)
            return (ys * weights).sum(), (ys, carry)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    grads, (ys, carry) = graded(params, x)
    return params, ys, carry, grads, weights


def assert_close(tree: Any, other: Any, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), tree, other)


def hidden_first(carry: Any) -> list:
    """Torch's state is `(h, c)`, ours `(c, h)`."""
    return list(carry)[::-1] if isinstance(carry, tuple) else [carry]


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize("name", CELLS)
def test_rnn_equals_torch(name: str, lengths: list[int] | None):
    cell, module, options = CELLS[name]
    (x,) = values(floats(BATCH, TIME, IN))
    params, ys, carry, grads, weights = ours(nets.rnn(cell, return_carry=True), x, lengths)
    peer = module(IN, SIZE, batch_first=True, **options)
    their_ys, state, their_grads, their_dx = run_torch(peer, {"_l0": params}, x, lengths, weights)
    assert_close(ys, their_ys, 1e-5)
    assert_close(hidden_first(carry), [part[0] for part in state], 1e-5)
    assert_close(grads, (their_grads["_l0"], their_dx), 1e-4)


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize("name", CELLS)
def test_bidirectional_equals_torch(name: str, lengths: list[int] | None):
    cell, module, options = CELLS[name]
    (x,) = values(floats(BATCH, TIME, IN))
    params, ys, carry, grads, weights = ours(nets.bidirectional(cell, return_carry=True), x, lengths)
    peer = module(IN, SIZE, batch_first=True, bidirectional=True, **options)
    cells = {"_l0": params["forward"], "_l0_reverse": params["backward"]}
    their_ys, state, their_grads, their_dx = run_torch(peer, cells, x, lengths, weights)
    assert_close(ys, their_ys, 1e-5)
    for i, direction in enumerate(carry):
        assert_close(hidden_first(direction), [part[i] for part in state], 1e-5)
    expected = {"forward": their_grads["_l0"], "backward": their_grads["_l0_reverse"]}
    assert_close(grads, (expected, their_dx), 1e-4)


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize("name", CELLS)
def test_stack_cells_equals_torch(name: str, lengths: list[int] | None):
    cell, module, options = CELLS[name]
    (x,) = values(floats(BATCH, TIME, IN))
    params, ys, carry, grads, weights = ours(nets.rnn(nets.stack_cells(cell, cell), return_carry=True), x, lengths)
    peer = module(IN, SIZE, num_layers=2, batch_first=True, **options)
    cells = {f"_l{i}": part for i, part in enumerate(params["cells"])}
    their_ys, state, their_grads, their_dx = run_torch(peer, cells, x, lengths, weights)
    assert_close(ys, their_ys, 1e-5)
    for i, of_layer in enumerate(carry):
        assert_close(hidden_first(of_layer), [part[i] for part in state], 1e-5)
    assert_close(grads, ({"cells": list(their_grads.values())}, their_dx), 1e-4)


def test_bidirectional_networks_on_top_of_each_other_equal_torch():
    (x,), lengths = values(floats(BATCH, TIME, IN)), [2, 5, 4]

    @nets.define
    def deep(
        x,
        *,
        layers=[nets.bidirectional(nets.gru_cell(SIZE), return_carry=True) for _ in range(2)],
        lengths=None,
    ):
        for each in layers:
            x, carry = each(x, lengths=lengths)
        return x, carry  # pyright: ignore[reportPossiblyUnboundVariable]

    params, ys, _, grads, weights = ours(deep, x, lengths)
    peer = torch.nn.GRU(IN, SIZE, num_layers=2, batch_first=True, bidirectional=True)
    ends = {"": "forward", "_reverse": "backward"}
    cells = {f"_l{i}{end}": params["layers"][i][name] for i in range(2) for end, name in ends.items()}
    their_ys, _, their_grads, their_dx = run_torch(peer, cells, x, lengths, weights)
    assert_close(ys, their_ys, 1e-5)
    expected = [{name: their_grads[f"_l{i}{end}"] for end, name in ends.items()} for i in range(2)]
    assert_close(grads, ({"layers": expected}, their_dx), 1e-4)
