"""What a jitted call of a deep network costs beside its arithmetic: an MLP of 50 layers of 8 units, batch 16.

pip install -e '.[bench]'
python benchmarks/apply.py
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, comparison, installed, main

from renga import nets

NUM_CALLS = 500
DEPTH, WIDTH = 50, 8
X = jnp.ones((16, WIDTH))


def calls(function: Callable[..., Any], *args: Any) -> Round:
    """A round of calls of one jitted function."""

    def run() -> int:
        y = None
        for _ in range(NUM_CALLS):
            y = function(*args)
        jax.block_until_ready(y)
        return NUM_CALLS

    return run


def plain() -> Round:
    """What one writes without a library: a loop over a list of dicts."""
    keys = jax.random.split(jax.random.key(0), DEPTH)
    params = [{"w": jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5, "b": jnp.zeros(WIDTH)} for key in keys]

    def apply(params: list, x: jax.Array) -> jax.Array:
        for each in params[:-1]:
            x = jax.nn.relu(x @ each["w"] + each["b"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return calls(jax.jit(apply), params, X)


def renga() -> Round:
    """`nets.mlp`."""
    net = nets.mlp(*[WIDTH] * DEPTH)
    return calls(jax.jit(net.apply), net.init(jax.random.key(0), X), X)


def haiku() -> Round:
    """Haiku."""
    import haiku as hk

    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([WIDTH] * DEPTH)(x)))
    return calls(jax.jit(net.apply), net.init(jax.random.key(0), X), X)


def linen() -> Round:
    """Flax linen."""
    from flax import linen

    class Mlp(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for _ in range(DEPTH - 1):
                x = linen.relu(linen.Dense(WIDTH)(x))
            return linen.Dense(WIDTH)(x)

    net = Mlp()
    return calls(jax.jit(net.apply), net.init(jax.random.key(0), X), X)


def nnx() -> Round:
    """Flax NNX, `nnx.jit`."""
    from flax import nnx

    class Mlp(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(DEPTH)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for each in self.layers[:-1]:
                x = nnx.relu(each(x))
            return self.layers[-1](x)

    return calls(nnx.jit(lambda model, x: model(x)), Mlp(nnx.Rngs(0)), X)


def equinox() -> Round:
    """Equinox, `filter_jit`."""
    import equinox as eqx

    model = eqx.nn.MLP(WIDTH, WIDTH, WIDTH, DEPTH - 1, key=jax.random.key(0))
    return calls(eqx.filter_jit(lambda model, x: jax.vmap(model)(x)), model, X)


@comparison(
    "apply",
    f"a jitted call of an MLP of {DEPTH} layers",
    "plain JAX, dict params",
    num_rounds=15,
    promises=[Promise("renga", "plain JAX, dict params", 1.1)],
)
def cases() -> dict[str, Round]:
    """Every case whose library is installed."""
    found = {"plain JAX, dict params": plain(), "renga": renga()}
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {"Haiku": haiku},
        "flax": {"Flax linen": linen, "Flax NNX, nnx.jit": nnx},
        "equinox": {"Equinox, filter_jit": equinox},
    }
    return found | installed(peers)


if __name__ == "__main__":
    main()
