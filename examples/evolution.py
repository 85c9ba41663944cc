"""Evolution strategies: a loss that is a whole episode, of which no derivative exists, goes into a step like others.

    python examples/evolution.py        seconds

Prints, of five seeds, the mean return of 100 episodes on CartPole-v1 after so many updates; 500 is the most there is:

Source: Salimans, Ho, Chen, Sidor, Sutskever 2017, https://arxiv.org/abs/1703.03864, algorithm 1.
"""

import jax
import jax.numpy as jnp

from renga import nets, optim, training
from renga.training import rl

NUM_UPDATES, NUM_PAIRS, SCALE, NUM_STEPS = 100, 32, 0.1, 500
ENV, NET, TX = rl.cart_pole(), nets.mlp(16, 2, activation=jnp.tanh), optim.adam(0.03)


def act(params, obs, key):
    """The preferred action."""
    return jnp.argmax(NET.apply(params, obs), -1)


def loss_fn(params, batch, key):
    """How much an episode falls short of the longest one."""
    return 1 - jnp.mean(rl.evaluate_policy(ENV, act, num_episodes=1, num_steps=NUM_STEPS)(params, key).returns) / 500


def train(key, num_updates=NUM_UPDATES):
    """A whole run, from a key to parameters and the returns on the way."""
    init_key, loss_key, loop_key = jax.random.split(key, 3)
    loss = training.evolution_strategies(loss_fn, scale=SCALE, num_pairs=NUM_PAIRS)
    loop = training.loop(training.step(loss, TX), lambda key: None, num_updates)
    train_state, metrics = loop(training.init(NET.init(init_key, jnp.zeros(4)), TX, key=loss_key), loop_key)
    return train_state.params, 500 * (1 - metrics["loss"])


def main(num_seeds: int = 5, num_updates: int = NUM_UPDATES) -> list[float]:
    """Trains and evaluates all seeds in one program, prints and returns their returns."""
    evaluate = rl.evaluate_policy(ENV, act, num_episodes=100, num_steps=500)

    @jax.jit
    @jax.vmap
    def run(key):
        params, x = train(key, num_updates)
        return jnp.mean(evaluate(params, jax.random.fold_in(key, 1)).returns), x

    returns, x = run(jax.random.split(jax.random.key(0), num_seeds))
    print(x[:, ::10])
    returns = returns.tolist()
    print(*(f"{each:.1f}" for each in returns))
    return returns


if __name__ == "__main__":
    main()
