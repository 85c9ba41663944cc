"""What all returns have in common: their arguments, and the scan from the last step to the first."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ...nets._linear_recurrence import linear_scan


class Steps(NamedTuple):
    """Checked arguments, all `[time, ...]`.

    Attributes:
      rewards: of each step.
      terminated: whether the episode is over after it, and nothing is to be expected.
      ended: whether the episode is over after it.
      last: whether nothing is known of what comes after it: the episode is over, or the trajectory.
      discount: of what comes after it, 0 after a termination.
      others: the further arrays and rates by name, in the dtype of the result.
    """

    rewards: jax.Array
    terminated: jax.Array
    ended: jax.Array
    last: jax.Array
    discount: jax.Array
    others: dict[str, jax.Array]

    def expected(self, values: jax.Array) -> jax.Array:
        """What values promise of what comes next, discounted: nothing after a termination, were they NaN there."""
        return jnp.where(self.terminated, 0, self.discount * values)


def checked(
    name: str,
    rewards: ArrayLike,
    arrays: Mapping[str, ArrayLike],
    *,
    flags: Mapping[str, ArrayLike],
    rates: Mapping[str, ArrayLike],
) -> Steps:
    """The arguments of a function of returns.

    Args:
      name: who asks.
      rewards: `[time, ...]`.
      arrays: what else has their shape.
      flags: `terminated` and `truncated`, of their shape.
      rates: `discount` and others, numbers or arrays of their shape.
    Raises:
      ValueError: naming who asks, for what has another shape and rates out of range.
      TypeError: for flags that are not Booleans.
    """
    shape = jnp.shape(rewards)
    if not shape or not shape[0]:
        raise ValueError(f"{name}: expected rewards [time, ...] of at least one step, got shape {shape}.")
    for argument, array in {**arrays, **flags}.items():
        if jnp.shape(array) != shape:
            raise ValueError(
                f"{name}: expected {argument} of the shape of rewards, {shape}, got {jnp.shape(array)}. Give one for "
                "each reward, time first."
            )
    for argument, array in flags.items():
        if jnp.result_type(array) != jnp.bool_:
            raise TypeError(
                f"{name}: expected {argument} as Booleans, got {jnp.result_type(array)}. Give array.astype(bool)."
            )
    for argument, rate in rates.items():
        _check_rate(name, argument, rate, shape)
    # Sums over time, which half precision would spoil.
    dtype = jnp.promote_types(jnp.result_type(rewards, *arrays.values(), 1.0), jnp.float32)
    others = {argument: jnp.asarray(array, dtype) for argument, array in arrays.items()}
    others |= {argument: jnp.broadcast_to(jnp.asarray(rate, dtype), shape) for argument, rate in rates.items()}
    terminated = jnp.asarray(flags["terminated"])
    ended = terminated | jnp.asarray(flags["truncated"])
    discount = jnp.where(terminated, 0, others.pop("discount"))
    return Steps(jnp.asarray(rewards, dtype), terminated, ended, ended.at[-1].set(True), discount, others)


def backwards(rates: jax.Array, terms: jax.Array, ended: jax.Array) -> jax.Array:
    """All `y[t] = terms[t] + rates[t] * y[t + 1]` over the first axis; nothing of `y[t + 1]` where `ended[t]`."""
    return linear_scan(jnp.where(ended, 0, rates), terms, jnp.zeros_like(terms[0]), True, 1, ended)


def following(array: jax.Array) -> jax.Array:
    """What stands at the next step, 0 after the last."""
    return jnp.concatenate((array[1:], jnp.zeros_like(array[:1])))


def _check_rate(name: str, argument: str, rate: ArrayLike, shape: tuple[int, ...]) -> None:
    if isinstance(rate, int | float) and not 0 <= rate <= 1:
        raise ValueError(f"{name}: expected {argument} in [0, 1], got {rate!r}.")
    if jnp.shape(rate) not in ((), shape):
        raise ValueError(
            f"{name}: expected {argument} with a shape of () or {shape}, got {jnp.shape(rate)}. Give one number, or "
            "one for each reward."
        )
