"""A loss learnt for the noise of a family of problems beats those that one would take.

Linear functions of eight numbers are fitted to forty points by fifty steps of gradient descent. A third of the points
lie far above. The loss of a residual is Huber's plus a small network, whose parameters are learnt by gradients through
the fifty steps, to bring the fit close to the function itself.

    python examples/learned_loss.py        20 seconds

Prints the squared distance of the fit from 200 functions that were not seen: for known losses, each at the best of
several rates, and for the learnt one:

    squared error   2.011
    absolute error  0.113
    huber           0.091
    learnt          0.031

Source: the idea of Bechtle et al. 2021, https://arxiv.org/abs/1906.05374.
"""

import jax
import jax.numpy as jnp
import optax

from renga import nets, optim, training

DIMENSIONS, POINTS, STEPS, TASKS = 8, 40, 50, 200
RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NET = nets.mlp(32, 32, 1, activation=jnp.tanh)
KNOWN = {
    "squared error": jnp.square,
    "absolute error": jnp.abs,
    "huber": lambda residual: optax.huber_loss(residual, delta=0.3),
}


def draw(key, num_tasks: int):
    """Points near linear functions, a third of them far above, and the functions' coefficients."""
    x_key, true_key, noise_key, far_key, height_key = jax.random.split(key, 5)
    x = jax.random.normal(x_key, (num_tasks, POINTS, DIMENSIONS))
    true = jax.random.normal(true_key, (num_tasks, DIMENSIONS))
    far = jax.random.bernoulli(far_key, 1 / 3, (num_tasks, POINTS))
    height = jax.random.exponential(height_key, far.shape) * 4
    noise = 0.1 * jax.random.normal(noise_key, far.shape) + jnp.where(far, height, 0)
    return {"x": x, "y": jnp.einsum("tpd,td->tp", x, true) + noise, "true": true}


def fit(penalty, rate, task):
    """The coefficients that gradient descent finds, where `penalty(residual)` is the loss of a point."""
    loss_fn = lambda w, _, task, key: jnp.mean(penalty(task["x"] @ w - task["y"]))  # noqa: E731
    return training.minimize(loss_fn, optim.sgd(rate), STEPS)(jnp.zeros(DIMENSIONS), None, task)


def error(penalty, rate, tasks):
    """The mean squared distance of what is found from the coefficients."""
    found = jax.vmap(lambda task: fit(penalty, rate, task))(tasks)
    return jnp.mean(jnp.sum((found - tasks["true"]) ** 2, -1))


def learnt(params):
    """Huber's loss and what a network adds to it."""
    return lambda residual: optax.huber_loss(residual) + NET.apply(params, residual[:, None])[:, 0]


def outer_loss(params, batch, key):
    """The error on tasks drawn anew."""
    return error(learnt(params), 0.5, draw(key, 32))


def main(num_steps: int = 300) -> dict[str, float]:
    """Learns the loss, prints the table, and returns it."""
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine_decay_schedule(1e-2, num_steps)))
    step = jax.jit(training.step(outer_loss, tx))
    train_state = training.init(NET.init(jax.random.key(0), jnp.ones(1)), tx, key=jax.random.key(1))
    for _ in range(num_steps):
        train_state, _ = step(train_state, None)

    tasks = draw(jax.random.key(2), TASKS)
    found = {}
    for name, penalty in KNOWN.items():
        at = jax.jit(lambda rate, penalty=penalty: error(penalty, rate, tasks))
        found[name] = min(float(at(rate)) for rate in RATES)
    found["learnt"] = float(jax.jit(error, static_argnums=0)(learnt(train_state.params), 0.5, tasks))
    for name, each in found.items():
        print(f"{name:14}  {each:.3f}")
    return found


if __name__ == "__main__":
    main()
