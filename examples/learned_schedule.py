"""A schedule of learning rates, learnt by gradients through the runs that follow it.

A linear classifier learns the handwritten digits in a hundred steps of SGD, each on eight images. The logarithms of the
rate at five steps, between which it is interpolated, are learnt themselves: by the gradient of the validation loss at
the end, through all steps, over runs from new initial values and on other images.

    pip install 'renga[cli]'
    python examples/learned_schedule.py        30 seconds

Prints the test loss, mean of thirty runs that were not seen, for the constant rate and for the cosine decay that do
best on them, and for the learnt schedule; and the learnt rates:

    constant  0.3642
    cosine    0.2864
    learnt    0.2660
    rates     3.54 1.88 2.26 1.98 0.32
"""

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

from renga import nets, optim, training

STEPS, KNOTS, RUNS = 100, 5, 30
NET = nets.linear(10)
RATES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)


def digits():
    """Images to train on, to choose by, and to test on."""
    x, y = load_digits(return_X_y=True)
    order = jax.random.permutation(jax.random.key(0), len(x))
    data = {"x": x[order].astype("float32") / 16, "y": y[order].astype("int32")}
    return ({name: jnp.asarray(array[start::3]) for name, array in data.items()} for start in range(3))


def loss_of_all(params, log_rates, batch, key):
    """Cross entropy."""
    return training.cross_entropy(NET.apply(params, batch["x"]), batch["y"])


def loss_of_some(params, log_rates, batch, key):
    """Cross entropy of eight random images."""
    some = jax.random.randint(key, (8,), 0, len(batch["y"]))
    return loss_of_all(params, log_rates, jax.tree.map(lambda leaf: leaf[some], batch), None)


def rate_at(log_rates, count):
    """The rate of a step: between those of the knots, on a logarithmic scale."""
    return jnp.exp(jnp.interp(count, jnp.linspace(0, STEPS - 1, len(log_rates)), log_rates))


def scheduled(log_rates):
    """SGD whose rate follows the knots."""
    return optim.sgd(lambda count: rate_at(log_rates, count))


def loss_after_run(log_rates, batch, key):
    """The outer loss of a network that the inner steps have trained from the start."""
    init_key, run_key = jax.random.split(key)
    params = NET.init(init_key, batch["inner"]["x"])
    run = training.minimize(loss_of_some, scheduled, STEPS)
    return loss_of_all(run(params, log_rates, batch["inner"], run_key), log_rates, batch["outer"], None)


def outer_loss(log_rates, batch, key):
    """The mean over four runs."""
    return jnp.mean(jax.vmap(lambda key: loss_after_run(log_rates, batch, key))(jax.random.split(key, 4)))


def main(num_steps: int = 150) -> dict[str, float]:
    """Learns the rates, prints the table, and returns it."""
    train, valid, test = digits()
    tx = optim.adam(optim.cosine_decay_schedule(0.1, num_steps))
    step = jax.jit(training.step(outer_loss, tx))
    train_state = training.init(jnp.full(KNOTS, jnp.log(0.3)), tx, key=jax.random.key(1))
    for _ in range(num_steps):
        train_state, _ = step(train_state, {"inner": train, "outer": valid})

    keys = jax.random.split(jax.random.key(2), RUNS)
    runs = jax.jit(jax.vmap(loss_after_run, (None, None, 0)))

    def score(log_rates) -> float:
        return float(runs(log_rates, {"inner": train, "outer": test}, keys).mean())

    shape = jnp.log(jnp.maximum(jnp.cos(jnp.arange(STEPS) / STEPS * jnp.pi / 2) ** 2, 1e-3))
    found = {
        "constant": min(score(jnp.full(STEPS, jnp.log(rate))) for rate in RATES),
        "cosine": min(score(jnp.log(rate) + shape) for rate in RATES),
        "learnt": score(train_state.params),
    }
    for name, loss in found.items():
        print(f"{name:8}  {loss:.4f}")
    print("rates    ", *(f"{rate:.2f}" for rate in jnp.exp(train_state.params)))
    return found


if __name__ == "__main__":
    main()
