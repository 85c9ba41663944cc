"""MAML by policy gradients: parameters from which a step on twenty episodes finds the way to a goal that is not seen.

    python examples/maml_navigation.py        90 seconds

Prints the mean return of 40 new goals, with its 95 % interval, before and after steps on each, of parameters that were
trained to be adapted, and of parameters trained for all goals at once:

                   before         after 1        after 2        after 3
    meta-trained      -19.2 ± 3.4     -3.0 ± 0.7     -1.2 ± 0.1     -1.0 ± 0.1
    pretrained        -17.8 ± 3.4    -17.3 ± 3.3    -17.0 ± 3.3    -16.6 ± 3.2

The loss of a task draws its own data by the parameters that it is given: those before a step for the support, those
after it for the query. The data are constant. The ratio of probabilities, which is 1, has the gradient of the return;
of the derivative of that gradient, which goes through the steps, mere log-probabilities would leave out a part.

Source: Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400, algorithm 3 and section 5.3, with Adam for TRPO and
the mean over episodes as baseline; the ratio, Rothfuss, Lee, Clavera, Asfour, Abbeel 2019,
https://arxiv.org/abs/1810.06784, section 5 (low variance curvature); the loss after every step, Antoniou, Edwards,
Storkey 2019, https://arxiv.org/abs/1810.09502, section 4.
"""

import jax
import jax.numpy as jnp
from jax import lax

from renga import nets, optim, training
from renga.training import rl

NUM_UPDATES, NUM_TASKS, NUM_EPISODES, HORIZON, INNER_STEPS = 200, 20, 20, 100, 3
ENV = rl.scale_actions(rl.clip_actions(rl.navigation()))
inner, tx = optim.sgd(0.1), optim.chain(optim.clip_by_global_norm(1.0), optim.adam(2e-3))


@nets.define
def policy(obs, *, mean=nets.mlp(64, 64, 2), log_scale=nets.param((2,), jax.nn.initializers.constant(-0.5))):
    """A velocity, as a share of the greatest."""
    return rl.normal(mean(obs), jnp.exp(log_scale))


def act(params, obs, key):
    """A velocity by chance."""
    return policy.apply(params, obs).sample(key)


collect = training.rollout(rl.vectorize(ENV, NUM_EPISODES), act, HORIZON)


def loss_fn(params, task, key):
    """A loss with the gradient of minus the return of a task, from episodes of these very parameters."""
    frozen = lax.stop_gradient(params)
    _, seen = collect(frozen, collect.init(key, frozen, task))
    returns = rl.discounted_returns(seen.reward, **seen.ends, discount=0.99)
    surprise = returns - jnp.mean(returns, 1, keepdims=True)
    # Where returns hardly differ any more, near the goal, steps become small.
    advantage = jax.nn.standardize(surprise, axis=None, epsilon=1.0)
    log_prob = policy.apply(params, seen.obs).log_prob(seen.action)
    ratio = jnp.exp(log_prob - lax.stop_gradient(log_prob))
    first_episode = jnp.cumsum(seen.ended, 0) == seen.ended
    found = jnp.sum(jnp.where(first_episode, seen.reward, 0)) / NUM_EPISODES
    return -jnp.mean(ratio * advantage), {"return": found}


def sample(key, num_tasks=NUM_TASKS):
    """Goals, to adapt to and to be tested on."""
    goals = rl.navigation_tasks(key, num_tasks)
    return {"support": goals, "query": goals}


LOSSES = {
    "meta-trained": training.maml(
        loss_fn, inner, INNER_STEPS, query_weights=[1 / INNER_STEPS] * INNER_STEPS, has_aux=True
    ),
    "pretrained": training.maml(loss_fn, inner, 0, has_aux=True),
}


def run(loss, num_updates):
    """A whole run, from parameters at random to scores on new goals."""
    train = training.loop(training.step(loss, tx, has_aux=True), sample, num_updates)
    train_state = training.init(policy.init(jax.random.key(0), jnp.zeros(2)), tx, key=jax.random.key(1))
    train_state, _ = train(train_state, jax.random.key(2))
    test = training.evaluate_tasks(loss_fn, inner, INNER_STEPS, has_aux=True)
    return test(train_state.params, sample(jax.random.key(3), 40), jax.random.key(4))


def main(num_updates: int = NUM_UPDATES) -> dict[str, list[float]]:
    """Learns and tests in both ways, prints and returns the returns after 0, 1, 2 and 3 steps."""
    found = {}
    print(" " * 21 + "before" + "".join(f"{f'after {count}':>15}" for count in range(1, INNER_STEPS + 1)))
    for name, loss in LOSSES.items():
        scores = jax.jit(run, static_argnums=(0, 1))(loss, num_updates)
        found[name] = scores.mean["return"].tolist()
        pairs = zip(found[name], scores.interval["return"].tolist(), strict=True)
        print(f"{name:<14}", *(f"{mean:8.1f} ± {interval:.1f}" for mean, interval in pairs))
    return found


if __name__ == "__main__":
    main()
