"""Proximal policy optimization on one page: environment, policy and learner in one program, ten seeds at once.

    python examples/ppo.py        30 seconds

Prints, of every seed, the mean return of 100 episodes on CartPole-v1 after 500,000 frames, greedily acted; 500 is the
most there is:

    500.0 500.0 500.0 500.0 500.0 500.0 500.0 500.0 500.0 500.0

Time limits cut episodes off, they do not end them: the value of the last observation is expected after one. Values are
clipped as in the implementation of the paper's authors; without, most seeds fall back from 500 before the end.

Source: Schulman, Wolski, Dhariwal, Radford, Klimov 2017, https://arxiv.org/abs/1707.06347, equations 7 and 9;
hyper-parameters of Lu et al. 2022, https://arxiv.org/abs/2210.05639 (purejaxrl).
"""

import jax
import jax.numpy as jnp
from jax import lax

from renga import nets, optim, training
from renga.training import rl

NUM_ENVS, NUM_STEPS, NUM_UPDATES = 4, 128, 976
NUM_EPOCHS, NUM_MINIBATCHES, CLIP = 4, 4, 0.2
RATE = optim.linear_schedule(2.5e-4, 0.0, NUM_UPDATES * NUM_EPOCHS * NUM_MINIBATCHES)
TX = optim.chain(optim.clip_by_global_norm(0.5), optim.adam(RATE, eps=1e-5))


def tower(size, scale):
    """Two hidden layers of 64, and an output of a scale of its own."""
    hidden = [nets.linear(64, w_init=nets.orthogonal(2**0.5)) for _ in range(2)]
    return nets.serial(hidden[0], jnp.tanh, hidden[1], jnp.tanh, nets.linear(size, w_init=nets.orthogonal(scale)))


@nets.define
def agent(obs, *, actor=tower(2, 0.01), critic=tower(1, 1.0)):
    """The logarithms of the probabilities of both actions, and the value."""
    return jax.nn.log_softmax(actor(obs)), critic(obs)[..., 0]


def chosen(log_probs, action):
    """The logarithm of the probability of an action."""
    return jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0]


def act(params, obs, key):
    """An action, and what the learner wants to know of it."""
    log_probs, value = agent.apply(params, obs)
    action = jax.random.categorical(key, log_probs)
    return action, {"log_prob": chosen(log_probs, action), "value": value}


def loss_fn(params, batch, key):
    """The clipped surrogate, the clipped error of the value, and a premium on entropy."""
    log_probs, value = agent.apply(params, batch["obs"])
    ratio = jnp.exp(chosen(log_probs, batch["action"]) - batch["log_prob"])
    advantage = jax.nn.standardize(batch["advantage"], epsilon=1e-8)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    near = batch["value"] + jnp.clip(value - batch["value"], -CLIP, CLIP)
    error = jnp.maximum((value - batch["target"]) ** 2, (near - batch["target"]) ** 2)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    return jnp.mean(-gain + 0.25 * error - 0.01 * entropy)


def train(key, num_updates=NUM_UPDATES):
    """A whole run, from a key to parameters and the returns of episodes on the way."""
    init_key, env_key, order_key = jax.random.split(key, 3)
    collect = training.rollout(rl.vectorize(rl.cart_pole(), NUM_ENVS), act, NUM_STEPS, has_aux=True)
    step = training.step(loss_fn, TX)

    def update(carry, key):
        train_state, rollout_state = carry
        rollout_state, seen = collect(train_state.params, rollout_state)
        _, next_value = agent.apply(train_state.params, seen.next_obs)
        found = rl.gae(seen.reward, seen.aux["value"], next_value, **seen.ends, discount=0.99, decay=0.95)
        data = {"obs": seen.obs, "action": seen.action, "advantage": found.advantages, "target": found.targets}

        def epoch(train_state, key):
            return lax.scan(step, train_state, rl.minibatches(key, data | seen.aux, NUM_MINIBATCHES))

        train_state, _ = lax.scan(epoch, train_state, jax.random.split(key, NUM_EPOCHS))
        return (train_state, rollout_state), training.episode_metrics(seen)

    train_state = training.init(agent.init(init_key, jnp.zeros(4)), TX)
    start = (train_state, collect.init(env_key, train_state.params))
    (train_state, _), metrics = lax.scan(update, start, jax.random.split(order_key, num_updates))
    return train_state.params, metrics


def best(params, obs, key):
    """The likelier action."""
    return jnp.argmax(agent.apply(params, obs)[0], -1)


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
