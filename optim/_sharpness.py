"""Links that step by the gradient at a point where the loss is worse: flat minima."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._link import at, check_not_negative, link


class SamState(NamedTuple):
    """State of `sam` with a schedule: how many updates it has made, `[]` of int32."""

    step: jax.Array


@link
def sam(rho: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation: hands on the gradient at `params + rho * updates / norm(updates)`.

    The incoming updates, the gradient at `params` unless a link before this one changed it, only say where to
    look. What follows in the chain works on the gradient found there: `chain(sam(0.05), adam(1e-3))`. It costs
    one more gradient a step, and holds no state unless `rho` is a schedule. A zero gradient gives a zero
    perturbation. Loss, metrics and batch-norm state are those of the unperturbed pass.

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, https://arxiv.org/abs/2010.01412, equation 2 and algorithm 1.

    Args:
      rho: radius of the perturbation in the l2 norm over all parameters, at least 0; or a schedule of the step.
    Returns:
      A link whose `update` needs `params` and the keyword `grad_fn: params -> grads`, the gradient on the same
      batch and key.
    Raises:
      ValueError: if `rho` is negative.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> tx = chain(sam(0.05), sgd(0.1))
    >>> loss = lambda params: (params**2).sum()
    >>> params = jnp.array([3.0, 4.0])
    >>> updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, grad_fn=jax.grad(loss))
    >>> [round(step, 3) for step in updates.tolist()]
    [-0.606, -0.808]
    """
    check_not_negative("sam", "rho", rho)

    def init(params: Any) -> Any:
        return SamState(jnp.zeros((), jnp.int32)) if callable(rho) else optax.EmptyState()

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: Callable[[Any], Any] | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        grad_fn = need_oracle("sam", params, grad_fn)
        count = state.step if callable(rho) else None
        grads = grad_fn(_climb(params, updates, at(rho, count)))
        return grads, state if count is None else SamState(jnp.asarray(optax.safe_increment(count)))

    return optax.GradientTransformationExtraArgs(init, update)


def need_oracle(name: str, params: Any, grad_fn: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Refuses to go on without parameters and a gradient function.

    Raises:
      TypeError: with the line to write.
    """
    if grad_fn is None or params is None:
        missing = "grad_fn" if grad_fn is None else "params"
        raise TypeError(
            f"{name}: expected params and grad_fn in update, got no {missing}. A loop of your own passes them as "
            "tx.update(grads, opt_state, params, grad_fn=lambda p: jax.grad(loss_fn)(p, batch)); training.step does."
        )
    return grad_fn


def _climb(params: Any, direction: Any, radius: Any) -> Any:
    """`params` moved by `radius` along a direction; not at all where the direction is zero."""
    square = sum(_square(leaf) for leaf in jax.tree.leaves(direction))
    # The double where keeps the derivative finite at zero, for meta-gradients through this link.
    somewhere = square > 0
    factor = radius * jnp.where(somewhere, jax.lax.rsqrt(jnp.where(somewhere, square, 1.0)), 0.0)
    return jax.tree.map(lambda p, d: (p + factor * d).astype(jnp.result_type(p)), params, direction)


def _square(leaf: jax.Array) -> jax.Array:
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return jnp.sum(jnp.square(jnp.abs(wide)))
