"""Networks made of networks."""

import jax
import jax.numpy as jnp

from renga import nets

from ..kit import Case, floats

FROZEN = {"derivatives": "the gradient of what is frozen is zero, though the outputs depend on it"}
SINGLE = {
    law: "it computes in single precision, whatever the input"
    for law in ("derivatives", "dtypes", "half", "half gradients")
}


@nets.layer
def unit(features: int, rate: float = 0.5) -> nets.Net:
    """A residual block with a key and a state."""

    @nets.define
    def body(x: jax.Array, *, norm=nets.batch_norm(), into=nets.linear(features), drop=nets.dropout(rate)):
        return x + drop(jnp.tanh(into(norm(x))))

    return body


@nets.define
def noted(x: jax.Array, *, into=nets.linear(5), bias=None):
    """A block that returns something for each layer, and takes something for each."""
    x = jnp.tanh(into(x) if bias is None else into(x) + bias)
    return x, jnp.sum(x, -1)


@nets.define
def unrolled(xs: jax.Array, *, first=nets.linear(4), norm=nets.batch_norm()):
    """A state that is carried through a scan of the body."""
    xs = jnp.moveaxis(first(xs), -2, 0)
    y = norm(xs[0])

    def step(state, x):
        y, state = norm(x, state=state)
        return state, y

    state, ys = jax.lax.scan(step, norm.state, xs[1:])
    norm.keep(state)
    return jnp.moveaxis(jnp.concatenate([y[None], ys]), 0, -2)


CASES = {
    "repeat with remat": Case(lambda: nets.repeat(unit(5), 3, remat=True), floats(4, 5), draws=True),
    "repeat that collects": Case(lambda: nets.repeat(noted, 3), floats(4, 5), out_axis=(0, 1), long=True),
    "serial of equal blocks": Case(lambda: nets.serial(unit(5), unit(5), unit(5)), floats(4, 5), draws=True, long=True),
    "list of equal blocks": Case(lambda: nets.serial(nets.serial(*[nets.mlp(5, 5)] * 3)), floats(4, 5), long=True),
    "state carried in the body": Case(lambda: unrolled, floats(4, 3, 5), long=True),
    "remat": Case(lambda: nets.remat(unit(5)), floats(4, 5), draws=True),
    "remat of nothing": Case(
        lambda: nets.remat(nets.mlp(6, 2), policy=jax.checkpoint_policies.everything_saveable), floats(4, 5), long=True
    ),
    "cast": Case(
        lambda: nets.cast(unit(5), compute="float32", outputs="float32"), floats(4, 5), draws=True, exempt=SINGLE
    ),
    "frozen": Case(
        lambda: nets.frozen(nets.serial(unit(5), nets.linear(3)), "unit/**"), floats(4, 5), draws=True, exempt=FROZEN
    ),
    "frozen whole": Case(
        lambda: nets.serial(nets.frozen(nets.linear(4)), nets.linear(3)), floats(4, 5), exempt=FROZEN, long=True
    ),
    "lora": Case(lambda: nets.lora(nets.mlp(6, 2), "**/w", rank=2), floats(4, 5), exempt=FROZEN),
    "lora of a repeat": Case(
        lambda: nets.lora(nets.repeat(nets.linear(5), 3), "w", rank=2, num_stacked=1),
        floats(4, 5),
        exempt=FROZEN,
        long=True,
    ),
}
