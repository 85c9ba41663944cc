"""What to do about NaN: stop, skip, or go back. Each is one function around a step or a chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ..optim._trees import all_finite, select
from ._checks import check_count
from ._state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


class RollBack(NamedTuple):
    """State of a step under `roll_back`, the `state` of its train state.

    Attributes:
      state: of the network; None for one that carries nothing.
      kept: parameters, state of the chain, and state of the network, as they last were when they were kept.
      kept_step: when that was, `[]` of int32.
      times: how often the run went back, `[]` of int32.
    """

    state: Any
    kept: tuple[Any, Any, Any]
    kept_step: jax.Array
    times: jax.Array


def with_roll_back(train_state: TrainState) -> TrainState:
    """A train state that a step under `roll_back` can go back to.

    Args:
      train_state: from `init`.
    Returns:
      The same, whose `state` is a `RollBack`; its own is `train_state.state.state`.

    >>> train_state = with_roll_back(init(jnp.array(1.0), optim.sgd(0.1)))
    >>> train_state.state.kept_step.item(), train_state.state.times.item()
    (0, 0)
    """
    kept = jax.tree.map(jnp.copy, train_state[:3])  # else a donated train state would hold one buffer twice
    return train_state._replace(state=RollBack(train_state.state, kept, train_state.step + 0, jnp.zeros((), jnp.int32)))


@recording
def roll_back(step: Step, *, every: int, at_most: int = 3) -> Step:
    """A step that returns to the last state it kept, where it would leave NaN or infinity.

    Parameters, the state of the chain and that of the network go back. The count of steps goes on, and with it the key
    and the batches: what comes after is not what came before. Nothing leaves the device. When the run has gone back
    `at_most` times, it stays where it was last kept, and `fit` stops after a report with a `NotFiniteError`, which says
    how often it went back, and holds that state.

    Parameters are looked at in every step, all that is carried when it is kept: a pass over the parameters, and memory
    for one more train state. Reverse mode does not go through it.

    **Which policy.** None waits for the device:

    - *Raise*: `guarded(step)`. The step is not made, `fit` stops and hands on the last good state. For runs that
      should never see NaN: what you want to know first is where it came from.
    - *Skip*: `optim.skip_not_finite(tx)`. The update is not made, its count is in the chain's state. For gradients
      that are not finite now and then by nature: float16 (`loss_scaled`), rare batches, many workers. It helps only
      where the parameters themselves are still good; `most_in_a_row` tells a lost run from a bad batch.
    - *Leave out*: `optim.accumulate(tx, n)` takes the mean of the micro-batches that are finite.
    - *Go back*: `roll_back(step, every=100)`. For a run that diverges over some steps before NaN is met: the last
      update was fine as a number, and skipping the next changes nothing. `every` should be longer than that takes, and
      a run that goes back often wants a smaller learning rate or a clip.
    - *Go back further*: `checkpoints` of `fit` keep the last `keep` of them; `Checkpoints.restore(train_state,
      step=step)` and another key for `batches` go on from any. That is for a person to decide.

    They may be combined: `roll_back(step(loss_fn, optim.skip_not_finite(tx)), every=100)` skips what it can.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, from `training.step` say.
      every: steps between two states that are kept.
      at_most: how often a run may go back.
    Returns:
      A step of train states from `with_roll_back`, with a further metric `rolled_back`, 1 where it went back, else 0.
      It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: if a count is below 1.
      TypeError: when called, for a train state without `with_roll_back`.

    >>> tx = optim.sgd(0.5)
    >>> safe = roll_back(step(lambda w, x, key: jnp.log(x * w), tx), every=2)
    >>> train_state = with_roll_back(init(jnp.array(4.0), tx))
    >>> for x in (1.0, 1.0, 1.0, 0.0):
    ...     train_state, metrics = safe(train_state, x)
    >>> train_state.step.item(), train_state.state.kept_step.item(), metrics["rolled_back"].item()
    (4, 2, 1.0)
    >>> bool(train_state.params == train_state.state.kept[0])
    True
    """
    check_count("roll_back", "every", every, at_least=1)
    check_count("roll_back", "at_most", at_most, at_least=1)
    lost_name = f"broken/parameters after going back {at_most} times"

    def one_step(train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        held = _held(train_state)
        after, metrics = step(train_state._replace(state=held.state), batch)
        due = (after.step % every == 0) | ~all_finite(after.params) | (held.times > at_most)

        def settle(place: _Place) -> _Place:
            now, seen, kept, kept_step, times, _ = place
            good = all_finite(now[0]) & _no_nan(now[1:])
            lost = (times > at_most) | (~good & (times == at_most))
            stays = good & ~lost
            both = select(stays, now, kept)
            times = times + (~good & (times <= at_most))
            seen, kept_step = jnp.where(lost, kept_step, seen), jnp.where(stays, seen, kept_step)
            return _Place(both, seen, both, kept_step, times, jnp.array(False))

        # A loop of one turn or none works in place; a cond, or a where, would copy all that stays as it is.
        begin = _Place(tuple(after[:3]), after.step, held.kept, held.kept_step, held.times, due)
        now, seen, kept, kept_step, times, _ = lax.while_loop(lambda place: place.due, settle, begin)
        lost = times > at_most
        told = {"rolled_back": (times > held.times) & ~lost, lost_name: lost}
        rolled = RollBack(now[2], kept, kept_step, times)
        metrics = metrics | {name: value.astype(jnp.float32) for name, value in told.items()}
        return TrainState(now[0], now[1], rolled, seen, after.key), metrics

    return one_step


class _Place(NamedTuple):
    """Where a run stands, and where it would go back to; `due` says that one of them is to be settled."""

    now: tuple[Any, Any, Any]
    seen: jax.Array
    kept: tuple[Any, Any, Any]
    kept_step: jax.Array
    times: jax.Array
    due: jax.Array


def _held(train_state: TrainState) -> RollBack:
    if not isinstance(train_state.state, RollBack):
        raise TypeError(
            f"roll_back: expected a train state that can go back, got one whose state is "
            f"{type(train_state.state).__name__}. Write training.with_roll_back(training.init(params, tx))."
        )
    return train_state.state


def _no_nan(tree: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return ~jnp.any(jnp.array([jnp.isnan(leaf).any() for leaf in floats])) if floats else jnp.array(True)
