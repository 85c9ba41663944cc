"""Targets from what another policy did, its actions weighed by how much likelier they are now."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._backwards import backwards, checked, following
from ._returns import Estimates


def vtrace(
    rewards: ArrayLike,
    values: ArrayLike,
    next_values: ArrayLike,
    *,
    log_ratios: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    decay: ArrayLike = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> Estimates:
    """V-trace: targets of values and advantages for a policy gradient, from actions of another policy.

    With `rho = min(rho_bar, exp(log_ratios))` and `c = decay * min(c_bar, exp(log_ratios))`, the target is
    `v[t] = values[t] + rho[t] * (r[t] + discount * next_values[t] - values[t]) + discount * c[t] * gain[t + 1]`, where
    `gain = v - values`, and the advantage is `rho[t] * (r[t] + discount * v[t + 1] - values[t])`. On policy the targets
    are `lambda_returns`. All of it follows the derivatives of values and ratios; `jax.lax.stop_gradient` holds it
    fixed.

    Source: Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, equation 1, remarks 1 and 2, and section 4.2.

    Args:
      rewards: `[time, ...]`.
      values: of the observations, `[time, ...]`.
      next_values: of the true next observations, before any restart, `[time, ...]`.
      log_ratios: of the probability of each action under the policy that learns to that under the one that acted,
        `[time, ...]`.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
      decay: λ, one number, or one for each reward.
      rho_bar: the largest weight of an error, above 0: it decides which policy the targets value.
      c_bar: the largest share of what comes back from the next step, above 0.
    Returns:
      `Estimates(advantages, targets)`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and numbers out of range.
      TypeError: for flags that are not Booleans.

    >>> never, zero = jnp.zeros(2, bool), jnp.zeros(2)
    >>> ratios = jnp.log(jnp.array([0.5, 2.0]))
    >>> found = vtrace(jnp.ones(2), zero, zero, log_ratios=ratios, terminated=never, truncated=never, discount=1.0)
    >>> found.targets.tolist(), found.advantages.tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    for argument, bound in (("rho_bar", rho_bar), ("c_bar", c_bar)):
        if isinstance(bound, int | float) and not bound > 0:
            raise ValueError(f"vtrace: expected {argument} above 0, got {bound!r}.")
    steps = checked(
        "vtrace",
        rewards,
        {"values": values, "next_values": next_values, "log_ratios": log_ratios},
        flags={"terminated": terminated, "truncated": truncated},
        rates={"discount": discount, "decay": decay},
    )
    values, next_values = steps.others["values"], steps.others["next_values"]
    rho, c = (_clipped(steps.others["log_ratios"], bound) for bound in (rho_bar, c_bar))
    errors = rho * (steps.rewards + steps.expected(next_values) - values)
    gains = backwards(steps.discount * steps.others["decay"] * c, errors, steps.ended)
    ahead = next_values + jnp.where(steps.last, 0, following(gains))
    advantages = rho * (steps.rewards + steps.expected(ahead) - values)
    return Estimates(advantages, values + gains)


def retrace(
    rewards: ArrayLike,
    values: ArrayLike,
    next_values: ArrayLike,
    *,
    log_ratios: ArrayLike,
    terminated: ArrayLike,
    truncated: ArrayLike,
    discount: ArrayLike,
    decay: ArrayLike = 1.0,
) -> jax.Array:
    """Retrace(λ): targets of the values of actions, from actions of another policy.

    With `c = decay * min(1, exp(log_ratios))`, the target is
    `q[t] = r[t] + discount * (next_values[t] + c[t + 1] * (q[t + 1] - values[t + 1]))`. It follows the derivatives of
    values and ratios: `jax.lax.stop_gradient` holds it fixed.

    Source: Munos, Stepleton, Harutyunyan, Bellemare 2016, https://arxiv.org/abs/1606.02647, equations 3 and 4 and
    section 3.

    Args:
      rewards: `[time, ...]`.
      values: of the actions taken, `[time, ...]`.
      next_values: of the true next observations, `[time, ...]`: means of the values of all actions under the policy
        that learns.
      log_ratios: of the probability of each action under the policy that learns to that under the one that acted,
        `[time, ...]`.
      terminated: `[time, ...]`, Booleans: the episode is over after the step, and nothing is to be expected.
      truncated: `[time, ...]`, Booleans: the episode was cut off after the step.
      discount: one number, or one for each reward.
      decay: λ, one number, or one for each reward.
    Returns:
      The targets, `[time, ...]`.
    Raises:
      ValueError: for what has not the shape of `rewards`, and rates out of range.
      TypeError: for flags that are not Booleans.

    >>> never, zero = jnp.zeros(2, bool), jnp.zeros(2)
    >>> ratios = jnp.log(jnp.array([2.0, 0.5]))
    >>> retrace(jnp.ones(2), zero, zero, log_ratios=ratios, terminated=never, truncated=never, discount=1.0).tolist()
    [1.5, 1.0]
    """
    steps = checked(
        "retrace",
        rewards,
        {"values": values, "next_values": next_values, "log_ratios": log_ratios},
        flags={"terminated": terminated, "truncated": truncated},
        rates={"discount": discount, "decay": decay},
    )
    values = steps.others["values"]
    errors = steps.rewards + steps.expected(steps.others["next_values"]) - values
    c = following(steps.others["decay"] * _clipped(steps.others["log_ratios"], 1.0))
    return values + backwards(steps.discount * c, errors, steps.ended)


def _clipped(log_ratios: jax.Array, bound: float) -> jax.Array:
    return jnp.exp(jnp.minimum(log_ratios, jnp.log(jnp.asarray(bound, log_ratios.dtype))))
