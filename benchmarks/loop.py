"""What a loop costs beside its steps: Python's part of `fit` and of loops by hand, and the loops inside a program.

`calls` is the smallest of train steps, an 8-16-1 MLP on batches of 16 by Adam: one step a call by hand in every
library, ours as `renga`, and by `fit` one or several a call. `scan` is an MLP on batches of 128 images of digits: the
loops here beside the bare scan of the same steps.

    pip install -e '.[bench]'
    python benchmarks/loop.py calls
    python benchmarks/loop.py scan
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import dispatch
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from runner import Promise, Round, comparison, main

from renga import nets, optim, training

WIDTHS, BATCH, NUM_STEPS = (784, 512, 512, 10), 128, 60


def begin(widths: tuple[int, ...], batch: Any) -> tuple[Any, training.TrainState]:
    """A step and a train state."""
    net, tx = nets.mlp(*widths[1:]), optim.adam(1e-3)

    def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
        return training.squared_error(net.apply(params, batch["x"]), batch["y"])

    return training.step(loss_fn, tx), training.init(net.init(jax.random.key(0), batch["x"]), tx)


def on_host(batch: Any) -> Any:
    """A batch as data sets give it, in arrays of NumPy."""
    return jax.tree.map(np.asarray, batch)


def fitted(widths: tuple[int, ...], batch: Any, num_steps: int, steps_per_call: int) -> Round:
    """`fit`, with batches as they are given."""
    step, train_state = begin(widths, batch)

    def run() -> int:
        found, _ = training.fit(
            step, train_state, itertools.repeat(batch), num_steps=num_steps, steps_per_call=steps_per_call,
            report_every=num_steps, progress=False,
        )  # fmt: skip
        jax.block_until_ready(found)
        return num_steps

    return run


def in_one_call(widths: tuple[int, ...], batch: Any, num_steps: int, *, by_hand: bool) -> Round:
    """All steps in one program: a scan of them by hand, or `loop`."""
    step, train_state = begin(widths, batch)
    if by_hand:
        call: Callable[..., Any] = lambda train_state, key: lax.scan(  # noqa: E731
            lambda train_state, _: step(train_state, batch), train_state, length=num_steps
        )
    else:
        call = training.loop(step, lambda key: batch, num_steps)
    jitted = jax.jit(call, donate_argnums=0)

    def run() -> int:
        jax.block_until_ready(jitted(jax.tree.map(jnp.copy, train_state), jax.random.key(0)))
        return num_steps

    return run


def in_calls_by_hand(widths: tuple[int, ...], batch: Any, num_steps: int, steps_per_call: int) -> Round:
    """What `fit` does with batches from NumPy, as one writes it: stacked, and scanned over."""
    step, train_state = begin(widths, batch)
    call = jax.jit(lambda train_state, batches: lax.scan(step, train_state, batches), donate_argnums=0)

    def run() -> int:
        state, metrics = jax.tree.map(jnp.copy, train_state), []
        for _ in range(num_steps // steps_per_call):
            state, row = call(state, jax.tree.map(lambda leaf: np.stack([leaf] * steps_per_call), batch))
            metrics.append(row)
        jax.block_until_ready((state, metrics))
        return num_steps

    return run


def nnx_step() -> Round:
    """Flax NNX as its documentation writes it."""
    from flax import nnx

    class Mlp(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden = nnx.Linear(*dispatch.SIZES[:2], rngs=rngs)
            self.out = nnx.Linear(*dispatch.SIZES[1:], rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.out(nnx.relu(self.hidden(x)))

    @nnx.jit
    def step(model: Mlp, optimizer: nnx.Optimizer, batch: dict) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(batch["x"]) - batch["y"]) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    def run() -> int:
        model = Mlp(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
        loss = None
        for _ in range(dispatch.NUM_STEPS):
            loss = step(model, optimizer, dispatch.BATCH)
        jax.block_until_ready((loss, nnx.state(optimizer)))
        return dispatch.NUM_STEPS

    return run


@comparison(
    "calls",
    "a train step of an 8-16-1 MLP, one or several a call",
    "plain JAX, dict params",
    num_rounds=25,
    promises=[
        Promise(
            "renga, fit, 1 a call",
            "plain JAX, dict params",
            1.1,
            "A count of steps, an array more that goes in and out, takes 1.08 of plain JAX by itself.",
        ),
        Promise("renga, fit, 1 a call", "renga", 1.1),
        Promise("renga, fit, 1 a call, batches from NumPy", "plain JAX, dict params, batches from NumPy", 1.1),
        Promise("renga, fit, 10 a call, batches from NumPy", "plain JAX, dict params", 0.5),
        Promise("renga, fit, 100 a call, batches from NumPy", "plain JAX, dict params", 0.5),
    ],
)
def calls() -> Mapping[str, Round]:
    """The smallest of steps."""
    ours = dispatch.SIZES, dispatch.BATCH, dispatch.NUM_STEPS
    from_numpy = dispatch.SIZES, on_host(dispatch.BATCH), dispatch.NUM_STEPS
    found = dispatch.cases()
    found["plain JAX, dict params, batches from NumPy"] = dispatch.plain_step(
        optax.adam(1e-3), with_key=False, batch=on_host(dispatch.BATCH)
    )
    found["renga, fit, 1 a call"] = fitted(*ours, 1)
    for steps_per_call in (1, 10, 100):
        found[f"renga, fit, {steps_per_call} a call, batches from NumPy"] = fitted(*from_numpy, steps_per_call)
    found["renga, loop, all in one call"] = in_one_call(*ours, by_hand=False)
    found["scan by hand, all in one call"] = in_one_call(*ours, by_hand=True)
    if importlib.util.find_spec("flax"):
        found["Flax NNX, nnx.jit"] = nnx_step()
    return found


@comparison(
    "scan",
    "a train step of a 784-512-512-10 MLP inside a loop",
    "scan by hand",
    num_rounds=25,
    promises=[Promise("renga, loop", "scan by hand", 1.03)],
)
def scan() -> Mapping[str, Round]:
    """Steps that have something to do."""
    x, y = np.random.default_rng(0).normal(size=(2, BATCH, WIDTHS[0])).astype(np.float32)
    batch = {"x": jnp.asarray(x), "y": jnp.asarray(y[:, : WIDTHS[-1]])}
    make = functools.partial(in_one_call, WIDTHS, batch, NUM_STEPS)
    return {
        "scan by hand": make(by_hand=True),
        "renga, loop": make(by_hand=False),
        "scan by hand, 10 a call, batches from NumPy": in_calls_by_hand(WIDTHS, on_host(batch), NUM_STEPS, 10),
        "renga, fit, 10 a call, batches from NumPy": fitted(WIDTHS, on_host(batch), NUM_STEPS, 10),
        "renga, fit, 1 a call, batches from NumPy": fitted(WIDTHS, on_host(batch), NUM_STEPS, 1),
        "renga, fit, 1 a call": fitted(WIDTHS, batch, NUM_STEPS, 1),
    }


if __name__ == "__main__":
    main()
