"""MAML by policy gradients: parameters from which one step on twenty episodes finds the way to a goal that is not seen.

    python examples/maml_navigation.py        seconds

Prints

Source: Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400, algorithm 3 and section 5.3;
"""

import os, sys
import jax
import jax.numpy as jnp
from jax import lax

from renga import nets, optim, training
from renga.training import rl

NUM_UPDATES, NUM_TASKS, NUM_EPISODES, HORIZON = 200, 20, 20, 100
ENV = rl.scale_actions(rl.clip_actions(rl.navigation()))
inner, TX = (
    optim.sgd(float(os.environ.get("ILR", 0.1))),
    optim.chain(optim.clip_by_global_norm(1.0), optim.adam(float(os.environ.get("LR", 2e-3)))),
)


@nets.define
def policy(obs, *, mean=nets.mlp(64, 64, 2), log_scale=nets.param((2,), jax.nn.initializers.constant(-0.5))):
    """A velocity, as a share of the greatest."""
    return rl.normal(mean(obs), jnp.exp(log_scale))


def act(params, obs, key):
    return policy.apply(params, obs).sample(key)


collect = training.rollout(rl.vectorize(ENV, NUM_EPISODES), act, HORIZON)


def loss_fn(params, task, key):
    """A surrogate whose gradient is that of the return; the data are its own parameters', and constant."""
    frozen = lax.stop_gradient(params)
    _, seen = collect(frozen, collect.init(key, frozen, task))
    returns = rl.discounted_returns(seen.reward, terminated=seen.terminated, truncated=seen.truncated, discount=0.99)
    advantage = jax.nn.standardize(returns - jnp.mean(returns, 1, keepdims=True), axis=None, epsilon=float(os.environ.get("EPS", 1)))
    log_prob = policy.apply(params, seen.obs).log_prob(seen.action)
    first = jnp.cumsum(seen.ended, 0) == seen.ended
    total = jnp.sum(jnp.where(first, seen.reward, 0)) / NUM_EPISODES
    return -jnp.mean(jnp.exp(log_prob - lax.stop_gradient(log_prob)) * advantage), {"return": total}


def sample(key, num_tasks=NUM_TASKS):
    tasks = rl.navigation_tasks(key, num_tasks)
    return {"support": tasks, "query": tasks}


def main(num_updates: int = NUM_UPDATES):
    tested = jax.jit(training.evaluate_tasks(loss_fn, inner, inner_steps=3, has_aux=True))
    tasks = sample(jax.random.key(2), 40)
    for name, inner_steps in {"maml": 1, }.items():
        step = training.step(training.maml(loss_fn, inner, inner_steps, has_aux=True), TX, has_aux=True)
        train = training.loop(step, sample, num_updates, report_every=num_updates // 10)
        params = policy.init(jax.random.key(0), jnp.zeros(2))
        ts, metrics = jax.jit(train)(training.init(params, TX, key=jax.random.key(1)), jax.random.key(3))
        print(name, metrics["return"].round(1), ts.params["log_scale"])
        scores = tested(ts.params, tasks, jax.random.key(4))
        print(name, scores.mean["return"], scores.interval["return"])


if __name__ == "__main__":
    main()
