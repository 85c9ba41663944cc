"""Implicit MAML: adaptation to the end, near where it began, and a gradient that need not know the way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._call import recording
from ._adapting import check_tasks
from ._automatic import in_automatic_axes
from ._checks import check_count
from ._implicit import conjugate_gradient, implicit
from ._minimize import Backward, minimize
from ._returned import parts
from ._state import check_link

LossFn = Callable[..., Any]


@recording
def proximal(loss_fn: LossFn, regularization: float | jax.Array) -> LossFn:
    """A loss that rises with the squared distance from a centre: `loss + regularization / 2 * |params - centre|^2`.

    Source: Rajeswaran et al. 2019, https://arxiv.org/abs/1909.04630, equation 3.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar.
      regularization: how fast.
    Returns:
      `(params, centre, batch, key) -> loss`, as `minimize` takes it, `centre` being a tree like `params`. It prints,
      compares and hashes as the call that made it.
    Raises:
      ValueError: if `regularization` is negative.

    >>> loss_fn = lambda w, target, key: jnp.sum((w - target) ** 2)
    >>> proximal(loss_fn, 3.0)(jnp.array([1.0]), jnp.array([3.0]), jnp.array([2.0]), None).item()
    7.0
    """
    _check_not_negative("proximal", regularization)

    def loss(params: Any, centre: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        found, _ = parts("proximal", loss_fn(params, batch, key), None, has_aux=False, stateful=False)
        distance = optax.tree.norm(jax.tree.map(jnp.subtract, params, centre), squared=True)
        return found + (0.5 * regularization * distance).astype(found.dtype)

    return loss


@recording
def imaml(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    inner_steps: int,
    *,
    regularization: float | jax.Array,
    backward: Backward = implicit(conjugate_gradient(5)),
) -> LossFn:
    """The mean loss on the queries of tasks, where a regularised loss on the support of each is least.

    The minimum is that of `proximal(loss_fn, regularization)` around the parameters, looked for by `inner_steps` of a
    chain from there. The gradient depends on where they led alone: it is `(1 + H / regularization)^-1 g`, of the
    query's gradient `g` and the support's second derivatives `H` there (equation 6), and neither memory nor the way
    back grows with the steps. The chain should come close to the minimum.

    To adapt to one task: `minimize(proximal(loss_fn, regularization), inner, inner_steps)(params, params, support)`.

    Source: Rajeswaran et al. 2019, https://arxiv.org/abs/1909.04630, equations 3, 6 and 7.

    Args:
      loss_fn: as for `step`, of one task's batch: `loss_fn(params, batch, key) -> loss`, a scalar.
      inner: the chain that adapts, made anew for each task.
      inner_steps: how many steps, at least 0.
      regularization: how strongly adapted parameters are held to where they began; above the largest negative curvature
        of the loss, so that there is one minimum.
      backward: as for `minimize`. Five steps of conjugate gradients unless given; with `unrolled()` this is `maml` of
        the regularised loss.
    Returns:
      `(params, tasks, key) -> loss`, `tasks` as for `maml`. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: if `regularization` or `inner_steps` is negative; when called, for tasks that are not as for `maml`.
      TypeError: if `inner` is no chain; when called, if the loss is no scalar.

    >>> loss_fn = lambda w, target, key: 0.5 * jnp.sum((w - target) ** 2)
    >>> tasks = {"support": jnp.array([[4.0]]), "query": jnp.array([[6.0]])}
    >>> meta_loss = imaml(loss_fn, optim.sgd(0.25), 50, regularization=1.0)
    >>> loss, slope = jax.value_and_grad(meta_loss)(jnp.array([0.0]), tasks)
    >>> round(loss.item(), 4), slope.round(4).tolist()
    (8.0, [-2.0])
    """
    check_link("imaml", inner)
    check_count("imaml", "inner_steps", inner_steps, at_least=0)
    _check_not_negative("imaml", regularization)

    def one_loss(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
        return parts("imaml", loss_fn(params, batch, key), None, has_aux=False, stateful=False)[0]

    solve = minimize(proximal(one_loss, regularization), inner, inner_steps, backward=backward)

    def on_task(params: Any, task: Any, key: jax.Array | None) -> jax.Array:
        adapted = solve(params, params, task["support"], key)
        own = None if key is None else jax.random.fold_in(key, inner_steps)
        return one_loss(adapted, task["query"], own)

    @in_automatic_axes
    def loss(params: Any, tasks: Any, key: jax.Array | None = None) -> jax.Array:
        num_tasks = check_tasks("imaml", tasks)
        keys = None if key is None else jax.random.split(key, num_tasks)
        return jnp.mean(jax.vmap(on_task, (None, 0, 0))(params, tasks, keys))

    return loss


def _check_not_negative(name: str, regularization: Any) -> None:
    if isinstance(regularization, int | float) and regularization < 0:
        raise ValueError(f"{name}: expected regularization to be at least 0, got {regularization}")
