"""Adapting to tasks: what `maml`, `adapt` and `evaluate_tasks` have in common."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._adapted import part
from ._checks import check_count, path_of
from ._returned import LossFn
from ._state import check_link
from ._unroll import Descent, descend

Inner = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


class Run(NamedTuple):
    """Adapts to a task.

    Attributes:
      learns: whether the chain has arrays of its own to learn.
      run: `(params, state, support, key, look) -> (adapted parameters, Descent)`.
    """

    learns: bool
    run: Callable[..., tuple[Any, Descent]]

    def __call__(self, *args: Any) -> tuple[Any, Descent]:
        return self.run(*args)


def adapting(
    name: str,
    task_loss: LossFn,
    inner: Inner,
    inner_steps: int,
    *,
    adapted: str | Sequence[str],
    first_order: bool | float | jax.Array = False,
    truncate: int | None = None,
    checkpoint: bool = False,
) -> Run:
    """Checks the arguments of `maml`, and adapts as they say; `task_loss` is in the whole form."""
    learns = callable(inner) and not isinstance(inner, optax.GradientTransformation)
    if not learns:
        check_link(name, inner)
    check_count(name, "inner_steps", inner_steps, at_least=0)
    if truncate is not None:
        check_count(name, "truncate", truncate, at_least=1)
    if first_order is None or (isinstance(first_order, int | float) and not 0 <= first_order <= 1):
        raise ValueError(f"{name}: expected first_order to be a bool or a share from 0 to 1, got {first_order!r}")

    def run(params: Any, state: Any, support: Any, key: Any, look: Any = lambda params, index: None) -> Any:
        own, whole = part(name, start_of(name, learns, params), adapted)
        tx = inner if isinstance(inner, optax.GradientTransformation) else inner(params["inner"])
        check_link(name, tx)

        def on_support(own: Any, index: jax.Array) -> Any:
            step_key = None if key is None else jax.random.fold_in(key, index)
            return task_loss(whole(own), at_step(state, index), support, step_key)

        found = descend(
            on_support, tx, own, inner_steps, first_order=first_order, truncate=truncate, checkpoint=checkpoint,
            look=lambda own, index: look(whole(own), index),
        )  # fmt: skip
        return whole(found.params), found

    return Run(learns, run)


def start_of(name: str, learns: bool, params: Any) -> Any:
    """The parameters to be adapted, among all that are learnt.

    Raises:
      ValueError: if they are not `{"params", "inner"}` where the chain learns.
    """
    if not learns:
        return params
    if not isinstance(params, dict) or set(params) != {"params", "inner"}:
        found = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(
            f"{name}: expected {{'params': params, 'inner': what inner is made from}}, since inner is a function, "
            f"got {found}"
        )
    return params["params"]


def at_step(state: Any, index: Any) -> Any:
    """The state of parameters after so many inner steps."""
    return jax.tree.map(lambda leaf: leaf[index], state)


def over_tasks(one: Callable[[Any], Any], num_tasks: int, tasks_at_once: int | None) -> Callable[[Any], Any]:
    """A function of one task as one of all, some at once."""
    if tasks_at_once is None or tasks_at_once >= num_tasks:
        return jax.vmap(one)
    return lambda given: lax.map(one, given, batch_size=tasks_at_once)


def check_tasks(name: str, tasks: Any) -> int:
    """The number of tasks.

    Raises:
      ValueError: if they are not `{"support": batch, "query": batch}` of one structure and one number of tasks.
    """
    if not isinstance(tasks, dict) or set(tasks) != {"support", "query"}:
        found = sorted(tasks) if isinstance(tasks, dict) else type(tasks).__name__
        raise ValueError(f"{name}: expected tasks to be {{'support': batch, 'query': batch}}, got {found}")
    support, query = (jax.tree.structure(tasks[half]) for half in ("support", "query"))
    if support != query:
        raise ValueError(f"{name}: expected support and query of one structure, got {support} and {query}")
    sizes = {path_of(path): jnp.shape(leaf)[:1] for path, leaf in jax.tree_util.tree_leaves_with_path(tasks)}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        found = ", ".join(f"{path}: {size[0] if size else 'none'}" for path, size in sizes.items())
        raise ValueError(f"{name}: expected an axis of as many tasks in front of every array, got {found}")
    num_tasks = next(iter(sizes.values()))[0]
    if num_tasks == 0:
        raise ValueError(f"{name}: expected one task or more, got none")
    return num_tasks


def check_state(name: str, state: Any, inner_steps: int) -> None:
    """Refuses a state that has not one entry for each number of inner steps.

    Raises:
      ValueError: with the path, and what makes one.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.shape(leaf)[:1] != (inner_steps + 1,):
            raise ValueError(
                f"{name}: expected state/{path_of(path)} with an axis of {inner_steps + 1} in front, one for each "
                f"number of inner steps, got {jnp.shape(leaf)}. Make it with training.inner_states(state, "
                f"{inner_steps})."
            )
