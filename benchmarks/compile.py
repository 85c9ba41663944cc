"""How long the gradient of a deep network takes to trace, lower and compile, from empty caches.

One of: compile-mlp, 40 residual blocks of width 64, unrolled and scanned; compile-transformer, a language model of 4 to
64 blocks.

    pip install -e '.[bench]'
    python benchmarks/compile.py compile-mlp

Initial parameters are made beforehand. A round clears JAX's caches, so nothing is left over from the case before.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, comparison, installed, main

from renga import nets

DEPTH, WIDTH = 40, 64
X = jnp.ones((32, WIDTH))
IDS = jnp.zeros((2, 32), jnp.int32)


def compiling(loss: Callable[[Any], jax.Array], params: Any) -> Round:
    """A round that compiles the gradient of a loss once."""

    def run() -> int:
        jax.clear_caches()
        jax.jit(jax.grad(loss)).lower(params).compile()
        return 1

    return run


def of_net(net: nets.Net, *inputs: Any) -> Round:
    """The gradient of the mean square of a network's outputs."""
    return compiling(lambda params: jnp.mean(net.apply(params, *inputs) ** 2), net.init(jax.random.key(0), *inputs))


def block() -> nets.Net:
    """A residual block: layer norm, linear map, relu."""
    return nets.residual(nets.layer_norm(), nets.linear(WIDTH), jax.nn.relu)


def plain() -> Round:
    """What one writes without a library: a loop over dicts."""
    names = [{"scale": jnp.ones(WIDTH), "offset": jnp.zeros(WIDTH), "b": jnp.zeros(WIDTH)} for _ in range(DEPTH)]
    params = [{**each, "w": jnp.eye(WIDTH)} for each in names]

    def loss(params: Any) -> jax.Array:
        x = X
        for each in params:
            centred = x - x.mean(-1, keepdims=True)
            y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
            x = x + jax.nn.relu((y * each["scale"] + each["offset"]) @ each["w"] + each["b"])
        return jnp.mean(x**2)

    return compiling(loss, params)


def haiku(*, scanned: bool) -> Round:
    """Haiku, its `layer_stack` where scanned."""
    import haiku as hk

    def block(x: jax.Array) -> jax.Array:
        return x + jax.nn.relu(hk.Linear(WIDTH)(hk.LayerNorm(-1, True, True)(x)))

    def body(x: jax.Array) -> jax.Array:
        if scanned:
            stack: Any = hk.layer_stack(DEPTH)(block)
            return stack(x)
        for _ in range(DEPTH):
            x = block(x)
        return x

    net = hk.without_apply_rng(hk.transform(body))
    return compiling(lambda params: jnp.mean(net.apply(params, X) ** 2), net.init(jax.random.key(0), X))


def flax(*, scanned: bool) -> Round:
    """Flax linen, its `scan` where scanned."""
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array, _: None = None) -> tuple[jax.Array, None]:
            return x + linen.relu(linen.Dense(WIDTH)(linen.LayerNorm()(x))), None

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            if scanned:
                stack = linen.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=DEPTH)
                return stack()(x, None)[0]
            for _ in range(DEPTH):
                x = Block()(x)[0]
            return x

    net = Net()
    return compiling(lambda params: jnp.mean(jnp.asarray(net.apply(params, X)) ** 2), net.init(jax.random.key(0), X))


def equinox() -> Round:
    """Equinox, one example under `vmap`, as its documentation writes it."""
    import equinox as eqx

    class Block(eqx.Module):
        norm: eqx.nn.LayerNorm
        linear: eqx.nn.Linear

        def __init__(self, key: jax.Array):
            self.norm, self.linear = eqx.nn.LayerNorm(WIDTH), eqx.nn.Linear(WIDTH, WIDTH, key=key)

        def __call__(self, x: jax.Array) -> jax.Array:
            return x + jax.nn.relu(self.linear(self.norm(x)))

    model = eqx.nn.Sequential([eqx.nn.Lambda(Block(key)) for key in jax.random.split(jax.random.key(0), DEPTH)])
    params, static = eqx.partition(model, eqx.is_array)
    return compiling(lambda params: jnp.mean(jax.vmap(eqx.combine(params, static))(X) ** 2), params)


@comparison(
    "compile-mlp",
    f"trace, lower and compile a gradient: {DEPTH} residual blocks",
    "renga, repeat",
    num_rounds=3,
    promises=[
        Promise(
            "renga, repeat",
            "renga, serial",
            1 / 8,
            "`serial` traces equal blocks once: it takes half of what a loop in plain JAX does.",
        ),
        Promise("renga, repeat", ("Haiku, layer_stack", "Flax linen, scan"), 1),
    ],
)
def mlp() -> Mapping[str, Round]:
    """Forty blocks, as a loop and as a scan, in every library that is installed."""
    cases = {
        "renga, repeat": of_net(nets.repeat(block(), DEPTH), X),
        "renga, serial": of_net(nets.serial(*[block()] * DEPTH), X),
        "plain JAX, a loop": plain(),
    }
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {
            "Haiku, a loop": lambda: haiku(scanned=False),
            "Haiku, layer_stack": lambda: haiku(scanned=True),
        },
        "flax": {
            "Flax linen, a loop": lambda: flax(scanned=False),
            "Flax linen, scan": lambda: flax(scanned=True),
        },
        "equinox": {"Equinox, a loop": equinox},
    }
    return cases | installed(peers)


@comparison(
    "compile-transformer",
    "trace, lower and compile a gradient: a transformer",
    "renga, 4 blocks",
    num_rounds=3,
    promises=[Promise("renga, 64 blocks", "renga, 4 blocks", 2)],
)
def transformer() -> Mapping[str, Round]:
    """Language models of three depths."""
    depths = {depth: nets.transformer(100, 64, num_layers=depth, num_heads=4) for depth in (4, 16, 64)}
    return {f"renga, {depth} blocks": of_net(net, IDS) for depth, net in depths.items()}


if __name__ == "__main__":
    main()
