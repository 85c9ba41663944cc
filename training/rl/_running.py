"""Mean and variance of what has been seen, as a value."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class RunningStatistics(NamedTuple):
    """Of all that was seen: how many, their mean and variance.

    Attributes:
      num_seen: `[]`, of floats; small where it stands for what is expected before anything is seen.
      mean: in the form of what is seen, without batch axes.
      variance: likewise.
    """

    num_seen: jax.Array
    mean: Any
    variance: Any


def given(name: str, statistics: RunningStatistics | None, begun: RunningStatistics) -> RunningStatistics:
    """Where to begin: with what was given, as arrays of the dtypes of `begun`, or with that."""
    if statistics is None:
        return begun
    wanted, given = (jax.tree.map(jnp.shape, tuple(each)) for each in (begun, statistics))
    if wanted != given:
        raise ValueError(
            f"{name}: expected statistics of shapes {wanted}, got {given}. "
            "Where environments were vectorized around it, each has its own: take those of one."
        )
    return jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), statistics, begun)


def begun(example: Any, num_seen: float) -> RunningStatistics:
    """Mean 0 and variance 1 of things such as this, as if so many had been seen."""
    dtypes = jax.tree.map(lambda leaf: jnp.promote_types(jnp.result_type(leaf), jnp.float32), example)
    mean = jax.tree.map(lambda leaf, dtype: jnp.zeros(jnp.shape(leaf), dtype), example, dtypes)
    return RunningStatistics(jnp.full((), num_seen), mean, jax.tree.map(jnp.ones_like, mean))


def merged(statistics: RunningStatistics, values: Any, weights: jax.Array) -> RunningStatistics:
    """The statistics with those of the values where `weights`, `[*batch]` of bool, is true."""
    num = jnp.sum(weights).astype(statistics.num_seen.dtype)
    total = statistics.num_seen + num
    share, kept = (part / jnp.maximum(total, 1) for part in (num, statistics.num_seen))
    axes = tuple(range(weights.ndim))

    def merge(mean: jax.Array, variance: jax.Array, leaf: Any) -> tuple[jax.Array, jax.Array]:
        mask = weights.reshape(weights.shape + (1,) * mean.ndim)
        offset = jnp.where(mask, jnp.asarray(leaf, mean.dtype) - mean, 0)  # small where the mean is large
        moved = jnp.sum(offset, axes) / jnp.maximum(num, 1)
        spread = jnp.sum(jnp.where(mask, (offset - moved) ** 2, 0), axes) / jnp.maximum(num, 1)
        # Rounding must not leave a variance below 0 of what has been constant so far.
        varied = jnp.maximum(variance + share * (spread - variance + moved**2 * kept), 0)
        return (mean + moved * share).astype(mean.dtype), varied.astype(mean.dtype)

    pairs = jax.tree.map(merge, statistics.mean, statistics.variance, values)
    mean, variance = jax.tree.transpose(jax.tree.structure(statistics.mean), jax.tree.structure((0, 0)), pairs)
    return RunningStatistics(total, mean, variance)


def standardized(obs: Any, statistics: RunningStatistics, eps: float) -> Any:
    """What is seen, minus the mean and over the standard deviation."""

    def one(leaf: Any, mean: jax.Array, variance: jax.Array) -> jax.Array:
        return (leaf - mean) * jax.lax.rsqrt(variance + eps)

    return jax.tree.map(one, obs, statistics.mean, statistics.variance)
