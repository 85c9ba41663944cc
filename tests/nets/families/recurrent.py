"""Cells over sequences."""

import jax
import jax.numpy as jnp

from renga import nets

from ..kit import Case, floats, integers

LENGTHS = {"lengths": integers(3)[0]}
RESET = {"reset": jax.ShapeDtypeStruct((3, 5), jnp.bool)}
SEQUENCE = floats(3, 5, 4)


@nets.cell
def leaky_cell(rate: float) -> nets.Cell:
    """A cell of one's own, with a learned initial carry."""

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        return {"start": jax.random.normal(key, x.shape[-1:], jnp.float32)}

    def initial_carry(params: dict, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x) + params["start"].astype(x.dtype)

    def step(params: dict, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = rate * carry + x
        return carry, jnp.tanh(carry)

    return nets.Cell(init, initial_carry, step)


@nets.define
def tagger(
    x: jax.Array, *, below=nets.bidirectional(nets.gru_cell(3)), above=nets.rnn(nets.lstm_cell(4)), lengths=None
):
    """Recurrent networks as children, with lengths."""
    return above(below(x, lengths=lengths), lengths=lengths)


stacked = nets.stack_cells(nets.lstm_cell(3), nets.gru_cell(4, reset="before"), nets.simple_cell(3))
skipping = nets.stack_cells(nets.gru_cell(3), nets.lstm_cell(2), skips=True)

CASES: dict[str, Case] = {
    "simple rnn": Case(lambda: nets.rnn(nets.simple_cell(3)), SEQUENCE),
    "rectified rnn with lengths": Case(
        lambda: nets.rnn(nets.simple_cell(3, activation=jax.nn.softplus), reverse=True),
        SEQUENCE,
        keywords=LENGTHS,
        long=True,
    ),
    "lstm": Case(lambda: nets.rnn(nets.lstm_cell(3)), SEQUENCE),
    "lstm with lengths": Case(lambda: nets.rnn(nets.lstm_cell(4)), SEQUENCE, keywords=LENGTHS, long=True),
    "reverse lstm with all": Case(
        lambda: nets.rnn(nets.lstm_cell(3, forget_bias=0.5), reverse=True, unroll=2, return_carry=True),
        SEQUENCE,
        keywords=LENGTHS | RESET | {"carry": floats(3, 3) + floats(3, 3)},
        long=True,
    ),
    "gru": Case(lambda: nets.rnn(nets.gru_cell(3)), SEQUENCE),
    "gru with reset": Case(lambda: nets.rnn(nets.gru_cell(4), return_carry=True), SEQUENCE, keywords=RESET, long=True),
    "gru, reset before": Case(lambda: nets.rnn(nets.gru_cell(3, reset="before")), SEQUENCE),
    "reverse gru, reset before, with all": Case(
        lambda: nets.rnn(nets.gru_cell(3, reset="before"), reverse=True, return_carry=True),
        SEQUENCE,
        keywords=LENGTHS | RESET | {"carry": floats(3, 3)[0]},
        long=True,
    ),
    "mgu": Case(lambda: nets.rnn(nets.mgu_cell(3)), SEQUENCE, keywords=LENGTHS),
    "conv lstm": Case(lambda: nets.rnn(nets.conv_lstm_cell(2, 3)), floats(2, 3, 4, 3, 2)),
    "conv lstm of one axis": Case(
        lambda: nets.rnn(nets.conv_lstm_cell(2, (2,), forget_bias=0.0), return_carry=True),
        floats(3, 4, 5, 2),
        keywords=LENGTHS,
        long=True,
    ),
    "conv lstm of three axes": Case(
        lambda: nets.rnn(nets.conv_lstm_cell(1, (2, 1, 2))), floats(2, 3, 2, 3, 2, 1), long=True
    ),
    "lru": Case(lambda: nets.rnn(nets.lru_cell(3, state_size=4)), SEQUENCE),
    "reverse lru with all": Case(
        lambda: nets.rnn(nets.lru_cell(4, min_radius=0.1, max_radius=0.5, max_phase=1.0), reverse=True),
        SEQUENCE,
        keywords=LENGTHS | RESET,
        long=True,
    ),
    "min_gru": Case(lambda: nets.rnn(nets.min_gru_cell(3)), SEQUENCE),
    "min_gru with all": Case(
        lambda: nets.rnn(nets.min_gru_cell(3, w_init=nets.normal(0.5))),
        SEQUENCE,
        keywords=LENGTHS | RESET | {"carry": floats(3, 3)[0]},
        long=True,
    ),
    "stack_cells": Case(lambda: nets.rnn(stacked, return_carry=True), SEQUENCE, keywords=LENGTHS | RESET, long=True),
    "stack_cells with skips": Case(lambda: nets.rnn(skipping), SEQUENCE, long=True),
    "bidirectional": Case(lambda: nets.bidirectional(nets.lstm_cell(3)), SEQUENCE, keywords=LENGTHS),
    "bidirectional sum of two cells": Case(
        lambda: nets.bidirectional(nets.gru_cell(3), nets.mgu_cell(3), merge="sum", return_carry=True),
        SEQUENCE,
        keywords=RESET,
        long=True,
    ),
    "cell of one's own": Case(lambda: nets.rnn(leaky_cell(0.5)), SEQUENCE, keywords=RESET | LENGTHS),
    "recurrent children": Case(lambda: tagger, SEQUENCE, keywords=LENGTHS, long=True),
}
