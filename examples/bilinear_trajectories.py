"""Eight ways to play f(x, y) = xy: where they lead from one start, and how fast.

Player x minimises, player y maximises, and the solution is (0, 0). The field of their gradients only rotates, so that
descending it at once leads away; what looks ahead, looks back or corrects the field comes in.

    pip install 'renga[cli]'
    python examples/bilinear_trajectories.py        7 seconds; writes bilinear_trajectories.png

Prints what the distance to the solution is multiplied with at each step, beside the rate that is known:

    method             measured     known
    at once            1.019804  1.019804
    in turns           0.999995  1.000000
    optimistic         0.978906  0.978906
    extragradient      0.980612  0.980612
    consensus          0.824621  0.824621
    LOLA               0.941488  0.941488
    competitive        0.980581  0.980581
    lookahead          0.969148  0.969148

Sources of the methods and rates: the docstrings of the links. Alternating descent circles (Bailey, Gidel, Piliouras
2020, https://arxiv.org/abs/1907.04392).
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import optim, training

RATE = 0.2
PERIOD, SHARE = 20, 0.5  # of lookahead
DRAWN_STEPS = 60


def product(players: dict[str, jax.Array], batch: None, key: Any) -> jax.Array:
    """The value of the game."""
    return players["x"] * players["y"]


GAME = training.zero_sum(product, minimize="x", maximize="y")
SGD = optim.sgd(RATE)
EACH = optim.by_player({"x": SGD, "y": SGD})

CHAINS: dict[str, Any] = {
    "at once": SGD,
    "in turns": EACH,
    "optimistic": optim.optimistic_gradient(RATE),
    "extragradient": optim.extragradient(SGD),
    "consensus": optim.chain(optim.consensus(1.0), SGD),
    "LOLA": optim.chain(optim.lola(RATE), SGD),
    "competitive": optim.competitive(RATE),
    "lookahead": optim.lookahead(SGD, PERIOD, SHARE),
}

KNOWN = {
    "at once": np.hypot(1, RATE),
    "in turns": 1.0,
    "optimistic": np.abs(np.roots([1, -(1 - 2j * RATE), -1j * RATE])).max(),
    "extragradient": np.hypot(1 - RATE**2, RATE),
    "consensus": np.hypot(1 - RATE, RATE),
    "LOLA": np.hypot(1 - 2 * RATE**2, RATE),
    "competitive": 1 / np.hypot(1, RATE),
    "lookahead": np.abs(1 - SHARE + SHARE * (1 - 1j * RATE) ** PERIOD) ** (1 / PERIOD),
}


def play(name: str, num_steps: int) -> np.ndarray:
    """Both players before the first step and after each, `[1 + num_steps, 2]`."""
    tx = CHAINS[name]
    step = training.alternating(GAME, tx, {"x": 1, "y": 1}) if tx is EACH else training.step(GAME, tx)

    def one(train_state: training.TrainState, _: Any) -> Any:
        train_state, _ = step(train_state, None)
        return train_state, train_state.params

    start: Any = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    _, after = jax.lax.scan(one, training.init(start, tx), length=num_steps)
    return np.stack([np.append(start[player], after[player]) for player in ("x", "y")], -1)


def rate(path: np.ndarray) -> float:
    """What the distance is multiplied with at each step: the slope of its logarithm over the second half."""
    logarithms = np.log(np.linalg.norm(path[len(path) // 2 :], axis=-1))
    means = logarithms[: len(logarithms) // PERIOD * PERIOD].reshape(-1, PERIOD).mean(1)
    return float(np.exp(np.polyfit(np.arange(len(means)), means, 1)[0] / PERIOD))


def draw(paths: dict[str, np.ndarray], file: Path) -> None:
    """The first steps of every method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.8), layout="constrained")
    for axes, (name, path) in zip(np.ravel(figure.subplots(2, 4)), paths.items(), strict=True):
        axes.plot(*path[: DRAWN_STEPS + 1].T, marker=".", markersize=3, linewidth=0.8)
        axes.plot(1, 1, "o", color="tab:green")
        axes.plot(0, 0, "+", color="tab:red", markersize=12)
        axes.set(title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{DRAWN_STEPS} steps of {RATE} from (1, 1) on f = xy")
    figure.savefig(file, dpi=120)


def main(num_steps: int = 1000, picture: Path | None = None) -> dict[str, float]:
    """Plays by every method, prints and returns the measured rates."""
    with jax.enable_x64(True):
        paths = {name: play(name, num_steps) for name in CHAINS}
    rates = {name: rate(path) for name, path in paths.items()}
    print(f"{'method':15}  {'measured':>10}  {'known':>8}")
    for name, found in rates.items():
        print(f"{name:15}  {found:10.6f}  {KNOWN[name]:8.6f}")
    if picture is not None:
        draw(paths, picture)
    return rates


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--picture", type=Path, default=Path("bilinear_trajectories.png"))
    options = parser.parse_args()
    main(options.steps, options.picture)
