"""What cells and recurrent networks refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

lstm, gru, mgu, simple = nets.lstm_cell(4), nets.gru_cell(4), nets.mgu_cell(4), nets.simple_cell(4)
lru, min_gru, conv = nets.lru_cell(4), nets.min_gru_cell(4), nets.conv_lstm_cell(2, 3)
before = nets.gru_cell(4, reset="before")
stack = nets.stack_cells(lstm, gru)
net, both = nets.rnn(lstm), nets.bidirectional(lstm, gru)
sequence, one, images = zeros(2, 5, 3), zeros(2, 3), zeros(2, 5, 4, 4, 1)


def with_params(net: nets.Net, x: Any, **changed: Any) -> Any:
    return net.apply({**params_of(net, x), **changed}, x)


def stepped(cell: nets.Cell, carry: Any, x: Any) -> Any:
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(cell.init, KEY, one))
    return cell.step(params, carry, x)


@nets.define
def tagger(x, *, reader=nets.rnn(lstm), lengths=None):
    return reader(x, lengths=lengths)


def with_a_cell_as_child():
    @nets.define
    def body(x, *, cell=lstm):
        return cell(x)  # pyright: ignore[reportCallIssue]


def of_another_kind():
    @nets.cell
    def linear_cell() -> Any:
        return nets.linear(3)

    return linear_cell()


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # Inputs of another shape.
    **{
        f"rnn of {cell!r}, features": (
            lambda cell=cell: applied(nets.rnn(cell), (sequence,), zeros(2, 5, 7)),
            ShapeError,
            f"rnn({cell!r}): expected an input [..., 3], got (2, 7).",
        )
        for cell in (lstm, gru, before, mgu, simple, lru, min_gru)
    },
    **{
        f"{cell!r}, no features": (
            lambda cell=cell: cell.init(KEY, zeros(2, 0)),
            ShapeError,
            f"{cell!r}: expected an input [..., features], got (2, 0).",
        )
        for cell in (lstm, gru, before, mgu, simple, lru, min_gru)
    },
    "rnn, rank": (
        lambda: net.init(KEY, zeros(3)),
        ShapeError,
        "rnn(lstm_cell(4)): expected an input [..., time, features] of at least one step, got (3,).",
    ),
    "rnn, rank of what is applied to": (
        lambda: applied(net, (sequence,), zeros(3)),
        ShapeError,
        "rnn(lstm_cell(4)): expected an input [..., time, features] of at least one step, got (3,).",
    ),
    "rnn, no step": (
        lambda: net.init(KEY, zeros(2, 0, 3)),
        ShapeError,
        "rnn(lstm_cell(4)): expected an input [..., time, features] of at least one step, got (2, 0, 3).",
    ),
    "bidirectional, rank": (
        lambda: both.init(KEY, zeros(3)),
        ShapeError,
        "bidirectional(lstm_cell(4), backward=gru_cell(4)): expected an input [..., time, features] of at least one "
        "step, got (3,).",
    ),
    "bidirectional, features": (
        lambda: applied(both, (sequence,), zeros(2, 5, 7)),
        ShapeError,
        "bidirectional/forward = lstm_cell(4): expected an input [..., 3], got (2, 7).",
    ),
    "rnn of conv_lstm_cell, rank": (
        lambda: nets.rnn(conv).init(KEY, zeros(4, 4, 1)),
        ShapeError,
        "rnn(conv_lstm_cell(2, 3)): expected an input [..., time, height, width, channels] of at least one step, got "
        "(4, 4, 1).",
    ),
    "rnn of conv_lstm_cell, channels": (
        lambda: applied(nets.rnn(conv), (images,), zeros(2, 5, 4, 4, 3)),
        ShapeError,
        "rnn(conv_lstm_cell(2, 3)): expected [..., height, width, channels] with 1 channels, got (2, 4, 4, 3).",
    ),
    "conv_lstm_cell, rank": (
        lambda: nets.conv_lstm_cell(2, (3,)).init(KEY, zeros(4)),
        ShapeError,
        "conv_lstm_cell(2, (3,)): expected [..., length, channels], got (4,).",
    ),
    "stack_cells, features": (
        lambda: applied(nets.rnn(stack), (sequence,), zeros(2, 5, 7)),
        ShapeError,
        "rnn/cells/0 = lstm_cell(4): expected an input [..., 3], got (2, 7).",
    ),
    "rnn in a body, features": (
        lambda: applied(tagger, (sequence,), zeros(2, 5, 7)),
        ShapeError,
        "tagger/reader = rnn(lstm_cell(4)): expected an input [..., 3], got (2, 7).",
    ),
    # What is given by name.
    "rnn, lengths of another shape": (
        lambda: applied(net, (sequence,), sequence, lengths=np.array([1, 2, 3])),
        ShapeError,
        "rnn(lstm_cell(4)): expected lengths (2,) of integers, got int32 (3,).",
    ),
    "rnn, lengths that are no integers": (
        lambda: applied(net, (sequence,), sequence, lengths=zeros(2)),
        ShapeError,
        "rnn(lstm_cell(4)): expected lengths (2,) of integers, got float32 (2,).",
    ),
    "rnn, reset of another shape": (
        lambda: applied(net, (sequence,), sequence, reset=np.zeros((5, 2), bool)),
        ShapeError,
        "rnn(lstm_cell(4)): expected reset (2, 5) of booleans, got bool (5, 2).",
    ),
    "bidirectional, reset that is no mask": (
        lambda: applied(both, (sequence,), sequence, reset=zeros(2, 5)),
        ShapeError,
        "bidirectional(lstm_cell(4), backward=gru_cell(4)): expected reset (2, 5) of booleans, got float32 (2, 5).",
    ),
    "rnn in a body, lengths": (
        lambda: applied(tagger, (sequence,), sequence, lengths=np.array(3)),
        ShapeError,
        "tagger/reader = rnn(lstm_cell(4)): expected lengths (2,) of integers, got int32 ().",
    ),
    "rnn, carry of another structure": (
        lambda: applied(net, (sequence,), sequence, carry=zeros(2, 4)),
        ShapeError,
        "rnn(lstm_cell(4)): expected a carry ((2, 4), (2, 4)), got (2, 4). Make it with initial_carry(params, x).",
    ),
    "rnn, carry of another shape": (
        lambda: applied(nets.rnn(gru), (sequence,), sequence, carry=zeros(4)),
        ShapeError,
        "rnn(gru_cell(4)): expected a carry (2, 4), got (4,). Make it with initial_carry(params, x).",
    ),
    "bidirectional, one carry": (
        lambda: applied(both, (sequence,), sequence, carry=zeros(2, 4)),
        ShapeError,
        "bidirectional(lstm_cell(4), backward=gru_cell(4)): expected carries (forward, backward), got (2, 4).",
    ),
    "bidirectional, carry of another shape": (
        lambda: applied(both, (sequence,), sequence, carry=((zeros(2, 4),) * 2, zeros(2, 5))),
        ShapeError,
        "bidirectional/backward = gru_cell(4): expected a carry (2, 4), got (2, 5). Make it with "
        "initial_carry(params, x).",
    ),
    "step, carry of another shape": (
        lambda: stepped(lstm, (zeros(4), zeros(4)), one),
        ShapeError,
        "lstm_cell(4): expected a carry ((2, 4), (2, 4)), got ((4,), (4,)). Make it with initial_carry(params, x).",
    ),
    "step, features": (
        lambda: stepped(gru, zeros(2, 4), zeros(2, 7)),
        ShapeError,
        "gru_cell(4): expected an input [..., 3], got (2, 7).",
    ),
    # Parameters of another structure or shape.
    "rnn of lstm_cell, parameters": (
        lambda: with_params(net, sequence, b=zeros(4)),
        ShapeError,
        "rnn(lstm_cell(4)): expected parameters w [any, 16], u [4, 16], b [16], got {'b': (4,), 'u': (4, 16), "
        f"'w': (3, 16)}}.{REMEDY}",
    ),
    "rnn of gru_cell, parameters of the other form": (
        lambda: nets.rnn(gru).apply(params_of(nets.rnn(before), sequence), sequence),
        ShapeError,
        "rnn(gru_cell(4)): expected parameters w [any, 12], u [4, 12], b [12], b_h [4], got {'b': (12,), "
        f"'u': (4, 12), 'w': (3, 12)}}.{REMEDY}",
    ),
    "rnn of mgu_cell, parameters": (
        lambda: nets.rnn(mgu).apply(params_of(nets.rnn(simple), sequence), sequence),
        ShapeError,
        "rnn(mgu_cell(4)): expected parameters w [any, 8], u [4, 8], b [8], b_h [4], got {'b': (4,), 'u': (4, 4), "
        f"'w': (3, 4)}}.{REMEDY}",
    ),
    "rnn of simple_cell, parameters": (
        lambda: nets.rnn(simple).apply({}, sequence),
        ShapeError,
        f"rnn(simple_cell(4)): expected parameters w [any, 4], u [4, 4], b [4], got nothing.{REMEDY}",
    ),
    "rnn of min_gru_cell, parameters": (
        lambda: nets.rnn(min_gru).apply(zeros(3), sequence),
        ShapeError,
        f"rnn(min_gru_cell(4)): expected parameters w [any, 8], b [8], got (3,).{REMEDY}",
    ),
    "rnn of lru_cell, parameters": (
        lambda: with_params(nets.rnn(nets.lru_cell(2, state_size=3)), sequence, nu=zeros(2)),
        ShapeError,
        "rnn(lru_cell(2, state_size=3)): expected parameters nu [3], theta [3], gamma [3], b_re [any, 3], "
        "b_im [any, 3], c_re [3, 2], c_im [3, 2], d [any, 2], got {'b_im': (3, 3), 'b_re': (3, 3), "
        "'c_im': (3, 2), 'c_re': (3, 2), 'd': (3, 2), 'gamma': (3,), 'nu': (2,), 'theta': (3,)}." + REMEDY,
    ),
    "rnn of conv_lstm_cell, parameters": (
        lambda: with_params(nets.rnn(conv), images, u=zeros(3, 3, 8)),
        ShapeError,
        "rnn(conv_lstm_cell(2, 3)): expected parameters w [3, 3, any, 8], u [3, 3, 2, 8], b [8], got "
        f"{{'b': (8,), 'u': (3, 3, 8), 'w': (3, 3, 1, 8)}}.{REMEDY}",
    ),
    "bidirectional, parameters": (
        lambda: both.apply(params_of(net, sequence), sequence),
        NetError,
        "bidirectional(lstm_cell(4), backward=gru_cell(4)): expected params of ['forward', 'backward'], got "
        f"['b', 'u', 'w'].{REMEDY}",
    ),
    "stack_cells, parameters": (
        lambda: nets.rnn(stack).apply(params_of(net, sequence), sequence),
        NetError,
        f"rnn(stack_cells(lstm_cell(4), gru_cell(4))): expected params of ['cells'], got ['b', 'u', 'w'].{REMEDY}",
    ),
    "stack_cells, parameters of fewer cells": (
        lambda: nets.rnn(stack).apply({"cells": [params_of(net, sequence)]}, sequence),
        NetError,
        "rnn(stack_cells(lstm_cell(4), gru_cell(4))): expected params of 2 cells, got [{'b': (16,), 'u': (4, 16), "
        f"'w': (3, 16)}}].{REMEDY}",
    ),
    "stack_cells, parameters of one cell": (
        lambda: nets.rnn(stack).apply({"cells": [params_of(net, sequence)] * 2}, sequence),
        ShapeError,
        "rnn/cells/1 = gru_cell(4): expected parameters w [any, 12], u [4, 12], b [12], b_h [4], got "
        f"{{'b': (16,), 'u': (4, 16), 'w': (3, 16)}}.{REMEDY}",
    ),
    # Hyper-parameters.
    **{
        f"{make.__name__}, features": (
            lambda make=make: make(0),
            ValueError,
            f"{make.__name__}: expected features to be an integer of at least 1, got 0",
        )
        for make in (nets.lstm_cell, nets.gru_cell, nets.mgu_cell, nets.simple_cell, nets.lru_cell, nets.min_gru_cell)
    },
    "conv_lstm_cell, features": (
        lambda: nets.conv_lstm_cell(0, 3),
        ValueError,
        "conv_lstm_cell: expected features to be an integer of at least 1, got 0",
    ),
    "conv_lstm_cell, axes": (
        lambda: nets.conv_lstm_cell(2, (1, 1, 1, 1)),
        ValueError,
        "conv_lstm_cell: expected kernel for one to three spatial axes, got (1, 1, 1, 1)",
    ),
    "conv_lstm_cell, kernel": (
        lambda: nets.conv_lstm_cell(2, (3, 0)),
        ValueError,
        "conv_lstm_cell: expected kernel to be an integer of at least 1, got 0",
    ),
    "gru_cell, reset": (
        lambda: nets.gru_cell(2, reset="never"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "gru_cell: expected reset to be 'after' or 'before', got 'never'",
    ),
    "lru_cell, state_size": (
        lambda: nets.lru_cell(2, state_size=0),
        ValueError,
        "lru_cell: expected state_size to be an integer of at least 1, got 0",
    ),
    "lru_cell, radius": (
        lambda: nets.lru_cell(2, min_radius=0.9, max_radius=0.9),
        ValueError,
        "lru_cell: expected 0 <= min_radius < max_radius < 1, got 0.9 and 0.9",
    ),
    "lru_cell, phase": (
        lambda: nets.lru_cell(2, max_phase=0.0),
        ValueError,
        "lru_cell: expected max_phase above 0, got 0.0",
    ),
    "rnn, a network": (
        lambda: nets.rnn(nets.linear(3)),  # pyright: ignore[reportArgumentType]
        TypeError,
        "rnn: expected a cell, such as lstm_cell(128), got linear(3)",
    ),
    "rnn, unroll": (
        lambda: nets.rnn(lstm, unroll=0),
        ValueError,
        "rnn: expected unroll to be an integer of at least 1, got 0",
    ),
    "bidirectional, a number": (
        lambda: nets.bidirectional(lstm, 3),  # pyright: ignore[reportArgumentType]
        TypeError,
        "bidirectional: expected a cell, such as lstm_cell(128), got 3",
    ),
    "bidirectional, unroll": (
        lambda: nets.bidirectional(lstm, unroll=0),
        ValueError,
        "bidirectional: expected unroll to be an integer of at least 1, got 0",
    ),
    "bidirectional, merge": (
        lambda: nets.bidirectional(lstm, merge="mean"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "bidirectional: expected merge to be 'concat' or 'sum', got 'mean'",
    ),
    "bidirectional, axes": (
        lambda: nets.bidirectional(lstm, conv),
        ValueError,
        "bidirectional: expected two cells over the same axes, got lstm_cell(4) and conv_lstm_cell(2, 3)",
    ),
    "bidirectional sum, sizes": (
        lambda: nets.bidirectional(lstm, nets.gru_cell(5), merge="sum").apply(
            params_of(nets.bidirectional(lstm, nets.gru_cell(5)), sequence), sequence
        ),
        ShapeError,
        "bidirectional(lstm_cell(4), backward=gru_cell(5), merge='sum'): expected outputs of one shape to add, got "
        "(2, 5, 4) and (2, 5, 5).",
    ),
    "stack_cells, none": (
        lambda: nets.stack_cells(),
        ValueError,
        "stack_cells: expected at least one cell, got none",
    ),
    "stack_cells, a network": (
        lambda: nets.stack_cells(lstm, nets.linear(3)),  # pyright: ignore[reportArgumentType]
        TypeError,
        "stack_cells: expected a cell, such as lstm_cell(128), got linear(3)",
    ),
    "stack_cells, axes": (
        lambda: nets.stack_cells(lstm, conv),
        ValueError,
        "stack_cells: expected cells over the same axes, got [lstm_cell(4), conv_lstm_cell(2, 3)]",
    ),
    "Cell, num_axes": (
        lambda: nets.Cell(lambda key, x: {}, lambda params, x: x, lambda params, carry, x: (x, x), num_axes=-1),
        ValueError,
        "Cell: expected num_axes to be an integer of at least 1, got -1",
    ),
    "cell, a network": (
        of_another_kind,
        TypeError,
        "linear_cell: expected a function marked @cell to return a Cell, got linear(3)",
    ),
    "define, a cell as a child": (
        with_a_cell_as_child,
        TypeError,
        "body/cell: expected a network, a list or dict of networks, or None as a keyword's default, got "
        "lstm_cell(4). Hyper-parameters belong to an enclosing function marked @layer.",
    ),
    "rnn, complex numbers": (
        lambda: applied(net, (sequence,), sequence.astype("complex64")),
        ShapeError,
        "rnn(lstm_cell(4)): expected an input of real numbers, got complex64 (2, 5, 3).",
    ),
    "lstm_cell, complex numbers": (
        lambda: lstm.init(KEY, one.astype("complex64")),
        ShapeError,
        "lstm_cell(4): expected an input of real numbers, got complex64 (2, 3).",
    ),
    "rnn, a complex carry": (
        lambda: applied(net, (sequence,), sequence, carry=(zeros(2, 4, dtype="complex64"),) * 2),
        ShapeError,
        "rnn(lstm_cell(4)): expected a carry of real numbers, got complex ones. Make it with initial_carry(params, x).",
    ),
    "rnn, a length above the number of steps": (
        lambda: applied(net, (sequence,), sequence, lengths=np.array([5, 6])),
        NetError,
        "rnn(lstm_cell(4)): expected lengths from 0 to 5, the number of steps, got 6.",
    ),
    "rnn, a length below 0": (
        lambda: applied(both, (sequence,), sequence, lengths=np.array([-1, 5])),
        NetError,
        f"{both!r}: expected lengths from 0 to 5, the number of steps, got -1.",
    ),
}


def leaking_step(params: dict, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.concatenate((carry, x), -1), x


def unbatched_carry(params: dict, x: jax.Array) -> jax.Array:
    return jnp.zeros(4)


def plain_step(params: dict, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return carry, x


growing = nets.rnn(nets.Cell(lambda key, x: {}, lambda params, x: x, leaking_step))
shared = nets.rnn(nets.Cell(lambda key, x: {}, unbatched_carry, plain_step))
ERRORS |= {
    "a cell of one's own, whose carry grows": (
        lambda: growing.apply({}, sequence),
        ShapeError,
        f"{growing!r}: expected a step that returns a carry like the one it takes, float32[2, 3], got float32[2, 6].",
    ),
    "a cell of one's own, whose carry is shared by the batch": (
        lambda: shared.apply({}, sequence, lengths=np.array([1, 2])),
        ShapeError,
        f"{shared!r}: expected a carry with the batch axes (2,) first, got (4,).",
    ),
}
