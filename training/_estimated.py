"""Losses whose derivative is given: estimates of a gradient go wherever a loss goes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._call import recording
from ._checks import path_of

ValueAndGrad = Callable[[Any, Any, Any], tuple[Any, Any]]


@recording
def with_gradient(value_and_grad: ValueAndGrad, *, has_aux: bool = False) -> Callable[..., Any]:
    """A loss whose gradient is what a function says that it is.

    So an estimate of a gradient, a sum of clipped ones, or a direction that is no gradient at all, goes into `step`,
    into `fit` and under links as any loss does. A second derivative is that of the estimate; JAX refuses forward mode.

    Args:
      value_and_grad: `value_and_grad(params, batch, key) -> (loss, grads)`; with `has_aux`, `((loss, metrics), grads)`.
        `grads` has the structure and shapes of `params`, and is brought to their dtypes. Of complex parameters it is
        what `jax.grad` would return, the conjugate of the way up.
      has_aux: whether it returns metrics beside the loss.
    Returns:
      `(params, batch, key) -> loss`, or `(loss, metrics)`, differentiable in `params` alone: `batch` and `key` count as
      constants.
    Raises:
      ValueError: when called, if `grads` has another structure, or other shapes, than `params`.

    >>> def sign_of_slope(params, batch, key):
    ...     loss, grads = jax.value_and_grad(lambda w: jnp.sum((w - batch) ** 2))(params)
    ...     return loss, jnp.sign(grads)
    >>> jax.grad(with_gradient(sign_of_slope))(jnp.array([3.0, -1.0]), 1.0).tolist()
    [1.0, -1.0]
    """

    def loss(params: Any, batch: Any = None, key: jax.Array | None = None) -> Any:
        # Tracers that `value_and_grad` closes over become arguments, so that it may be made under vmap and jit.
        def both(params: Any, given: Any) -> Any:
            found, grads = value_and_grad(params, *given)
            _check(params, grads)
            return found, jax.tree.map(lambda grad, leaf: jnp.asarray(grad, jnp.result_type(leaf)), grads, params)

        return _apply(both, has_aux, params, (batch, key))

    return loss


def _apply(both: Callable[..., Any], has_aux: bool, params: Any, given: Any) -> Any:
    closed, consts = jax.closure_convert(both, params, given)

    @jax.custom_vjp
    def value(params: Any, given: Any, consts: Any) -> Any:
        return closed(params, given, *consts)[0]

    def forward(params: Any, given: Any, consts: Any) -> Any:
        return closed(params, given, *consts)

    # None where there is no tangent: zeros would have to be of the sharding that the argument has.
    def backward(grads: Any, cotangent: Any) -> Any:
        slope = cotangent[0] if has_aux else cotangent
        return jax.tree.map(lambda grad: (slope * grad).astype(grad.dtype), grads), None, None

    value.defvjp(forward, backward)
    return value(params, given, consts)


def _check(params: Any, grads: Any) -> None:
    expected, found = (
        {path_of(path): jnp.shape(leaf) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (params, grads))
    )
    if jax.tree.structure(params) != jax.tree.structure(grads) or expected != found:
        raise ValueError(f"with_gradient: expected grads as params are, {expected}, got {found}")
