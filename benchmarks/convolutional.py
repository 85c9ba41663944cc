"""A train step of a convolutional network on 32x32 images in every library: batch 64, Adam, cross-entropy.

Two convolutions of 32 and 64 features, each with relu and a max pool, then 512 hidden units and 10 classes.
"""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, Work, apart, comparison, installed, main
from steps import cross_entropy, equinox_step, jax_step, torch_step

from renga import nets, training

BATCH = 64
IMAGES = jax.random.normal(jax.random.key(0), (BATCH, 32, 32, 3))
LABELS = jnp.arange(BATCH) % 10


def renga(options: Mapping[str, Any] | None = None) -> Round:
    """The parts of `nets`, in a `jax.jit` with or without options."""
    pool = nets.max_pool(2)
    net = nets.serial(
        nets.conv(32, 3), jax.nn.relu, pool, nets.conv(64, 3), jax.nn.relu, pool, nets.flatten(), nets.mlp(512, 10)
    )
    params = net.init(jax.random.key(0), IMAGES)
    loss = lambda params, x, y: cross_entropy(net.apply(params, x), y)  # noqa: E731
    return jax_step(loss, params, IMAGES, LABELS, options=options)


def haiku() -> Round:
    """Haiku."""
    import haiku as hk

    def body(x: jax.Array) -> jax.Array:
        for features in (32, 64):
            x = hk.max_pool(jax.nn.relu(hk.Conv2D(features, 3)(x)), (2, 2, 1), (2, 2, 1), "VALID")
        return hk.nets.MLP([512, 10])(x.reshape(len(x), -1))

    net = hk.without_apply_rng(hk.transform(body))
    params = net.init(jax.random.key(0), IMAGES)
    return jax_step(lambda params, x, y: cross_entropy(net.apply(params, x), y), params, IMAGES, LABELS)


def flax() -> Round:
    """Flax linen."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for features in (32, 64):
                x = linen.max_pool(linen.relu(linen.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
            return linen.Dense(10)(linen.relu(linen.Dense(512)(x.reshape(len(x), -1))))

    net = Net()
    params = net.init(jax.random.key(0), IMAGES)
    loss = lambda params, x, y: cross_entropy(jnp.asarray(net.apply(params, x)), y)  # noqa: E731
    return jax_step(loss, params, IMAGES, LABELS)


def equinox() -> Round:
    """Equinox: channels first, one example under `vmap`."""
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), 4)
    relu, pool = eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)
    layers = [eqx.nn.Conv2d(3, 32, 3, padding=1, key=keys[0]), relu, pool]
    layers += [eqx.nn.Conv2d(32, 64, 3, padding=1, key=keys[1]), relu, pool, eqx.nn.Lambda(jnp.ravel)]
    layers += [eqx.nn.Linear(64 * 64, 512, key=keys[2]), relu, eqx.nn.Linear(512, 10, key=keys[3])]

    def loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(jax.vmap(model)(x), y)

    return equinox_step(loss, eqx.nn.Sequential(layers), jnp.moveaxis(IMAGES, -1, 1), LABELS)


def torch(*, compiled: bool, channels_last: bool = False) -> Round:
    """Torch, eager or compiled."""
    import numpy as np
    import torch
    from torch import nn

    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 64, 512), nn.ReLU(), nn.Linear(512, 10)),
    )
    x, y = torch.tensor(np.moveaxis(np.asarray(IMAGES), -1, 1).copy()), torch.tensor(np.asarray(LABELS, np.int64))
    if channels_last:
        to_last: Any = {"memory_format": torch.channels_last}
        net, x = net.to(**to_last), x.to(**to_last)
    loss = lambda x, y: nn.functional.cross_entropy(net(x), y)  # noqa: E731
    return torch_step(torch.compile(loss) if compiled else loss, net, x, y)


def cases() -> dict[str, Round]:
    """Every case whose library is installed."""
    found = {"renga": renga(), "renga, compiler_options": renga(training.compiler_options())}
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {"Haiku": haiku},
        "flax": {"Flax linen": flax},
        "equinox": {"Equinox": equinox},
    }
    found |= installed(peers)
    if importlib.util.find_spec("torch"):
        found["torch, eager"] = apart(torch, compiled=False)
        found["torch, eager, channels last"] = apart(torch, compiled=False, channels_last=True)
        found["torch, compiled"] = apart(torch, compiled=True)
    return found


_JAX_PEERS = ("Haiku", "Flax linen", "Equinox")
_FIRST, _REST = 32 * 32 * 27 * 32, 16 * 16 * 288 * 64 + 4096 * 512 + 512 * 10  # multiplications forward, of an image

comparison(
    "conv",
    "a train step of a convolutional network",
    "renga",
    promises=[
        Promise("renga, compiler_options", "torch, eager, channels last", 1),
        Promise("renga, compiler_options", _JAX_PEERS, 0.4),
        Promise("renga", _JAX_PEERS, 0.65),
    ],
    work=Work(flops=BATCH * (4 * _FIRST + 6 * _REST)),
)(cases)

if __name__ == "__main__":
    main()
