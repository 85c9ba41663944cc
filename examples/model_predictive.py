"""Model-predictive control: at every step, plans are improved by the derivative of what they lead to.

    python examples/model_predictive.py        8 seconds

Prints the mean return of 64 episodes on Pendulum-v1, planned and by chance:

    planned   -153.4
    chance   -1202.9

A plan is the parameters of a policy that takes its actions one by one, and its loss is a rollout in the model, which
is the environment itself here. The controller is a policy as well: what it carries is its plan, moved on by a step. Of
several plans near that, each improved, it follows the best for one step.

Source: Tassa, Erez, Todorov 2012, https://doi.org/10.1109/IROS.2012.6386025, section II (receding horizon, warm
starts); plans are improved by Adam here.
"""

import jax
import jax.numpy as jnp

from renga import optim, training
from renga.training import rl

HORIZON, NUM_PLANS, NUM_STEPS, NOISE = 30, 16, 20, 1.0
ENV, TX = rl.pendulum(), optim.adam(0.3)


def follow(plan, index, obs, key):
    """The policy of a plan, `[horizon, 1]`: its actions in turn, between -2 and 2."""
    return index + 1, 2 * jnp.tanh(plan[index])


imagine = training.rollout(ENV, follow, HORIZON, initial_carry=lambda plan, obs: jnp.zeros((), int))


def loss_fn(plan, start, key):
    """What a step of the plan costs in the mean."""
    return -jnp.mean(imagine(plan, start)[1].reward)


def improved(plan, start, num_steps):
    """A plan after so many steps of the chain, and what it costs."""
    step = training.step(loss_fn, TX)
    train_state, _ = jax.lax.scan(lambda now, _: step(now, start), training.init(plan, TX), length=num_steps)
    return train_state.params, loss_fn(train_state.params, start, None)


def controller(num_steps):
    """A policy, of many environments at once, that plans before it acts."""

    def act(plan, obs, key):
        state = rl.PendulumState(jnp.arctan2(obs[1], obs[0]), obs[2], jnp.zeros((), jnp.int32))
        start = imagine.init(key, plan)._replace(obs=obs, env_state=state)
        noise = NOISE * jax.random.normal(key, (NUM_PLANS, *plan.shape)).at[0].set(0)
        plans, costs = jax.vmap(improved, (0, None, None))(plan + noise, start, num_steps)
        plan = plans[jnp.argmin(costs)]
        _, action = follow(plan, 0, obs, None)
        return jnp.roll(plan, -1, 0).at[-1].set(0), action

    return lambda params, plans, obs, key: jax.vmap(act)(plans, obs, jax.random.split(key, len(obs)))


def blank(params, obs):
    """The plans at the beginning of an episode: to do nothing."""
    return jnp.zeros((*obs.shape[:-1], HORIZON, 1))


def chance(params, obs, key):
    """Any action."""
    return ENV.action_space().sample(key, obs.shape[:-1])


def main(num_episodes: int = 64, num_steps: int = NUM_STEPS) -> dict[str, float]:
    """Acts in both ways, prints and returns the returns."""
    ways = {
        "planned": rl.evaluate_policy(ENV, controller(num_steps), num_episodes, 200, initial_carry=blank),
        "chance": rl.evaluate_policy(ENV, chance, num_episodes, 200),
    }
    found = {name: jnp.mean(jax.jit(way)(None, jax.random.key(0)).returns).item() for name, way in ways.items()}
    for name, value in found.items():
        print(f"{name:<8}{value:8.1f}")
    return found


if __name__ == "__main__":
    main()
