"""Optimistic gradient descent solves the game f(x, y) = xy, around which gradient descent spirals outwards.

Player x minimises, player y maximises. The gradient field is (y, -x): each player's own gradient to descend.

    python examples/bilinear_game.py        2 seconds

Prints what the distance to the solution (0, 0) is multiplied with at each step:

    gradient descent             1.004988 a step
    optimistic gradient descent  0.994936 a step
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from renga import optim

LEARNING_RATE = 0.1


def field(players: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The gradients that the two players descend: of f for x, of -f for y."""
    return {"x": players["y"], "y": -players["x"]}


def rate(tx: optim.Link, num_steps: int) -> float:
    """Growth of the distance per step, over the second half of a run from (1, 1)."""

    def step(carry, _):
        players, opt_state = carry
        updates, opt_state = tx.update(field(players), opt_state, players)
        players = optax.apply_updates(players, updates)
        return (players, opt_state), optax.tree.norm(players)

    players = {"x": jnp.ones(()), "y": jnp.ones(())}
    _, distances = lax.scan(step, (players, tx.init(players)), length=num_steps)
    half = num_steps // 2
    return float((distances[-1] / distances[half - 1]) ** (1 / (num_steps - half)))


def main(num_steps: int = 400) -> dict[str, float]:
    """Plays the game with both links, and prints and returns their rates."""
    with jax.enable_x64(True):
        rates = {
            "gradient descent": rate(optim.sgd(LEARNING_RATE), num_steps),
            "optimistic gradient descent": rate(optim.optimistic_gradient(LEARNING_RATE), num_steps),
        }
    for name, value in rates.items():
        print(f"{name:27}  {value:.6f} a step")
    return rates


if __name__ == "__main__":
    main()
