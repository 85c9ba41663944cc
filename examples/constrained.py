"""A constrained problem is a game: parameters minimise, and the prices of constraints, never negative, maximise.

Which softmax regression of the handwritten digits is the smallest whose loss is at most 0.1 on every digit? Each digit
has a price, its Lagrange multiplier, which rises while the digit's loss is above the bound. Both players move by
extragradient, and a projection keeps prices from falling below zero. The problem is convex: at its solution no
constraint is broken, every constraint that costs something is just met, and the Lagrangian has no slope.

    pip install 'renga[cli]'
    python examples/constrained.py        12 seconds

Prints half the squared norm of the weights, the largest loss of a digit, and the smallest and largest price; beside
them, what comes of one price for all digits, the mean of those found:

    a price each  size 223.8  worst digit 0.1000  prices 56 to 691
    one for all   size 208.5  worst digit 0.1939
"""

import jax
import jax.numpy as jnp
from optax import softmax_cross_entropy_with_integer_labels as cross_entropies
from optax.projections import projection_non_negative
from sklearn.datasets import load_digits

from renga import nets, optim, training

BOUND, SCALE = 0.1, 0.01  # the scale makes rates of both players alike
NET = nets.linear(10)


def digits():
    """The images, between 0 and 1, and their labels."""
    x, y = load_digits(return_X_y=True)
    return {"x": jnp.asarray(x, jnp.float32) / 16, "y": jnp.asarray(y)}


def size(params):
    """Half the square of the weights' norm."""
    return 0.5 * jnp.sum(params["w"] ** 2)


def losses(params, batch):
    """The mean cross entropy of each digit, [10]."""
    each = cross_entropies(NET.apply(params, batch["x"]), batch["y"])
    of_digit = batch["y"][:, None] == jnp.arange(10)
    return jnp.sum(each[:, None] * of_digit, 0) / jnp.sum(of_digit, 0)


def lagrangian(players, batch, key):
    """The size, and what broken constraints cost."""
    return SCALE * size(players["net"]) + players["prices"] @ (losses(players["net"], batch) - BOUND)


def play(batch, prices, links, num_steps):
    """Where the game ends that begins with these prices."""
    players, tx = {"net": NET.init(jax.random.key(0), batch["x"]), "prices": prices}, optim.by_player(links)
    tx = optim.extragradient(tx)
    step = training.step(training.zero_sum(lagrangian, minimize="net", maximize="prices"), tx)
    train = training.loop(step, lambda key: batch, num_steps)
    return jax.jit(train)(training.init(players, tx), jax.random.key(1))[0].params


def main(num_steps: int = 12000):
    """Solves both, prints and returns the players of each."""
    batch, rising = digits(), optim.chain(optim.sgd(0.02), optim.project(projection_non_negative))
    each = play(batch, jnp.zeros(10), {"net": optim.sgd(0.03), "prices": rising}, num_steps)
    mean = jnp.full(10, jnp.mean(each["prices"]))
    alike = play(batch, mean, {"net": optim.sgd(0.03), "prices": optim.set_to_zero()}, num_steps)
    for label, players in {"a price each": each, "one for all": alike}.items():
        worst = jnp.max(losses(players["net"], batch))
        prices = players["prices"] / SCALE
        spread = f"  prices {prices.min():.0f} to {prices.max():.0f}" if players is each else ""
        print(f"{label:<12}  size {size(players['net']):.1f}  worst digit {worst:.4f}{spread}")
    return {"a price each": each, "one for all": alike}


if __name__ == "__main__":
    main()
