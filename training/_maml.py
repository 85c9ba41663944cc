"""MAML: a loss over tasks, of parameters from which a few steps on each task lead far."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._call import recording
from ._adapting import Inner, adapting, at_step, check_state, check_tasks, over_tasks, start_of
from ._automatic import in_automatic_axes
from ._checks import check_count
from ._returned import LossFn, in_form, whole_form


class Adapted(NamedTuple):
    """What adapting to a task led to.

    Attributes:
      params: the adapted parameters.
      losses: on the support, before each step, `[inner_steps]`.
      metrics: what the loss returned beside it, stacked likewise.
      state: that of a stateful network at each step, as `inner_states` makes it; None without one.
    """

    params: Any
    losses: jax.Array
    metrics: dict[str, jax.Array]
    state: Any


@recording
def maml(
    loss_fn: LossFn,
    inner: Inner,
    inner_steps: int,
    *,
    first_order: bool | float | jax.Array = False,
    adapted: str | Sequence[str] = "**",
    query_weights: Sequence[float] | jax.Array | None = None,
    truncate: int | None = None,
    checkpoint: bool = False,
    tasks_at_once: int | None = None,
    has_aux: bool = False,
    stateful: bool = False,
) -> Callable[..., Any]:
    """The mean loss on the queries of tasks, after `inner_steps` of a chain on the support of each.

    The result is a loss like another: `step(maml(loss_fn, optim.sgd(0.01), 1), optim.adam(1e-3))`. Its gradient goes
    through the inner steps, their own gradients too; derivatives of zero stand in where the chain takes a root of zero
    (`optim.differentiable`), so that Adam may be inside. Any link may, but for three that have no such derivative:
    `optim.soap` takes its bases for constants, `optim.low_bit` rounds to codes, and `optim.lbfgs` searches by a loop
    that JAX does not differentiate backwards. Tasks stand under one `vmap`: sharded over devices, they are
    adapted there.

    Source: Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400, algorithm 2; a part of the parameters, Raghu et
    al. 2020, https://arxiv.org/abs/1909.09157 (ANIL), Zintgraf et al. 2019, https://arxiv.org/abs/1810.03642 (CAVIA,
    `adapted="context"`, an array of the parameters that the network takes as an input); learned rates, Li et al. 2017,
    https://arxiv.org/abs/1707.09835 (Meta-SGD); losses of every step, rates of every step, and a first order that is
    annealed, Antoniou, Edwards, Storkey 2019, https://arxiv.org/abs/1810.09502, section 4 (MAML++).

    Args:
      loss_fn: as for `step`, of one task's batch: `loss_fn(params, batch, key) -> loss`, a scalar. `key` is None if
        none is given.
      inner: the chain that adapts, made anew for each task; or a function that makes it from arrays to be learnt, such
        as `optim.scale_by_rates`: the parameters are then `{"params": params, "inner": those arrays}`.
      inner_steps: how many steps, at least 0.
      first_order: takes the inner gradients for constants; a number between 0 and 1 is the share of their derivatives
        that is left out, to be annealed.
      adapted: patterns of paths of the parameters that are adapted; `"head/**"` is ANIL. All unless given.
      query_weights: of the loss on the query after each inner step, `[inner_steps]`; that after the last alone unless
        given. `multi_step_weights` makes those of MAML++.
      truncate: the gradient goes through so many inner steps, the last ones; what came before counts as a constant
        shift of the parameters, in losses on earlier queries too. Through all unless given.
      checkpoint: computes inner steps again in the backward pass, in groups of about the root of their number, of which
        only the ends are held: the same gradient, in less memory where steps are many.
      tasks_at_once: tasks under one `vmap`; all unless given. Groups of so many run one after another.
      has_aux: as for `step`. The metrics are those of the queries after the last step, means over tasks.
      stateful: as for `step`. Each number of inner steps has a state of its own (`inner_states`): that of the index
        `i` belongs to parameters after `i` steps, and is updated by the support; the last by the query. New states are
        means over tasks, and of integers the first task's.
    Returns:
      `(params, tasks, key) -> loss`, `tasks` being `{"support": batch, "query": batch}` with an axis of tasks in front
      of every array; `(loss, metrics)` with `has_aux`; `(params, state, tasks, key) -> (loss, (state, metrics))` with
      `stateful`. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: for counts out of range; when called, for tasks that are no such dict, or whose arrays differ in
        their number of tasks, and for a pattern that matches no path.
      TypeError: if `inner` is no chain; when called, if the loss is no scalar.

    >>> loss_fn = lambda w, x, key: jnp.sum(0.5 * (x @ w) ** 2)
    >>> tasks = {"support": jnp.array([[1.0, 2.0, 3.0]]), "query": jnp.array([[4.0, 5.0, 6.0]])}
    >>> jax.grad(maml(loss_fn, optim.sgd(0.5), 1))(jnp.array([2.0, 3.0, 5.0]), tasks).tolist()
    [3780.0, 8505.0, 13230.0]
    """
    task_loss = whole_form("maml", loss_fn, has_aux, stateful)
    run = adapting(
        "maml", task_loss, inner, inner_steps, first_order=first_order, adapted=adapted, truncate=truncate,
        checkpoint=checkpoint,
    )  # fmt: skip
    if query_weights is not None and np.shape(query_weights) != (inner_steps,):
        raise ValueError(
            f"maml: expected query_weights for each of {inner_steps} inner steps, got shape {np.shape(query_weights)}"
        )
    if tasks_at_once is not None:
        check_count("maml", "tasks_at_once", tasks_at_once, at_least=1)

    def of_task(params: Any, state: Any, task: Any, key: jax.Array | None) -> Any:
        own = None if key is None else jax.random.fold_in(key, inner_steps)

        def on_query(params: Any, index: Any) -> Any:
            return task_loss(params, at_step(state, index), task["query"], own)

        if inner_steps == 0:
            loss, (last, metrics) = on_query(
                start_of("maml", run.learns, params), 0
            )  # not a copy of them for each task
            return loss, (_append(None, last), metrics)
        look = (lambda params, index: None) if query_weights is None else lambda *args: on_query(*args)[0]
        adapted, found = run(params, state, task["support"], key, lambda params, index: look(params, index + 1))
        loss, (last, metrics) = on_query(adapted, inner_steps)
        if query_weights is not None:
            loss = jnp.dot(jnp.asarray(query_weights, found.seen.dtype), found.seen)
        return loss, (_append(found.aux[0], last), metrics)

    def loss(params: Any, state: Any, tasks: Any, key: jax.Array | None) -> Any:
        num_tasks = check_tasks("maml", tasks)
        check_state("maml", state, inner_steps)
        keys = None if key is None else jax.random.split(key, num_tasks)

        def one(given: tuple[Any, Any]) -> Any:
            return of_task(params, state, *given)

        losses, (states, metrics) = over_tasks(one, num_tasks, tasks_at_once)((tasks, keys))
        return jnp.mean(losses), (jax.tree.map(_merged, states), jax.tree.map(lambda each: jnp.mean(each, 0), metrics))

    return in_form(in_automatic_axes(loss), has_aux, stateful)


@recording
def adapt(
    loss_fn: LossFn,
    inner: Inner,
    inner_steps: int,
    *,
    adapted: str | Sequence[str] = "**",
    has_aux: bool = False,
    stateful: bool = False,
) -> Callable[..., Adapted]:
    """Adapts parameters to a task, as `maml` does inside: for use when the parameters are learnt.

    Args:
      loss_fn: as for `maml`.
      inner: as for `maml`.
      inner_steps: as for `maml`; it may be another number than they were trained for.
      adapted: as for `maml`.
      has_aux: as for `maml`.
      stateful: as for `maml`.
    Returns:
      `(params, support, key=None) -> Adapted(params, losses, metrics, state)`, of one task; `jax.vmap` it for several.
      `(params, state, support, key=None)` with `stateful`.
    Raises:
      ValueError: if `inner_steps` is negative; when called, for a pattern that matches no path.
      TypeError: if `inner` is no chain; when called, if the loss is no scalar.

    >>> loss_fn = lambda w, target, key: (w - target) ** 2
    >>> found = adapt(loss_fn, optim.sgd(0.25), 2)(jnp.array(0.0), jnp.array(1.0))
    >>> found.params.item(), found.losses.tolist()
    (0.75, [1.0, 0.25])
    """
    run = adapting("adapt", whole_form("adapt", loss_fn, has_aux, stateful), inner, inner_steps, adapted=adapted)

    def with_state(params: Any, state: Any, support: Any, key: jax.Array | None = None) -> Adapted:
        check_state("adapt", state, inner_steps)
        params, found = run(params, state, support, key)
        states, metrics = found.aux
        last = at_step(state, inner_steps)
        return Adapted(params, found.losses, metrics, None if state is None else _append(states, last))

    def without(params: Any, support: Any, key: jax.Array | None = None) -> Adapted:
        return with_state(params, None, support, key)

    return with_state if stateful else without


def inner_states(state: Any, inner_steps: int) -> Any:
    """A network's state for parameters after each number of inner steps, as `maml` with `stateful` carries it.

    Args:
      state: the network's own.
      inner_steps: how many steps it will make.
    Returns:
      The state with an axis of `inner_steps + 1` in front of every array.
    Raises:
      ValueError: if `inner_steps` is negative.

    >>> inner_states({"mean": jnp.zeros(3)}, 5)["mean"].shape
    (6, 3)
    """
    check_count("inner_states", "inner_steps", inner_steps, at_least=0)
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], inner_steps + 1, 0), state)


def multi_step_weights(inner_steps: int, progress: float | jax.Array) -> jax.Array:
    """Weights of the query's losses after each inner step: equal ones at first, that of the last step alone at the end.

    Source: Antoniou, Edwards, Storkey 2019, https://arxiv.org/abs/1810.09502, section 4, with the floor of the
    authors' code: all but the last fall from `1 / n` by `progress / n`, to no less than `0.03 / n`.

    Args:
      inner_steps: how many, `n`.
      progress: how much of the annealing is done, from 0 to 1.
    Returns:
      `[inner_steps]`, with a sum of 1.
    Raises:
      ValueError: if `inner_steps` is below 1.

    >>> multi_step_weights(4, 0.5).tolist()
    [0.125, 0.125, 0.125, 0.625]
    """
    check_count("multi_step_weights", "inner_steps", inner_steps, at_least=1)
    early = jnp.clip(1 - jnp.asarray(progress, jnp.result_type(float)), 0.03, 1) / inner_steps
    return jnp.full(inner_steps, early).at[-1].set(1 - (inner_steps - 1) * early)


def _append(states: Any, last: Any) -> Any:
    if states is None:
        return jax.tree.map(lambda leaf: leaf[None], last)
    return jax.tree.map(lambda leaves, leaf: jnp.concatenate([leaves, leaf[None]]), states, last)


def _merged(leaf: jax.Array) -> jax.Array:
    return jnp.mean(leaf, 0) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf[0]
