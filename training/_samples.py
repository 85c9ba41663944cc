"""How close samples are to data: modes, distances between distributions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._lapack import after
from ._checks import check_count


class Modes(NamedTuple):
    """Which modes of a mixture samples cover.

    Attributes:
      found: how many modes have enough samples near, `[]`, int32.
      near: the share of samples near to any, `[]`.
      counts: samples near to each, `[modes]`, int32.
    """

    found: jax.Array
    near: jax.Array
    counts: jax.Array


def modes_found(samples: jax.Array, centers: jax.Array, radius: float | jax.Array, *, at_least: int = 1) -> Modes:
    """Counts the modes that samples come near to, and the share of samples that come near to one.

    Source: the protocol of Lin et al. 2018, https://arxiv.org/abs/1712.04086, appendix, has a radius of three standard
    deviations and at least one sample.

    Args:
      samples: `[samples, features]`.
      centers: of the modes, `[modes, features]`. A sample belongs to the closest.
      radius: how near is near.
      at_least: samples that a mode needs.
    Returns:
      `Modes(found, near, counts)`.
    Raises:
      ValueError: if the features differ.

    >>> found = modes_found(jnp.array([[0.0, 0.1], [5.0, 5.0]]), jnp.array([[0.0, 0.0], [9.0, 9.0]]), 0.5)
    >>> found.found.item(), found.near.item(), found.counts.tolist()
    (1, 0.5, [1, 0])
    """
    check_count("modes_found", "at_least", at_least, at_least=1)
    _check_features("modes_found", samples, centers)
    squares = jnp.sum(jnp.square(samples[:, None] - centers), -1)
    near = jnp.min(squares, -1) <= radius**2
    counts = jnp.zeros(len(centers), jnp.int32).at[jnp.argmin(squares, -1)].add(near)
    return Modes(jnp.sum(counts >= at_least), jnp.mean(near), counts)


def sliced_wasserstein(first: jax.Array, second: jax.Array, key: jax.Array, *, num_slices: int = 128) -> jax.Array:
    """The 2-Wasserstein distance of two sets of samples, root of its mean square over random directions.

    Source: Bonneel et al. 2015, https://doi.org/10.1007/s10851-014-0506-3, definition 5.

    Args:
      first: `[samples, features]`.
      second: `[samples, features]`, as many.
      key: for the directions.
      num_slices: how many.
    Returns:
      The distance, `[]`, in the unit of the samples.
    Raises:
      ValueError: if the shapes differ.

    >>> x = jax.random.normal(jax.random.key(0), (100, 1))
    >>> round(sliced_wasserstein(x, x + 2, jax.random.key(1)).item(), 4)
    2.0
    """
    check_count("sliced_wasserstein", "num_slices", num_slices, at_least=1)
    _check_features("sliced_wasserstein", first, second)
    if first.shape != second.shape:
        raise ValueError(
            f"sliced_wasserstein: expected as many samples of as many features, got {first.shape} and {second.shape}"
        )
    along = jax.random.normal(key, (num_slices, first.shape[-1]), first.dtype)
    along = along / jnp.linalg.norm(along, axis=-1, keepdims=True)
    ordered = (jnp.sort(jnp.matmul(x, along.T, precision="highest"), 0) for x in (first, second))
    return jnp.sqrt(jnp.mean(jnp.square(jnp.subtract(*ordered))))


def maximum_mean_discrepancy(
    first: jax.Array, second: jax.Array, *, bandwidths: tuple[float, ...] = (1.0,)
) -> jax.Array:
    """The unbiased estimate of the squared maximum mean discrepancy, with a sum of Gaussian kernels.

    Source: Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html, lemma 6.

    Args:
      first: `[samples, features]`.
      second: `[other samples, features]`.
      bandwidths: standard deviations of the kernels.
    Returns:
      The estimate, `[]`: zero on average for two sets from one distribution, so that it may be negative.
    Raises:
      ValueError: if the features differ, or a set has fewer than two samples.

    >>> x = jax.random.normal(jax.random.key(0), (50, 2))
    >>> maximum_mean_discrepancy(x, x + 10).item() > 0.5
    True
    """
    _check_features("maximum_mean_discrepancy", first, second)
    _check_two("maximum_mean_discrepancy", first, second)

    def kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        squares = jnp.sum(jnp.square(x[:, None] - y), -1)
        return sum((jnp.exp(-squares / (2 * width**2)) for width in bandwidths), jnp.zeros_like(squares))

    def among(x: jax.Array) -> jax.Array:
        return (jnp.sum(kernel(x, x)) - len(x) * len(bandwidths)) / (len(x) * (len(x) - 1))

    return among(first) + among(second) - 2 * jnp.mean(kernel(first, second))


def frechet_distance(first: jax.Array, second: jax.Array) -> jax.Array:
    """The squared Fréchet distance of the Gaussians that have the means and covariances of two sets of features.

    Of features of an Inception network it is the FID; any network's features do, and are to be named with the figure.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.

    Args:
      first: `[samples, features]`.
      second: `[other samples, features]`.
    Returns:
      The distance, `[]`.
    Raises:
      ValueError: if the features differ, or a set has fewer than two samples.

    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> round(frechet_distance(x, x + 2).item(), 2)
    12.0
    """
    _check_features("frechet_distance", first, second)
    _check_two("frechet_distance", first, second)
    first, second = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (first, second))
    mean1, root1 = _moments(first)
    mean2, root2 = _moments(after(second, root1))
    # With covariances R'R, the trace of the root of their product is the sum of the singular values of R1 R2'. That
    # takes no roots of eigenvalues that rounding leaves near zero.
    cross = jnp.linalg.svd(jnp.matmul(root1, root2.T, precision="highest"), compute_uv=False)
    return sum(jnp.sum(jnp.square(part)) for part in (mean1 - mean2, root1, root2)) - 2 * jnp.sum(cross)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean, and a root `R` of the covariance `R'R`."""
    mean = x.mean(0)
    return mean, jnp.linalg.qr((x - mean) / (len(x) - 1) ** 0.5, mode="r")


def _check_two(name: str, first: jax.Array, second: jax.Array) -> None:
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{name}: expected two samples or more of each, got {len(first)} and {len(second)}")


def _check_features(name: str, first: jax.Array, second: jax.Array) -> None:
    if jnp.ndim(first) != 2 or jnp.ndim(second) != 2 or first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"{name}: expected [samples, features] of as many features, got {jnp.shape(first)} and {jnp.shape(second)}"
        )
