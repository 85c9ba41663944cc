"""Walking to a goal in the plane: the task that MAML was shown on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._checks import check_count
from .._environment import Environment, environment
from ._spaces import Box, check_action


class NavigationParams(NamedTuple):
    """What distinguishes the tasks of `navigation`.

    Attributes:
      goal: where to go, `[2]`.
      max_speed: the greatest velocity along an axis.
      radius: how near to the goal an episode is terminated.
      max_steps_in_episode: after which an episode is truncated.
    """

    goal: Any = (0.25, 0.25)
    max_speed: Any = 0.1
    radius: Any = 0.01
    max_steps_in_episode: Any = 100


class NavigationState(NamedTuple):
    """The position, `[2]`, and the steps so far."""

    position: jax.Array
    time: jax.Array


@environment
def navigation() -> Environment:
    """A point that walks from the origin to a goal, which it does not see.

    The goal is a parameter: a batch of tasks is `jax.vmap` over `NavigationParams`, as `navigation_tasks` draws them.
    The reward is minus the squared distance to the goal of the position that the step leads to. An episode is
    terminated within 0.01 of the goal, and truncated after 100 steps. It is differentiable.

    Source: Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400, section 5.3 (2D navigation). Their horizon is a
    truncation here.

    Returns:
      An environment with a velocity `[2]` as action, clipped to [-0.1, 0.1], and the position `[2]` as observation.
    Raises:
      ValueError: when stepped, for an action of another shape.

    >>> env = rl.navigation()
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.array([0.05, 5.0]))
    >>> (100 * obs).round().tolist(), round(reward.item(), 4)
    ([5.0, 10.0], -0.0625)
    """

    def reset_env(key: jax.Array, params: NavigationParams) -> tuple[jax.Array, NavigationState]:
        position = jnp.zeros(2)
        return position, NavigationState(position, jnp.zeros((), jnp.int32))

    def step_env(key: jax.Array, state: NavigationState, action: Any, params: NavigationParams) -> Any:
        velocity = jnp.clip(check_action("navigation", action, (2,)), -params.max_speed, params.max_speed)
        position = state.position + velocity.astype(state.position.dtype)
        squared = jnp.sum((position - jnp.asarray(params.goal, position.dtype)) ** 2)
        state = NavigationState(position, state.time + 1)
        return position, state, -squared, squared <= params.radius**2, {}

    return Environment(
        reset_env,
        step_env,
        lambda state, params: state.time >= params.max_steps_in_episode,
        default_params=NavigationParams(),
        action_space=lambda params: Box(-params.max_speed, params.max_speed, (2,)),
        observation_space=lambda params: Box(-jnp.inf, jnp.inf, (2,)),
    )


def navigation_tasks(key: jax.Array, num_tasks: int) -> NavigationParams:
    """Parameters of tasks of `navigation`, their goals drawn uniformly from the unit square around the origin.

    Source: Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400, section 5.3.

    Args:
      key: for the goals.
      num_tasks: how many.
    Returns:
      `NavigationParams` whose leaves have the tasks as their first axis, to be mapped over; goals `[tasks, 2]`.
    Raises:
      ValueError: for no tasks.

    >>> tasks = rl.navigation_tasks(jax.random.key(0), 20)
    >>> tasks.goal.shape, tasks.max_steps_in_episode.shape
    ((20, 2), (20,))
    """
    check_count("navigation_tasks", "num_tasks", num_tasks, at_least=1)
    goals = jax.random.uniform(key, (num_tasks, 2), minval=-0.5, maxval=0.5)
    _, *others = NavigationParams()
    return NavigationParams(goals, *(jnp.full((num_tasks,), other) for other in others))
