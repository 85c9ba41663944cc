"""Consensus makes a GAN find all eight Gaussians of a ring, of which descending at once finds few.

A generator and a discriminator descend their losses at the same time. The field that they follow rotates around the
solution; `optim.consensus` adds the gradient of the field's own size, and the players settle.

    pip install 'renga[cli]'
    python examples/ring_of_gaussians.py        1 minute on 2 cores; writes ring_of_gaussians.png

Prints how many modes have at least 1 % of 2,500 samples within three standard deviations, and the share of samples
that lie so near to any:

    rmsprop                  seed 0: 3 of 8 modes, 0.96 of the samples
    rmsprop                  seed 1: 4 of 8 modes, 0.91 of the samples
    consensus(1.0), rmsprop  seed 0: 8 of 8 modes, 0.93 of the samples
    consensus(1.0), rmsprop  seed 1: 8 of 8 modes, 0.92 of the samples

Source: the problem of Metz et al. 2017, https://arxiv.org/abs/1611.02163; the method of Mescheder, Nowozin, Geiger
2017, https://arxiv.org/abs/1705.10461.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from renga import nets, optim

RADIUS, SPREAD = 2.0, 0.1
LATENT, BATCH, SAMPLES = 16, 256, 2500
ANGLES = jnp.arange(8) * jnp.pi / 4
MODES = RADIUS * jnp.stack([jnp.cos(ANGLES), jnp.sin(ANGLES)], -1)
LEARNING_RATE = 1e-3

generator = nets.mlp(64, 64, 2)
discriminator = nets.mlp(64, 64, 1)


def ring(key: jax.Array, num: int) -> jax.Array:
    """Samples `[num, 2]` of the mixture."""
    which, noise = jax.random.split(key)
    return MODES[jax.random.randint(which, (num,), 0, 8)] + SPREAD * jax.random.normal(noise, (num, 2))


def losses(players: dict[str, Any], key: jax.Array) -> dict[str, jax.Array]:
    """The non-saturating losses of both players on a batch."""
    of_data, of_latent = jax.random.split(key)
    real = ring(of_data, BATCH)
    fake = generator.apply(players["generator"], jax.random.normal(of_latent, (BATCH, LATENT)))
    on_real, on_fake = (discriminator.apply(players["discriminator"], x) for x in (real, fake))
    return {
        "generator": jax.nn.softplus(-on_fake).mean(),
        "discriminator": (jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake)).mean(),
    }


def play(tx: optim.Link, seed: int, num_steps: int) -> jax.Array:
    """Samples `[2500, 2]` of the generator after training."""
    of_init, of_steps, of_samples = jax.random.split(jax.random.key(seed), 3)
    keys = dict(zip(("generator", "discriminator"), jax.random.split(of_init), strict=True))
    players = {
        "generator": generator.init(keys["generator"], jnp.zeros(LATENT)),
        "discriminator": discriminator.init(keys["discriminator"], jnp.zeros(2)),
    }

    @jax.jit
    def train(players: Any, opt_state: Any) -> Any:
        def step(carry: Any, key: jax.Array) -> Any:
            players, opt_state = carry
            found = optim.oracle(lambda players: losses(players, key), players)
            updates, opt_state = tx.update(found.grads, opt_state, players, **found.extra)
            return (optax.apply_updates(players, updates), opt_state), None

        return jax.lax.scan(step, (players, opt_state), jax.random.split(of_steps, num_steps))[0]

    players, _ = train(players, tx.init(players))
    return generator.apply(players["generator"], jax.random.normal(of_samples, (SAMPLES, LATENT)))


def quality(samples: jax.Array) -> tuple[int, float]:
    """How many modes are found, and the share of samples near to any."""
    distances = jnp.linalg.norm(samples[:, None] - MODES, axis=-1)
    near = distances < 3 * SPREAD
    return int((near.sum(0) >= SAMPLES // 100).sum()), float(near.any(1).mean())


def draw(found: dict[str, jax.Array], path: Path) -> None:
    """Samples of every method beside the data."""
    from matplotlib.figure import Figure

    found = {"data": ring(jax.random.key(0), SAMPLES), **found}
    figure = Figure(figsize=(3 * len(found), 3.2), layout="constrained")
    for axes, (name, samples) in zip(np.ravel(figure.subplots(1, len(found))), found.items(), strict=True):
        axes.scatter(*np.asarray(samples).T, s=2, alpha=0.3, linewidths=0)
        axes.set(title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


def main(num_steps: int = 8000, seeds: tuple[int, ...] = (0, 1), picture: Path | None = None) -> dict[str, list[int]]:
    """Plays the game with both chains, and prints and returns the modes that they find."""
    chains = {
        "rmsprop": optim.rmsprop(LEARNING_RATE),
        "consensus(1.0), rmsprop": optim.chain(optim.consensus(1.0), optim.rmsprop(LEARNING_RATE)),
    }
    modes: dict[str, list[int]] = {name: [] for name in chains}
    shown = {}
    for name, tx in chains.items():
        for seed in seeds:
            samples = play(tx, seed, num_steps)
            num_modes, share = quality(samples)
            modes[name].append(num_modes)
            shown.setdefault(name, samples)
            print(f"{name:23}  seed {seed}: {num_modes} of 8 modes, {share:.2f} of the samples", flush=True)
    if picture is not None:
        draw(shown, picture)
    return modes


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--picture", type=Path, default=Path("ring_of_gaussians.png"))
    options = parser.parse_args()
    main(options.steps, picture=options.picture)
