"""Eigenvalues, spectral density, diagonal and trace of a symmetric matrix that is known by its products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from ._checks import check_count
from ._jacobian import size_of

Vector = Any
MatVec = Callable[[Vector], Vector]


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of a symmetric matrix.

    Attributes:
      values: `[num]`, from the largest down.
      vectors: a tree like the vectors, each array `[num, ...]`; orthonormal.
      residuals: norms of `A @ v - value * v`, `[num]`: some eigenvalue is no further than that.
    """

    values: jax.Array
    vectors: Vector
    residuals: jax.Array


class Spectrum(NamedTuple):
    """A spectral density as weighted points.

    Attributes:
      nodes: eigenvalues, `[draws, steps]`.
      weights: of each, `[draws, steps]`; those of a draw add up to 1.
    """

    nodes: jax.Array
    weights: jax.Array

    def moment(self, order: int) -> jax.Array:
        """Mean of the eigenvalues to the power `order`, `[]`: the trace of that power over the size."""
        return jnp.mean(jnp.sum(self.weights * self.nodes**order, -1))

    def density(self, at: jax.Array, width: float) -> jax.Array:
        """The density `[points]` at points `[points]`, each node smeared to a normal of standard deviation `width`."""
        bells = jnp.exp(-0.5 * ((at[:, None, None] - self.nodes) / width) ** 2) / (width * jnp.sqrt(2 * jnp.pi))
        return jnp.mean(jnp.sum(self.weights * bells, -1), -1)


def top_eigenvalues(matvec: MatVec, like: Vector, key: jax.Array, *, num: int = 1, num_steps: int = 40) -> Eigenpairs:
    """The largest eigenvalues of a symmetric matrix, by Lanczos with full re-orthogonalisation.

    The lowest are the negatives of the largest of `-A`.

    Source: Golub, Van Loan 2013, Matrix Computations, sections 10.1 and 10.3.

    Args:
      matvec: `vector -> A @ vector`; `lambda v: hvp(loss_fn)(params, v, batch, key)`, say.
      like: a tree of the structure, shapes and dtypes of the vectors, such as `params`.
      key: of the vector to start from.
      num: how many.
      num_steps: products to take; as many as there are numbers in `like` if that is fewer.
    Returns:
      An `Eigenpairs(values, vectors, residuals)`.
    Raises:
      ValueError: unless `1 <= num <= num_steps` and there are as many numbers.

    >>> matvec = lambda v: jnp.array([1.0, 5.0, 3.0]) * v
    >>> top_eigenvalues(matvec, jnp.zeros(3), jax.random.key(0), num=2).values.round(4).tolist()
    [5.0, 3.0]
    """
    steps = min(num_steps, size_of(like))
    if not 1 <= num <= steps:
        raise ValueError(
            f"top_eigenvalues: expected num of 1 to {steps}, the lesser of num_steps and the size of like, got {num}."
        )
    alphas, betas, basis = lanczos(matvec, like, key, steps)
    values, vectors = jnp.linalg.eigh(_tridiagonal(alphas, betas[:-1]))
    values, vectors = values[::-1][:num], vectors[:, ::-1][:, :num]
    unravel = ravel_pytree(like)[1]
    return Eigenpairs(values, jax.vmap(unravel)(vectors.T @ basis), jnp.abs(betas[-1] * vectors[-1]))


def spectral_density(
    matvec: MatVec, like: Vector, key: jax.Array, *, num_steps: int = 40, num_draws: int = 4
) -> Spectrum:
    """How the eigenvalues of a symmetric matrix are spread, by Lanczos and Gauss quadrature.

    A draw's moments up to the order `2 * num_steps - 1` are those of the matrix as its random vector sees them, whose
    mean over vectors is exact.

    Source: Ghorbani, Krishnan, Xiao 2019, https://arxiv.org/abs/1901.10159, algorithm 1 and section 2; normal vectors,
    scaled to length 1.

    Args:
      matvec: `vector -> A @ vector`.
      like: a tree of the structure, shapes and dtypes of the vectors, such as `params`.
      key: of the random vectors.
      num_steps: products a draw; as many as there are numbers in `like` if that is fewer.
      num_draws: random vectors, one after another.
    Returns:
      A `Spectrum(nodes, weights)`, whose `density(at, width)` is the picture and whose `moment(order)` the mean powers.
    Raises:
      ValueError: if a count is below 1.

    >>> spectrum = spectral_density(lambda v: 2 * v, jnp.zeros(5), jax.random.key(0), num_steps=1)
    >>> spectrum.nodes.round(4).ravel().tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    check_count("spectral_density", "num_steps", num_steps, at_least=1)
    check_count("spectral_density", "num_draws", num_draws, at_least=1)

    def draw(key: jax.Array) -> Spectrum:
        alphas, betas, _ = lanczos(matvec, like, key, min(num_steps, size_of(like)))
        nodes, vectors = jnp.linalg.eigh(_tridiagonal(alphas, betas[:-1]))
        return Spectrum(nodes, vectors[0] ** 2)

    return lax.map(draw, jax.random.split(key, num_draws))


def diagonal(matvec: MatVec, like: Vector) -> Vector:
    """The diagonal of a matrix, exactly: a product for each number of `like`, one after another.

    Args:
      matvec: `vector -> A @ vector`.
      like: a tree of the structure, shapes and dtypes of the vectors, such as `params`.
    Returns:
      A tree like `like`.

    >>> matrix = jnp.array([[2.0, 1.0], [1.0, 5.0]])
    >>> diagonal(lambda v: matrix @ v, jnp.zeros(2)).tolist()
    [2.0, 5.0]
    """
    flat, unravel = ravel_pytree(like)

    def entry(index: jax.Array) -> jax.Array:
        return ravel_pytree(matvec(unravel(jax.nn.one_hot(index, flat.size, dtype=flat.dtype))))[0][index]

    return unravel(lax.map(entry, jnp.arange(flat.size)))


def diagonal_estimate(matvec: MatVec, like: Vector, key: jax.Array, *, num_probes: int = 32) -> Vector:
    """The diagonal of a matrix, by random signs: the mean of `z * (A @ z)`. Exact where `A` is diagonal.

    The variance of an entry is the sum of squares of the rest of its row, over `num_probes`, if `A` is symmetric.

    Source: Bekas, Kokiopoulou, Saad 2007, https://doi.org/10.1016/j.apnum.2007.01.003, equation 1.

    Args:
      matvec: `vector -> A @ vector`.
      like: a tree of the structure, shapes and dtypes of the vectors, such as `params`.
      key: of the signs.
      num_probes: products to take.
    Returns:
      A tree like `like`.
    Raises:
      ValueError: if `num_probes` is below 1.

    >>> matvec = lambda v: jnp.array([1.0, 5.0, 3.0]) * v
    >>> diagonal_estimate(matvec, jnp.zeros(3), jax.random.key(0), num_probes=1).tolist()
    [1.0, 5.0, 3.0]
    """
    check_count("diagonal_estimate", "num_probes", num_probes, at_least=1)

    def probe(sums: Vector, key: jax.Array) -> tuple[Vector, None]:
        signs = _signs(key, like)
        return jax.tree.map(lambda total, z, az: total + z * az, sums, signs, matvec(signs)), None

    zeros = jax.tree.map(jnp.zeros_like, like)
    sums, _ = lax.scan(probe, zeros, jax.random.split(key, num_probes))
    return jax.tree.map(lambda total: total / num_probes, sums)


def trace_estimate(matvec: MatVec, like: Vector, key: jax.Array, *, num_probes: int = 32) -> jax.Array:
    """The trace of a matrix, by random signs: the mean of `z @ A @ z`.

    Source: Hutchinson 1990, https://doi.org/10.1080/03610919008812866.

    Args:
      matvec: `vector -> A @ vector`.
      like: a tree of the structure, shapes and dtypes of the vectors, such as `params`.
      key: of the signs.
      num_probes: products to take.
    Returns:
      `[]`.
    Raises:
      ValueError: if `num_probes` is below 1.

    >>> matvec = lambda v: jnp.array([1.0, 5.0, 3.0]) * v
    >>> trace_estimate(matvec, jnp.zeros(3), jax.random.key(0), num_probes=1).item()
    9.0
    """
    check_count("trace_estimate", "num_probes", num_probes, at_least=1)
    return jnp.sum(ravel_pytree(diagonal_estimate(matvec, like, key, num_probes=num_probes))[0])


def lanczos(matvec: MatVec, like: Vector, key: jax.Array, num_steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A tridiagonal matrix with the extreme eigenvalues of `A`, and the orthonormal basis in which `A` is that.

    Where the products span a space that `A` does not leave, the next vector is a new random one.

    Returns:
      The diagonal `[steps]`, the off-diagonal with the last remainder `[steps]`, the basis `[steps, numbers]`.
    """
    flat, unravel = ravel_pytree(like)
    tiny = 100 * jnp.finfo(flat.dtype).eps

    def fresh(index: Any, basis: jax.Array) -> jax.Array:
        return _unit(_without(jax.random.normal(jax.random.fold_in(key, index), flat.shape, flat.dtype), basis))

    def one(carry: tuple, index: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        basis, vector, scale = carry
        basis = basis.at[index].set(vector)
        product = ravel_pytree(matvec(unravel(vector)))[0]
        alpha = vector @ product
        rest = _without(product, basis)
        beta = jnp.linalg.norm(rest)
        scale = jnp.maximum(scale, jnp.abs(alpha) + beta)
        ended = beta <= tiny * scale
        vector = lax.cond(ended, lambda: fresh(index + 1, basis), lambda: rest / jnp.where(ended, 1, beta))
        return (basis, vector, scale), (alpha, jnp.where(ended, 0, beta))

    basis = jnp.zeros((num_steps, flat.size), flat.dtype)
    begin = (basis, fresh(0, basis), jnp.zeros((), flat.dtype))
    (basis, _, _), (alphas, betas) = lax.scan(one, begin, jnp.arange(num_steps))
    return alphas, betas, basis


def _without(vector: jax.Array, basis: jax.Array) -> jax.Array:
    """The part of a vector that is orthogonal to a basis: twice is enough (Parlett 1998, section 6.9)."""
    for _ in range(2):
        shares = jnp.matmul(basis, vector, precision="highest")
        vector = vector - jnp.matmul(shares, basis, precision="highest")
    return vector


def _unit(vector: jax.Array) -> jax.Array:
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm > 0, norm, 1)


def _tridiagonal(diagonal: jax.Array, beside: jax.Array) -> jax.Array:
    return jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)


def _signs(key: jax.Array, like: Vector) -> Vector:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    signs = [
        jax.random.rademacher(k, jnp.shape(leaf), jnp.result_type(leaf)) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, signs)
