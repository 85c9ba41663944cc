"""REINFORCE with a baseline, the shortest of learners: what came of an action says how much more of it there shall be.

    python examples/reinforce.py        13 seconds

Prints, of five seeds, the mean return of 100 episodes on CartPole-v1 after 250 updates of 8,000 frames, greedily acted;
500 is the most there is:

    482.8 498.3 488.4 493.7 500.0

Source: Williams 1992, https://doi.org/10.1007/BF00992696, section 6; with a baseline as in Sutton, Barto 2018,
http://incompleteideas.net/book/the-book-2nd.html, equation 13.11.
"""

import jax
import jax.numpy as jnp

from renga import nets, optim, training
from renga.training import rl

NUM_ENVS, NUM_STEPS, NUM_UPDATES, DISCOUNT = 16, 500, 250, 0.995
TX = optim.adam(optim.linear_schedule(5e-3, 0.0, NUM_UPDATES))
ENV = rl.cart_pole()


@nets.define
def agent(obs, *, actor=nets.mlp(32, 2), critic=nets.mlp(32, 1)):
    """What to do, and what to expect."""
    return rl.categorical(actor(obs)), critic(obs)[..., 0]


def act(params, obs, key):
    """An action by chance."""
    return agent.apply(params, obs)[0].sample(key)


def best(params, obs, key):
    """The likelier action."""
    return agent.apply(params, obs)[0].mode()


def loss_fn(params, batch, key):
    """Log-probabilities weighted by what came of the actions beyond what was expected, and the error of that."""
    policy, value = agent.apply(params, batch["obs"])
    surprise = batch["return"] - value
    weight = jax.nn.standardize(jax.lax.stop_gradient(surprise), axis=None)
    return jnp.mean(-policy.log_prob(batch["action"]) * weight + surprise**2)


def train(key, num_updates=NUM_UPDATES):
    """A whole run, from a key to parameters."""
    init_key, env_key = jax.random.split(key)
    collect, step = training.rollout(rl.vectorize(ENV, NUM_ENVS), act, NUM_STEPS), training.step(loss_fn, TX)

    def update(carry, _):
        train_state, rollout_state = carry
        rollout_state, seen = collect(train_state.params, rollout_state)
        _, next_value = agent.apply(train_state.params, seen.next_obs)
        returns = rl.discounted_returns(seen.reward, **seen.ends, discount=DISCOUNT, next_values=next_value)
        train_state, _ = step(train_state, {"obs": seen.obs, "action": seen.action, "return": returns})
        return (train_state, rollout_state), training.episode_metrics(seen)["return"]

    params = agent.init(init_key, jnp.zeros(4))
    start = (training.init(params, TX), collect.init(env_key, params))
    (train_state, _), returns = jax.lax.scan(update, start, length=num_updates)
    return train_state.params, returns


def main(num_seeds: int = 5, num_updates: int = NUM_UPDATES) -> list[float]:
    """Trains and evaluates all seeds in one program, prints and returns their returns."""
    evaluate = rl.evaluate_policy(ENV, best, num_episodes=100, num_steps=500)

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
