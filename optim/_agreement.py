"""Gradients of several tasks made to agree."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._link import check_word, link
from ._trees import over, wide


class AgreementState(NamedTuple):
    """State of `agreement` with a key: that of the next order of tasks."""

    key: jax.Array


@link
def agreement(
    *, key: jax.Array | int | None = None, reduce: Literal["sum", "mean"] = "sum"
) -> optax.GradientTransformationExtraArgs:
    """Projects the conflicts of tasks out of their gradients, and hands on what is left as one (PCGrad).

    The first link of a chain: incoming updates are gradients of tasks, `[tasks, ...]` for a parameter `[...]`, such as
    `jax.jacrev(losses)(params)` returns, `losses` being a vector. Each task's gradient loses, one other task after
    another, the part that points against that task's. Only the products of the gradients with each other are
    looked at, so that one copy of the parameters' size is made.

    Source: Yu et al. 2020, https://arxiv.org/abs/2001.06782, algorithm 1.

    Args:
      key: of the random order of the other tasks, as in the paper: a JAX random key, or an integer to make one of.
        Without, the order is that in which they stand.
      reduce: whether the tasks' gradients are added up, as in the paper, or their mean is taken.
    Returns:
      A link. Its updates have no axis of tasks.
    Raises:
      ValueError: if `reduce` is neither word; from `update`, if updates have no axis of tasks, or not all the same.

    >>> tx = agreement()
    >>> updates, _ = tx.update(jnp.array([[1.0, 0.0], [-1.0, 1.0]]), tx.init(jnp.zeros(2)))
    >>> updates.tolist()
    [0.5, 1.5]
    """
    check_word("agreement", "reduce", reduce, ("sum", "mean"))

    def init(params: Any) -> Any:
        if key is None:
            return optax.EmptyState()
        return AgreementState(jax.random.key(key) if isinstance(key, int) else jnp.copy(key))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        num_tasks = _num_tasks(updates, params)
        if num_tasks == 0:
            return updates, state
        orders = jnp.broadcast_to(jnp.arange(num_tasks), (num_tasks, num_tasks))
        if key is not None:
            now, after = jax.random.split(state.key)
            orders = jax.vmap(lambda each: jax.random.permutation(each, num_tasks))(jax.random.split(now, num_tasks))
            state = AgreementState(after)
        shares = _shares(_products(updates, num_tasks), orders).sum(0)
        if reduce == "mean":
            shares = shares / num_tasks
        return jax.tree.map(lambda g: jnp.tensordot(shares, wide(g), 1).astype(g.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _shares(products: jax.Array, orders: jax.Array) -> jax.Array:
    """For each task, how much of each task's gradient becomes of its own: `[tasks, tasks]`.

    Args:
      products: of the gradients with each other, `[tasks, tasks]`.
      orders: in which each task meets the others, and itself, `[tasks, tasks]`.
    """

    def of_task(task: jax.Array, order: jax.Array) -> jax.Array:
        def meet(share: jax.Array, other: jax.Array) -> tuple[jax.Array, None]:
            against = jnp.minimum(share @ products[:, other], 0)
            met = share.at[other].add(-over(against, products[other, other]))
            return jnp.where(other == task, share, met), None

        own = jnp.zeros(len(products), products.dtype).at[task].set(1)
        return lax.scan(meet, own, order)[0]

    return jax.vmap(of_task)(jnp.arange(len(products)), orders)


def _products(updates: Any, num_tasks: int) -> jax.Array:
    rows = [wide(leaf).reshape(num_tasks, -1) for leaf in jax.tree.leaves(updates)]
    return sum((row @ row.T for row in rows), start=jnp.zeros((num_tasks, num_tasks)))


def _num_tasks(updates: Any, params: Any) -> int:
    """The length of the axis of tasks; 0 where there are no parameters."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(updates)]
    own = [shape[1:] for shape in shapes] if params is None else [leaf.shape for leaf in jax.tree.leaves(params)]
    lengths = {shape[0] for shape in shapes if shape}
    if not all(shapes) or len(lengths) > 1 or [shape[1:] for shape in shapes] != own:
        raise ValueError(
            f"agreement: expected gradients [tasks, ...] for parameters [...], got shapes {shapes}"
            f"{'' if params is None else f' for {own}'}. Write agreement() first in a chain, and "
            "jax.jacrev(losses)(params) where losses returns one number a task."
        )
    return lengths.pop() if lengths else 0
