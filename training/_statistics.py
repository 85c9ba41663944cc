"""What the gradients of single examples say about a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._call import recording
from ._curvature import hvp
from ._examples import backward_of, check_chunk, check_wide, in_chunks, rows_of, summed

LossFn = Callable[..., Any]
Solver = Callable[[Callable[[Any], Any], Any], Any]


class NoiseScale(NamedTuple):
    """What `gradient_noise_scale` returns, all of them scalars.

    Attributes:
      scale: `variance / squared_norm`, about the size of the batch from which on larger ones help less and less.
      squared_norm: estimate of the squared norm of the gradient of the whole distribution; it may be negative.
      variance: estimate of the trace of the covariance of one example's gradient.
    """

    scale: jax.Array
    squared_norm: jax.Array
    variance: jax.Array


@recording
def gradient_noise_scale(loss_fn: LossFn, *, examples_at_once: int | None = None) -> Callable[..., NoiseScale]:
    """The simple noise scale: how large a batch is worth its price.

    The two estimates are unbiased and their ratio is not: take means of both over batches, and then the ratio.

    Source: McCandlish, Kaplan, Amodei, OpenAI Dota Team 2018, https://arxiv.org/abs/1812.06162, equation 2.9 and
    appendix A.1, with batches of one example and of all.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a mean over examples, as for `per_example`.
      examples_at_once: as for `per_example_norms`.
    Returns:
      `(params, batch, key=None) -> NoiseScale(scale, squared_norm, variance)`.
    Raises:
      ValueError: for a count out of range; when called, for fewer than two examples, and as for `per_example`.
      TypeError: when called, as for `per_example`, and for parameters narrower than float32.

    >>> loss_fn = lambda mean, batch, key: jnp.mean((mean - batch) ** 2) / 2
    >>> data = 2.0 + jax.random.normal(jax.random.key(0), (10000,))
    >>> found = gradient_noise_scale(loss_fn)(jnp.array(0.0), data)
    >>> [round(value.item(), 1) for value in found]
    [0.3, 4.0, 1.0]
    """
    check_chunk("gradient_noise_scale", examples_at_once)

    def noise_scale(params: Any, batch: Any, key: jax.Array | None = None) -> NoiseScale:
        check_wide("gradient_noise_scale", params)
        rows = rows_of("gradient_noise_scale", batch, key)
        num = jax.tree.leaves(rows[0])[0].shape[0]
        if num < 2:
            raise ValueError(f"gradient_noise_scale: expected two examples or more, got {num}")

        def of_chunk(*rows: Any) -> Any:
            found, _ = backward_of("gradient_noise_scale", loss_fn, params, rows)
            squares, _, gradients = found.all_squares()
            ones = jnp.ones(found.losses.shape, jnp.promote_types(found.losses.dtype, jnp.float32))
            return (summed(found, gradients, dict.fromkeys(range(len(squares)), ones)), sum(map(jnp.sum, squares))), ()

        (sums, squares), _ = in_chunks(of_chunk, rows, examples_at_once)
        of_one, of_all = squares / num, sum(jnp.sum(jnp.square(jnp.abs(total / num))) for total in sums)
        squared_norm = (num * of_all - of_one) / (num - 1)
        variance = (of_one - of_all) / (1 - 1 / num)
        return NoiseScale(variance / squared_norm, squared_norm, variance)

    return noise_scale


@recording
def influence(loss_fn: LossFn, solver: Solver) -> Callable[..., jax.Array]:
    """By how much the loss of a query would grow if an example had not been learnt from: to first order.

    Above 0 for examples that help the query. `params` are to be a minimum of the loss on all examples. No gradient of a
    single example is computed: its product with one vector is a derivative in that direction.

    Source: Koh, Liang 2017, https://arxiv.org/abs/1703.04730, equation 2, for an example left out.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a mean over examples, as for `per_example`.
      solver: `(matvec, b) -> x`, of systems with the Hessian, such as `conjugate_gradient(100, damping=1e-3)`.
    Returns:
      `(params, batch, query, key=None) -> scores [examples]`; `query` is a batch of any size.
    Raises:
      ValueError: when called, for a batch whose arrays differ in their number of examples.
      TypeError: when called, if the loss is no scalar.

    >>> loss_fn = lambda mean, batch, key: jnp.mean((mean - batch) ** 2) / 2
    >>> scores = influence(loss_fn, conjugate_gradient(1))
    >>> scores(jnp.array(2.0), jnp.array([0.0, 1.0, 5.0]), jnp.array([3.5])).tolist()
    [-1.0, -0.5, 1.5]
    """

    def scores(params: Any, batch: Any, query: Any, key: jax.Array | None = None) -> jax.Array:
        batch, keys = rows_of("influence", batch, key)
        slope = jax.grad(loss_fn)(params, query, key)
        toward = solver(lambda vector: hvp(loss_fn)(params, vector, batch, key), slope)

        def losses(params: Any) -> jax.Array:
            def of_one(row: Any, key: Any) -> jax.Array:
                return loss_fn(params, jax.tree.map(lambda leaf: leaf[None], row), key)

            return jax.vmap(of_one, in_axes=(0, None if keys is None else 0))(batch, keys)

        _, slopes = jax.jvp(losses, (params,), (toward,))
        return slopes / slopes.shape[0]

    return scores
