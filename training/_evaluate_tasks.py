"""How well parameters adapt, over many tasks and after each inner step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._call import recording
from ._adapting import Inner, adapting, at_step, check_state, check_tasks, over_tasks, start_of
from ._automatic import in_automatic_axes
from ._checks import check_count
from ._returned import LossFn, whole_form


class TaskScores(NamedTuple):
    """Scores on the queries of tasks: `loss`, and what the loss returned beside it, by name.

    Attributes:
      mean: over all tasks, those that diverged too, `[inner_steps + 1]`: before any step, after the first, ...
      interval: half the width of the mean's 95 % interval, 1.96 standard deviations of the tasks over the root of
        their number, `[inner_steps + 1]`.
      median: over all tasks, a score that is not a number counting as infinite, `[inner_steps + 1]`.
      diverged: how many tasks have a loss that is not finite, or far above the mean size of the loss before any step,
        `[inner_steps + 1]`.
      values: of each task, `[tasks, inner_steps + 1]`.
    """

    mean: dict[str, jax.Array]
    interval: dict[str, jax.Array]
    median: dict[str, jax.Array]
    diverged: jax.Array
    values: dict[str, jax.Array]


@recording
def evaluate_tasks(
    loss_fn: LossFn,
    inner: Inner,
    inner_steps: int,
    *,
    adapted: str | Sequence[str] = "**",
    diverged_above: float = 100.0,
    tasks_at_once: int | None = None,
    has_aux: bool = False,
    stateful: bool = False,
) -> Callable[..., TaskScores]:
    """Adapts parameters to tasks, as `adapt` does, and scores the query of each task after every inner step.

    The same parameters, tasks and key give the same scores. With 600 tasks and more, as papers have it, the interval is
    a few percent of the mean. After more steps than were trained for, single tasks may diverge and carry the mean with
    them: look at the median and at `diverged` as well.

    Args:
      loss_fn: as for `maml`. Any metric of the query is had with `has_aux`, such as the accuracy.
      inner: as for `maml`.
      inner_steps: how many steps, at least 0; it may be another number than the parameters were trained for.
      adapted: as for `maml`.
      diverged_above: a loss above so many times the mean size of the loss before any step counts as diverged.
      tasks_at_once: as for `maml`.
      has_aux: as for `maml`.
      stateful: as for `maml`.
    Returns:
      `(params, tasks, key=None) -> TaskScores`, of tasks as `maml` takes them; `(params, state, tasks, key=None)` with
      `stateful`. It is pure, and prints, compares and hashes as the call that made it.
    Raises:
      ValueError: for numbers out of range; when called, for tasks that are none, and for a pattern that matches no
        path.
      TypeError: if `inner` is no chain; when called, if the loss is no scalar.

    >>> loss_fn = lambda w, x, key: jnp.mean((w - x) ** 2)
    >>> target = jnp.array([[1.0], [2.0], [3.0]])
    >>> scores = evaluate_tasks(loss_fn, optim.sgd(0.25), 2)(jnp.array(0.0), {"support": target, "query": target})
    >>> scores.median["loss"].tolist(), scores.diverged.tolist()
    ([4.0, 1.0, 0.25], [0, 0, 0])
    """
    task_loss = whole_form("evaluate_tasks", loss_fn, has_aux, stateful)
    run = adapting("evaluate_tasks", task_loss, inner, inner_steps, adapted=adapted)
    if not diverged_above > 0:
        raise ValueError(f"evaluate_tasks: expected diverged_above to be a number above 0, got {diverged_above!r}")
    if tasks_at_once is not None:
        check_count("evaluate_tasks", "tasks_at_once", tasks_at_once, at_least=1)

    @in_automatic_axes
    def with_state(params: Any, state: Any, tasks: Any, key: jax.Array | None = None) -> TaskScores:
        num_tasks = check_tasks("evaluate_tasks", tasks)
        check_state("evaluate_tasks", state, inner_steps)
        keys = None if key is None else jax.random.split(key, num_tasks)

        def of_task(given: tuple[Any, Any]) -> dict[str, jax.Array]:
            task, own = given
            query_key = None if own is None else jax.random.fold_in(own, inner_steps)

            def score(params: Any, index: Any) -> dict[str, jax.Array]:
                loss, (_, metrics) = task_loss(params, at_step(state, index), task["query"], query_key)
                return {"loss": loss} | metrics

            first = score(start_of("evaluate_tasks", run.learns, params), 0)
            _, found = run(params, state, task["support"], own, lambda params, index: score(params, index + 1))
            return jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), first, found.seen)

        return _scores(over_tasks(of_task, num_tasks, tasks_at_once)((tasks, keys)), diverged_above)

    def without(params: Any, tasks: Any, key: jax.Array | None = None) -> TaskScores:
        return with_state(params, None, tasks, key)

    return with_state if stateful else without


def _scores(values: dict[str, jax.Array], diverged_above: float) -> TaskScores:
    """Scores from those of each task, `[tasks, inner_steps + 1]`."""
    loss = values["loss"]
    usual = jnp.mean(jnp.abs(loss[:, 0]))
    over = (loss > diverged_above * usual) & (usual > 0)
    return TaskScores(
        mean=jax.tree.map(lambda each: jnp.mean(each, 0), values),
        interval=jax.tree.map(lambda each: 1.96 * jnp.std(each, 0) / len(each) ** 0.5, values),
        median=jax.tree.map(lambda each: jnp.median(jnp.where(jnp.isnan(each), jnp.inf, each), 0), values),
        diverged=jnp.sum(over | ~jnp.isfinite(loss), 0),
        values=values,
    )
