"""Reptile: a loss over tasks, whose gradient points away from where steps on each task lead."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._call import recording
from ._automatic import in_automatic_axes
from ._checks import check_count, path_of
from ._estimated import with_gradient
from ._returned import parts
from ._state import check_link
from ._unroll import descend

LossFn = Callable[..., Any]


@recording
def reptile(loss_fn: LossFn, inner: optax.GradientTransformation, inner_steps: int) -> LossFn:
    """The mean loss met on tasks in `inner_steps` of a chain, each on a minibatch of its own.

    Its gradient is said to be the mean over tasks of the parameters less the adapted ones: so with `optim.sgd(eps)`
    outside, a step goes the share `eps` of the way to where the tasks led, which is Reptile; any other chain may stand
    outside as well. Nothing is differentiated twice. The gradient grows with the inner learning rate.

    Source: Nichol, Achiam, Schulman 2018, https://arxiv.org/abs/1803.02999, algorithm 2.

    Args:
      loss_fn: as for `step`, of one minibatch: `loss_fn(params, batch, key) -> loss`, a scalar.
      inner: the chain that adapts, made anew for each task.
      inner_steps: how many steps, at least 1. With one alone the gradient is that of the joint loss, times the rate.
    Returns:
      `(params, tasks, key) -> loss`, every array of `tasks` with axes `[tasks, inner_steps, ...]` in front: the step
      `i` on a task is on its minibatch `i`. The loss is the mean of those before each step. It prints, compares and
      hashes as the call that made it.
    Raises:
      ValueError: if `inner_steps` is out of range; when called, for tasks whose arrays lack these two axes, or differ
        in their number of tasks.
      TypeError: if `inner` is no chain; when called, if the loss is no scalar.

    >>> loss_fn = lambda w, target, key: (w - target) ** 2
    >>> tasks = jnp.array([[1.0, 1.0], [3.0, 3.0]])  # two tasks of two minibatches
    >>> loss, slope = jax.value_and_grad(reptile(loss_fn, optim.sgd(0.25), 2))(jnp.array(0.0), tasks)
    >>> loss.item(), slope.item()
    (3.125, -1.5)
    """
    check_link("reptile", inner)
    check_count("reptile", "inner_steps", inner_steps, at_least=1)

    def on_task(params: Any, task: Any, key: jax.Array | None) -> tuple[jax.Array, Any]:
        def on_minibatch(params: Any, index: jax.Array) -> tuple[jax.Array, None]:
            minibatch = jax.tree.map(lambda leaf: leaf[index], task)
            own = None if key is None else jax.random.fold_in(key, index)
            found = loss_fn(params, minibatch, own)
            return parts("reptile", found, None, has_aux=False, stateful=False)[0], None

        found = descend(on_minibatch, inner, params, inner_steps)
        return jnp.mean(found.losses), jax.tree.map(lambda here, there: jnp.conj(here - there), params, found.params)

    def loss_and_way_back(params: Any, tasks: Any, key: jax.Array | None) -> tuple[jax.Array, Any]:
        keys = None if key is None else jax.random.split(key, _check_tasks(tasks, inner_steps))
        of_each = jax.vmap(on_task, (None, 0, 0))(params, tasks, keys)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), of_each)

    estimated = in_automatic_axes(with_gradient(loss_and_way_back))

    def loss(params: Any, tasks: Any, key: jax.Array | None = None) -> jax.Array:
        _check_tasks(tasks, inner_steps)
        return estimated(params, tasks, key)

    return loss


def _check_tasks(tasks: Any, inner_steps: int) -> int:
    """The number of tasks."""
    shapes = {path_of(path): jnp.shape(leaf)[:2] for path, leaf in jax.tree_util.tree_leaves_with_path(tasks)}
    found = ", ".join(f"{path or 'tasks'}: {shape}" for path, shape in shapes.items()) or "no array"
    if any(len(shape) < 2 or shape[1] != inner_steps for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise ValueError(
            f"reptile: expected arrays of tasks [tasks, {inner_steps}, ...], a minibatch for each inner step, got "
            f"{found}"
        )
    return next(iter(shapes.values()))[0]
