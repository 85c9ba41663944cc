"""The cart with a pole on it, CartPole-v1."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._environment import Environment, environment
from ._spaces import Discrete, check_action, symmetric_box


class CartPoleParams(NamedTuple):
    """The numbers of `cart_pole`, by gymnasium's names: each may be an array, to be differentiated or mapped over.

    Attributes:
      gravity: in metres per second squared.
      masscart: of the cart.
      masspole: of the pole.
      length: half of the pole's.
      force_mag: of each push.
      tau: seconds between states.
      theta_threshold_radians: the angle beyond which the pole has fallen.
      x_threshold: how far from the middle the cart may go.
      max_steps_in_episode: after which an episode is truncated.
    """

    gravity: Any = 9.8
    masscart: Any = 1.0
    masspole: Any = 0.1
    length: Any = 0.5
    force_mag: Any = 10.0
    tau: Any = 0.02
    theta_threshold_radians: Any = 12 * 2 * math.pi / 360
    x_threshold: Any = 2.4
    max_steps_in_episode: Any = 500


class CartPoleState(NamedTuple):
    """Where cart and pole are, and how fast they move: scalars, which XLA keeps in registers."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


@environment
def cart_pole() -> Environment:
    """Balancing a pole on a cart, equal to gymnasium's CartPole-v1 step by step.

    Each step is rewarded by 1. The episode is terminated when the pole has fallen or the cart has left the track, and
    truncated after 500 steps. It is differentiable, in `CartPoleParams` too, and in the action where that is a float
    between 0 and 1.

    Source: Barto, Sutton, Anderson 1983, https://doi.org/10.1109/TSMC.1983.6313077; the equations are those of
    Florian 2005, https://coneural.org/florian/papers/05_cart_pole.pdf, without friction, as gymnasium integrates them.

    Returns:
      An environment with actions 0 (left) and 1 (right), `[]`, and observations `[4]`: position and velocity of the
      cart, angle and angular velocity of the pole.
    Raises:
      ValueError: when stepped, for an action of another shape.

    >>> env = rl.cart_pole()
    >>> obs, state = env.reset(jax.random.key(0))
    >>> obs, state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, 1)
    >>> obs.shape, reward.item(), terminated.item(), env.action_space()
    ((4,), 1.0, False, Discrete(2))
    """

    def reset_env(key: jax.Array, params: CartPoleParams) -> tuple[jax.Array, CartPoleState]:
        drawn = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return drawn, CartPoleState(*drawn, time=jnp.zeros((), jnp.int32))

    def step_env(key: jax.Array, state: CartPoleState, action: Any, params: CartPoleParams) -> Any:
        x, x_dot, theta, theta_dot, time = state
        pushed, turned = _accelerations(state, check_action("cart_pole", action, ()), params)
        moved = (x + params.tau * x_dot, x_dot + params.tau * pushed)
        swung = (theta + params.tau * theta_dot, theta_dot + params.tau * turned)
        state = CartPoleState(*moved, *swung, time=time + 1)
        out = (jnp.abs(state.x) > params.x_threshold) | (jnp.abs(state.theta) > params.theta_threshold_radians)
        return jnp.stack(state[:4]), state, jnp.ones_like(x), out, {}

    return Environment(
        reset_env,
        step_env,
        lambda state, params: state.time >= params.max_steps_in_episode,
        default_params=CartPoleParams(),
        action_space=Discrete(2),
        observation_space=lambda params: symmetric_box(
            2 * params.x_threshold, np.inf, 2 * params.theta_threshold_radians, np.inf
        ),
    )


def _accelerations(state: CartPoleState, action: jax.Array, params: CartPoleParams) -> tuple[jax.Array, jax.Array]:
    """Of the cart, and of the pole's angle."""
    sine, cosine = jnp.sin(state.theta), jnp.cos(state.theta)
    total, moment = params.masscart + params.masspole, params.masspole * params.length
    push = ((2 * action - 1) * params.force_mag + moment * state.theta_dot**2 * sine) / total
    turned = (params.gravity * sine - cosine * push) / (params.length * (4 / 3 - params.masspole * cosine**2 / total))
    return push - moment * turned * cosine / total, turned
