"""A train step of an MLP 784-512-512-10 in every library: batch 128, Adam, cross-entropy.

pip install -e '.[bench]'
python benchmarks/mlp.py
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, Work, apart, comparison, installed, main
from steps import cross_entropy, equinox_step, jax_step, torch_step

from renga import nets, training

SIZES, BATCH, NUM_STEPS = (784, 512, 512, 10), 128, 10
X = jax.random.normal(jax.random.key(0), (BATCH, SIZES[0]))
LABELS = jnp.arange(BATCH) % SIZES[-1]


def of(apply: Callable[[Any, jax.Array], Any], params: Any, options: Mapping[str, Any] | None = None) -> Round:
    """A network whose parameters are a pytree; `options` are the compiler's."""
    loss = lambda params, x, y: cross_entropy(apply(params, x), y)  # noqa: E731
    return jax_step(loss, params, X, LABELS, num_steps=NUM_STEPS, options=options)


def plain() -> Round:
    """What one writes without a library: a loop over a list of dicts."""
    pairs = list(itertools.pairwise(SIZES))
    keys = jax.random.split(jax.random.key(0), len(pairs))
    draws = [jax.random.normal(key, pair) / pair[0] ** 0.5 for key, pair in zip(keys, pairs, strict=True)]

    def apply(params: list, x: jax.Array) -> jax.Array:
        for each in params[:-1]:
            x = jax.nn.relu(x @ each["w"] + each["b"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return of(apply, [{"w": w, "b": jnp.zeros(w.shape[1])} for w in draws])


def renga(options: Mapping[str, Any] | None = None) -> Round:
    """`nets.mlp`."""
    net = nets.mlp(*SIZES[1:])
    return of(net.apply, net.init(jax.random.key(0), X), options)


def haiku() -> Round:
    """Haiku."""
    import haiku as hk

    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP(SIZES[1:])(x)))
    return of(net.apply, net.init(jax.random.key(0), X))


def flax() -> Round:
    """Flax linen."""
    from flax import linen

    layers = [linen.Dense(SIZES[1]), linen.relu, linen.Dense(SIZES[2]), linen.relu, linen.Dense(SIZES[3])]
    net = linen.Sequential(layers)
    return of(net.apply, net.init(jax.random.key(0), X))


def equinox() -> Round:
    """Equinox: one example under `vmap`."""
    import equinox as eqx

    def loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(jax.vmap(model)(x), y)

    model = eqx.nn.MLP(SIZES[0], SIZES[3], SIZES[1], 2, key=jax.random.key(0))
    return equinox_step(loss, model, X, LABELS, num_steps=NUM_STEPS)


def torch(*, compiled: bool) -> Round:
    """Torch, eager or compiled."""
    import numpy as np
    import torch
    from torch import nn

    linears = [nn.Linear(*pair) for pair in itertools.pairwise(SIZES)]
    net = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])
    x, y = torch.tensor(np.asarray(X)), torch.tensor(np.asarray(LABELS, np.int64))
    loss = lambda x, y: nn.functional.cross_entropy(net(x), y)  # noqa: E731
    return torch_step(torch.compile(loss) if compiled else loss, net, x, y, num_steps=NUM_STEPS)


FORWARD = sum(i * o for i, o in itertools.pairwise(SIZES))  # multiplications, of an example


@comparison(
    "mlp",
    "a train step of an MLP 784-512-512-10",
    "renga",
    num_rounds=15,
    promises=[
        Promise(
            "renga",
            ("Haiku", "Flax linen", "Equinox"),
            1,
            "It compiles to the very program that Haiku, Flax and plain JAX compile to: what differs is noise.",
        ),
        Promise("renga, compiler_options", ("torch, eager", "torch, compiled"), 0.5),
    ],
    work=Work(flops=BATCH * (6 * FORWARD - 2 * SIZES[0] * SIZES[1])),
)
def cases() -> dict[str, Round]:
    """Every case whose library is installed."""
    ours = {"renga": renga(), "renga, compiler_options": renga(training.compiler_options())}
    found = ours | {"plain JAX, dict params": plain()}
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {"Haiku": haiku},
        "flax": {"Flax linen": flax},
        "equinox": {"Equinox": equinox},
        "torch": {
            "torch, eager": lambda: apart(torch, compiled=False),
            "torch, compiled": lambda: apart(torch, compiled=True),
        },
    }
    return found | installed(peers)


if __name__ == "__main__":
    main()
