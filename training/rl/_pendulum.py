"""The pendulum to be swung up, Pendulum-v1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._environment import Environment, environment
from ._spaces import check_action, symmetric_box


class PendulumParams(NamedTuple):
    """The numbers of `pendulum`: each may be an array, to be differentiated or mapped over.

    Attributes:
      max_speed: the greatest angular velocity.
      max_torque: the greatest torque.
      dt: seconds between states.
      gravity: in metres per second squared.
      mass: of the pendulum.
      length: of the pendulum.
      max_steps_in_episode: after which an episode is truncated.
    """

    max_speed: Any = 8.0
    max_torque: Any = 2.0
    dt: Any = 0.05
    gravity: Any = 10.0
    mass: Any = 1.0
    length: Any = 1.0
    max_steps_in_episode: Any = 200


class PendulumState(NamedTuple):
    """The angle, 0 at the top and not wrapped, the angular velocity, and the steps so far."""

    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


@environment
def pendulum() -> Environment:
    """Swinging a pendulum up and holding it there, equal to gymnasium's Pendulum-v1 step by step.

    The reward is `-(angle**2 + 0.1 * angular_velocity**2 + 0.001 * torque**2)` of the state before the step. An episode
    is never terminated, and truncated after 200 steps. It is differentiable in states, actions and `PendulumParams`.

    Source: https://gymnasium.farama.org/environments/classic_control/pendulum/.

    Returns:
      An environment with a torque `[1]` in [-2, 2] as action, beyond that clipped, and observations `[3]`: cosine and
      sine of the angle, and the angular velocity.
    Raises:
      ValueError: when stepped, for an action of another shape.

    >>> env = rl.pendulum()
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.array([0.5]))
    >>> obs.shape, reward.shape, env.action_space()
    ((3,), (), Box(-2.0, 2.0, (1,)))
    """

    def reset_env(key: jax.Array, params: PendulumParams) -> tuple[jax.Array, PendulumState]:
        theta, theta_dot = jax.random.uniform(key, (2,), minval=-1) * jnp.array([jnp.pi, 1])
        state = PendulumState(theta, theta_dot, jnp.zeros((), jnp.int32))
        return _observed(state), state

    def step_env(key: jax.Array, state: PendulumState, action: Any, params: PendulumParams) -> Any:
        theta, theta_dot, time = state
        action = check_action("pendulum", action, (1,))
        torque = jnp.clip(action[0], -params.max_torque, params.max_torque).astype(theta.dtype)
        angle = (theta + jnp.pi) % (2 * jnp.pi) - jnp.pi
        reward = -(angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2)
        fall = 3 * params.gravity / (2 * params.length) * jnp.sin(theta)
        turned = fall + 3 / (params.mass * params.length**2) * torque
        theta_dot = jnp.clip(theta_dot + turned * params.dt, -params.max_speed, params.max_speed)
        state = PendulumState(theta + theta_dot * params.dt, theta_dot, time + 1)
        return _observed(state), state, reward, jnp.zeros((), bool), {}

    return Environment(
        reset_env,
        step_env,
        lambda state, params: state.time >= params.max_steps_in_episode,
        default_params=PendulumParams(),
        action_space=lambda params: symmetric_box(params.max_torque),
        observation_space=lambda params: symmetric_box(1.0, 1.0, params.max_speed),
    )


def _observed(state: PendulumState) -> jax.Array:
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])
