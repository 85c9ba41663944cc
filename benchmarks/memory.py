"""What `training.keep_cpu_memory` is worth: train steps with large temporary arrays, each in a process of its own.

An LSTM over 128 steps of 64 sequences, a block of a transformer, and one addition of 32 MiB. Every case stands beside
itself with glibc's own settings: only the ratio of these two says something.

    python benchmarks/memory.py
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from runner import Round, apart, comparison, main

from renga import nets, optim, training

NUM_STEPS = 3
WARM = 40  # calls until glibc's heap has grown to what the steps need
LENGTH, WIDTH, BATCH = 128, 256, 64


def adding() -> Callable[[], Any]:
    """One addition."""
    held = [jnp.zeros(8 << 20)]
    add = jax.jit(lambda x: x + 1)

    def call() -> Any:
        held[0] = add(held[0])
        return held[0]

    return call


def training_of(net: nets.Net) -> Callable[[], Any]:
    """A train step of a network over sequences."""
    tx, x = optim.adam(1e-3), jnp.ones((BATCH, LENGTH, WIDTH // 2))

    def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
        return jnp.mean(net.apply(params, batch) ** 2)

    held: list[Any] = [training.init(net.init(jax.random.key(0), x), tx)]
    update = jax.jit(training.step(loss_fn, tx), donate_argnums=0)

    def call() -> Any:
        held[0], metrics = update(held[0], x)
        return metrics

    return call


NETS: dict[str, Callable[[], Callable[[], Any]]] = {
    "x + 1, 32 MiB": adding,
    "LSTM": lambda: training_of(nets.rnn(nets.lstm_cell(WIDTH))),
    "two transformer blocks": lambda: training_of(
        nets.serial(nets.linear(WIDTH), *[nets.transformer_block(4) for _ in range(2)])
    ),
}


def case(name: str, *, kept: bool) -> Round:
    """One of them, in this process."""
    if kept and not (said := training.keep_cpu_memory()).kept:
        raise RuntimeError(said.reason)
    call = NETS[name]()
    for _ in range(WARM):
        jax.block_until_ready(call())

    def run() -> int:
        for _ in range(NUM_STEPS):
            jax.block_until_ready(call())
        return NUM_STEPS

    return run


@comparison(
    "memory",
    "train steps with large temporary arrays",
    f"{next(iter(NETS))}, given back",
    num_rounds=15,
    ours="*, kept",
    backends=["cpu"],
)
def cases() -> dict[str, Round]:
    """Each with memory given back, and kept."""
    return {
        f"{name}, {'kept' if kept else 'given back'}": apart(case, name, kept=kept)
        for name in NETS
        for kept in (False, True)
    }


if __name__ == "__main__":
    main()
