"""Double DQN on one page: environment, replay buffer and learner in one program, ten seeds at once.

    python examples/dqn.py        40 seconds

Prints, of every seed, the mean return of 100 episodes on CartPole-v1 after 200,000 frames, greedily acted; 500 is the
most there is:

    500.0 500.0 500.0 500.0 500.0 500.0 500.0 500.0 500.0 500.0

Targets are of six steps, which `rl.n_step` makes of sequences from the buffer; the target network is the average that
`optim.ema_params` keeps in the chain. Squared errors count what is rare, the fall of the pole: with Huber's, which are
usual, four of these ten seeds end below 130.

Source: van Hasselt, Guez, Silver 2016, https://arxiv.org/abs/1509.06461, equation 4, over Mnih et al. 2015,
https://doi.org/10.1038/nature14236; several steps as of Hessel et al. 2018, https://arxiv.org/abs/1710.02298; an
average as the target as of Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971, section 3.
"""

import jax
import jax.numpy as jnp
from jax import lax

from renga import nets, optim, training
from renga.training import rl

NUM_ENVS, NUM_UPDATES, WARM_UP = 8, 25_000, 100
CAPACITY, BATCH_SIZE, LENGTH, DISCOUNT = 5000, 128, 6, 0.99
KEPT = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
EPSILON = optim.linear_schedule(1.0, 0.05, NUM_UPDATES // 2)
TX = optim.chain(optim.adam(optim.linear_schedule(1e-3, 0.0, NUM_UPDATES)), optim.ema_params(0.98, debias=False))
NET = nets.mlp(64, 64, 2)


def chosen(values, action):
    """The value of an action."""
    return jnp.take_along_axis(values, action[..., None], -1)[..., 0]


def best(params, obs, key):
    """The action of the greatest value."""
    return jnp.argmax(NET.apply(params, obs), -1)


def explore(given, obs, key):
    """The best action, or with some probability any."""
    params, epsilon = given
    coin_key, draw_key = jax.random.split(key)
    action = best(params, obs, None)
    drawn = jax.random.randint(draw_key, action.shape, 0, 2)
    return jnp.where(jax.random.bernoulli(coin_key, epsilon, action.shape), drawn, action)


def loss_fn(params, batch, key):
    """The error of values against some steps: the network says which action is best then, the target its value."""
    seen = batch["seen"]
    ends = {"terminated": seen["terminated"], "truncated": seen["truncated"]}
    ahead = rl.n_step(seen["reward"], **ends, discount=DISCOUNT)
    next_obs = rl.take_step(seen["next_obs"], ahead.last)
    value = chosen(NET.apply(batch["target"], next_obs), best(params, next_obs, None))
    known = chosen(NET.apply(params, seen["obs"][0]), seen["action"][0])
    return training.squared_error(known, ahead.rewards + ahead.discounts * value)


def train(key, num_updates=NUM_UPDATES):
    """A whole run, from a key to parameters and the returns of episodes on the way."""
    init_key, env_key, sample_key = jax.random.split(key, 3)
    env = rl.vectorize(rl.cart_pole(), NUM_ENVS)
    warm_up, collect = (training.rollout(env, explore, num_steps) for num_steps in (WARM_UP, 1))
    step, buffer = training.step(loss_fn, TX), rl.replay(CAPACITY, num_envs=NUM_ENVS)

    def kept(seen):
        return {name: getattr(seen, name) for name in KEPT}

    def update(carry, key):
        train_state, rollout_state, replay_state = carry
        given = (train_state.params, EPSILON(train_state.step))
        rollout_state, seen = collect(given, rollout_state)
        replay_state = buffer.add(replay_state, kept(seen))
        target = optim.eval_params(train_state.opt_state, train_state.params)
        batch = {"seen": buffer.sample(replay_state, key, BATCH_SIZE, sequence_length=LENGTH), "target": target}
        train_state, _ = step(train_state, batch)
        return (train_state, rollout_state, replay_state), training.episode_metrics(seen)

    params = NET.init(init_key, jnp.zeros(4))
    rollout_state, seen = warm_up((params, 1.0), collect.init(env_key, (params, 1.0)))
    replay_state = buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], kept(seen)))
    start = (training.init(params, TX), rollout_state, buffer.add(replay_state, kept(seen)))
    (train_state, *_), metrics = lax.scan(update, start, jax.random.split(sample_key, num_updates))
    return train_state.params, metrics


def main(num_seeds: int = 10, num_updates: int = NUM_UPDATES) -> list[float]:
    """Trains and evaluates all seeds in one program, prints and returns their returns."""
    evaluate = rl.evaluate_policy(rl.cart_pole(), best, num_episodes=100, num_steps=500)

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
