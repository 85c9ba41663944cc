"""Learners who count on each other's learning come to cooperate in the iterated prisoner's dilemma.

Two prisoners meet again and again, and each remembers the last round alone: a policy is five numbers, the probability
of staying silent at first and after each of four outcomes. Who descends the own loss, confesses in the end. LOLA
descends the loss after the other's next step, and differentiates through that step; SOS does so as far as stable points
stay fixed points. Both learn to answer in kind.

    pip install 'renga[cli]'
    python examples/prisoners_dilemma.py        15 seconds; writes prisoners_dilemma.png

Prints the years in prison per round, mean of both players and ten seeds (1 where both are silent, 2 where both
confess), and how likely a player is to stay silent at first and after each outcome, own move first:

    method  years  at first  silent, silent  silent, confess  confess, silent  confess, confess
    naive    2.00      0.01            0.20             0.06             0.04              0.00
    LOLA     1.10      0.90            0.90             0.00             0.85              0.08
    SOS      1.11      0.85            0.88             0.06             0.90              0.11

Source: Foerster et al. 2018, https://arxiv.org/abs/1709.04326, section 5; Letcher et al. 2019,
https://openreview.net/forum?id=SyGjjsC5tQ.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import optim, training

GAMMA = 0.96
SEEDS = 10
YEARS = {"x": (1.0, 3.0, 0.0, 2.0), "y": (1.0, 0.0, 3.0, 2.0)}  # after CC, CD, DC, DD, x's move first
STATES = ("at first", "silent, silent", "silent, confess", "confess, silent", "confess, confess")
FLIPPED = (0, 1, 3, 2, 4)  # as the other player sees these

CHAINS: dict[str, Any] = {
    "naive": optim.sgd(1.0),
    "LOLA": optim.chain(optim.lola(1.0), optim.sgd(1.0)),
    "SOS": optim.chain(optim.sos(1.0), optim.sgd(1.0)),
}


def years(players: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Each player's years per round, discounted, of policies given as logits: exact, from the chain of outcomes."""
    x, y = (jax.nn.sigmoid(players[player]) for player in ("x", "y"))
    outcomes = jnp.stack([x * y, x * (1 - y), (1 - x) * y, (1 - x) * (1 - y)], -1)
    visits = (1 - GAMMA) * jnp.linalg.solve((jnp.eye(4) - GAMMA * outcomes[1:]).T, outcomes[0])
    return {player: visits @ jnp.array(costs) for player, costs in YEARS.items()}


def loss_of(player: str) -> Any:
    """A player's discounted years in all: those of a round by as many rounds as count."""
    return lambda players, batch, key: years(players)[player] / (1 - GAMMA)


GAME = training.game({player: loss_of(player) for player in YEARS})


def learn(tx: Any, num_steps: int) -> dict[str, jax.Array]:
    """What both players have learnt, `[seeds, 5]` each, logits of staying silent."""
    train = training.loop(training.step(GAME, tx), lambda key: None, num_steps, report_every=num_steps)

    def one(key: jax.Array) -> dict[str, jax.Array]:
        first = dict(zip(YEARS, jax.random.normal(key, (2, 5)), strict=True))
        return train(training.init(first, tx), key)[0].params

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), SEEDS))


def policies(players: dict[str, jax.Array]) -> np.ndarray:
    """Probabilities of staying silent, `[2 * seeds, 5]`, own move first."""
    x, y = (np.asarray(jax.nn.sigmoid(players[player])) for player in ("x", "y"))
    return np.concatenate([x, y[:, FLIPPED]])


def draw(found: dict[str, np.ndarray], file: Path) -> None:
    """Every policy that was learnt, a point for each of its numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        spread = np.linspace(-0.25, 0.25, len(points))
        for place in range(len(STATES)):
            axes.plot(place + spread, points[:, place], ".", color=f"C{place}")
        axes.set_xticks(range(len(STATES)), [state.replace(", ", ",\n") for state in STATES], fontsize=8)
        axes.set(title=name, ylim=(-0.05, 1.05))
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("probability of staying silent")
    figure.savefig(file, dpi=120)


def main(num_steps: int = 100, picture: Path | None = None) -> dict[str, float]:
    """Learns by every method, prints the table, and returns the mean years per round."""
    learnt = {name: learn(tx, num_steps) for name, tx in CHAINS.items()}
    found = {name: policies(players) for name, players in learnt.items()}
    means = {
        name: float(jnp.mean(jnp.stack(list(jax.vmap(years)(players).values())))) for name, players in learnt.items()
    }
    print("  ".join(["method", "years", *STATES]))
    for name, mean in means.items():
        shares = [f"{share:>{len(state)}.2f}" for share, state in zip(found[name].mean(0), STATES, strict=True)]
        print("  ".join([f"{name:6}", f"{mean:5.2f}", *shares]))
    if picture is not None:
        draw(found, picture)
    return means


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--picture", type=Path, default=Path("prisoners_dilemma.png"))
    options = parser.parse_args()
    main(options.steps, options.picture)
