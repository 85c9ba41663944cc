"""Ensembles: a step over many members at once, each a train state of its own."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from .._call import recording
from ..nets import stack, unstack
from ._checks import check_count, path_of
from ._convolutions import convolves
from ._state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


@recording
def ensemble(
    step: Step,
    num_members: int,
    *,
    batches: Literal["own", "shared"] = "own",
    metrics: Literal["each", "named"] = "each",
) -> Step:
    """A step of many train states at once: one program, as many seeds or settings as members.

    Each member goes as it would alone, up to rounding. Keys are each member's own. So are hyper-parameters that stand
    in the state of a chain, by `optim.inject_hyperparams`: give each member's train state other numbers.

    Members go under one `jax.vmap`; on CPUs each by itself, in one program, if the step convolves, because XLA has no
    fast form for convolutions that differ by member there.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, of one member.
      num_members: how many, at least 1.
      batches: "own", arrays with a leading axis of members; or "shared", one batch that all of them see.
      metrics: "each", arrays with a leading axis of members; or "named", as `fit` wants them: `loss`, the mean over
        members, `loss/0`, `loss/1` and so on.
    Returns:
      `(train_states, batch) -> (train_states, metrics)`. `train_states` is one tree with a leading axis of members in
      front of every array, from `join_members` or `jax.vmap(init)`. Its `step` may be one count for all, as `fit` wants
      it. The step prints, compares and hashes as the call that made it.
    Raises:
      ValueError: for arguments out of their range; when called, if an array has no axis of members.

    >>> loss_fn = lambda w, x, key: jnp.mean((w - x) ** 2)
    >>> tx = optim.sgd(0.5)
    >>> train_states = join_members([init(jnp.array(begin), tx) for begin in (0.0, 4.0)])
    >>> together = training.ensemble(step(loss_fn, tx), 2, batches="shared")
    >>> train_states, metrics = jax.jit(together)(train_states, jnp.array([1.0, 3.0]))
    >>> train_states.params.tolist(), metrics["loss"].tolist()
    ([2.0, 2.0], [5.0, 5.0])
    """
    check_count("ensemble", "num_members", num_members, at_least=1)
    _check_choice("batches", batches, ("own", "shared"))
    _check_choice("metrics", metrics, ("each", "named"))

    def one_step(train_states: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        one_count = isinstance(train_states, TrainState) and jnp.ndim(train_states.step) == 0
        if one_count:
            train_states = train_states._replace(step=_repeated(train_states.step, num_members))
        _check_members("train states", train_states, num_members)
        if batches == "own":
            _check_members("batches", batch, num_members)
        train_states, found = _over_members(step, train_states, batch, num_members, shared=batches == "shared")
        if one_count:
            train_states = train_states._replace(step=train_states.step[0])
        return train_states, _named(found, num_members) if metrics == "named" else found

    return one_step


def join_members(train_states: Sequence[TrainState]) -> TrainState:
    """Train states as the members of an ensemble, with one count of steps for all.

    Args:
      train_states: equal in structure, shapes and dtypes, and of one count.
    Returns:
      A train state, each array but `step` with a leading axis of members.
    Raises:
      ValueError: if there are none, or they differ in structure, shapes or dtypes.

    >>> tx = optim.sgd(0.1)
    >>> train_states = join_members([init({"w": jnp.full(2, begin)}, tx) for begin in (0.0, 1.0, 2.0)])
    >>> train_states.params["w"].shape, train_states.step.shape
    ((3, 2), ())
    """
    return stack(train_states)._replace(step=train_states[0].step)


def split_members(train_states: TrainState) -> list[TrainState]:
    """The train state of each member of an ensemble.

    Args:
      train_states: from `join_members`, or steps of an ensemble.
    Returns:
      A list of train states, each as its member would have it alone.

    >>> tx = optim.sgd(0.1)
    >>> train_states = join_members([init(jnp.array(begin), tx) for begin in (0.0, 1.0)])
    >>> [member.params.item() for member in split_members(train_states)]
    [0.0, 1.0]
    """
    if jnp.ndim(train_states.step) == 0:
        num_members = jnp.shape(jax.tree.leaves(train_states.params)[0])[0]
        train_states = train_states._replace(step=_repeated(train_states.step, num_members))
    return unstack(train_states)


def _over_members(step: Step, train_states: Any, batch: Any, num_members: int, *, shared: bool) -> Any:
    """How members run, by backend and by what they do; measured by benchmarks/ensemble.py.

    On CPUs a train step of ten MLPs takes 0.75 of the time of ten calls by `vmap`, 0.8 to 0.9 on one batch (no less
    with the batch repeated for each), and 0.95 to 1.2 unrolled. One of five convolutional networks takes 0.9 to 1.2
    unrolled, 2 to 4 by `vmap`, 17 to 21 by a scan.
    """
    if jax.default_backend() == "cpu" and _convolves(step, train_states, batch, shared):
        given = [batch] * num_members if shared else unstack(batch)
        return stack([step(*each) for each in zip(unstack(train_states), given, strict=True)])
    return jax.vmap(step, (0, None if shared else 0))(train_states, batch)


def _convolves(step: Step, train_states: Any, batch: Any, shared: bool) -> bool:
    first = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), (train_states, batch))
    traced = jax.make_jaxpr(step)(first[0], batch if shared else first[1])
    return convolves(traced.jaxpr)


def _repeated(leaf: Any, num_members: int) -> jax.Array:
    return jnp.broadcast_to(leaf, (num_members, *jnp.shape(leaf)))


def _named(metrics: dict[str, jax.Array], num_members: int) -> dict[str, jax.Array]:
    means = {name: jnp.mean(values, axis=0) for name, values in metrics.items()}
    return means | {f"{name}/{index}": metrics[name][index] for name in metrics for index in range(num_members)}


def _check_choice(name: str, given: Any, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise ValueError(f"ensemble: expected {name} to be {' or '.join(map(repr, choices))}, got {given!r}.")


def _check_members(what: str, tree: Any, num_members: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.shape(leaf)[:1] != (num_members,):
            raise ValueError(
                f"ensemble: expected {what} with a leading axis of {num_members} members, got {jnp.shape(leaf)} at "
                f"{path_of(path)!r}. {_ADVICE[what]}"
            )


_ADVICE = {
    "train states": "Join them with training.join_members.",
    "batches": 'Stack one for each member, or give batches="shared".',
}
