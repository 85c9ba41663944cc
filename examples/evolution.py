"""Evolution strategies: the loss is a whole episode, which has no derivative, and goes into a step like any other.

    python examples/evolution.py        10 seconds

Prints, of ten seeds, the mean return of 100 episodes on CartPole-v1 after 50 updates of 32 pairs of episodes; 500 is
the most there is:

    500.0 500.0 500.0 442.6 500.0 500.0 500.0 500.0 500.0 500.0

Source: Salimans, Ho, Chen, Sidor, Sutskever 2017, https://arxiv.org/abs/1703.03864, algorithm 1, with antithetic
directions; returns are taken as they are, not by rank.
"""

import jax
import jax.numpy as jnp

from renga import nets, optim, training
from renga.training import rl

NUM_UPDATES, NUM_PAIRS, SCALE, NUM_STEPS = 50, 32, 0.1, 500
ENV, NET, TX = rl.cart_pole(), nets.mlp(16, 2, activation=jnp.tanh), optim.adam(0.03)


def best(params, obs, key):
    """The action of the greater output: a choice without derivative."""
    return jnp.argmax(NET.apply(params, obs), -1)


PLAY = rl.evaluate_policy(ENV, best, num_episodes=1, num_steps=NUM_STEPS)


def loss_fn(params, batch, key):
    """How far an episode falls short of the longest one, from 0 to 1."""
    return 1 - PLAY(params, key).returns[0] / NUM_STEPS


def train(key, num_updates=NUM_UPDATES):
    """A whole run, from a key to parameters and the losses on the way."""
    init_key, loss_key, loop_key = jax.random.split(key, 3)
    loss = training.evolution_strategies(loss_fn, scale=SCALE, num_pairs=NUM_PAIRS)
    loop = training.loop(training.step(loss, TX), lambda key: None, num_updates)
    train_state, metrics = loop(training.init(NET.init(init_key, jnp.zeros(4)), TX, key=loss_key), loop_key)
    return train_state.params, metrics["loss"]


def main(num_seeds: int = 10, num_updates: int = NUM_UPDATES) -> list[float]:
    """Trains and evaluates all seeds in one program, prints and returns their returns."""
    evaluate = rl.evaluate_policy(ENV, best, num_episodes=100, num_steps=NUM_STEPS)

    @jax.jit
    @jax.vmap
    def run(key):
        params, _ = train(key, num_updates)
        return jnp.mean(evaluate(params, jax.random.key(1)).returns)

    returns = run(jax.random.split(jax.random.key(0), num_seeds)).tolist()
    print(*(f"{each:.1f}" for each in returns))
    return returns


if __name__ == "__main__":
    main()
