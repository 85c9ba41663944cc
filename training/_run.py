"""Where a run of `fit` stands, and how it is taken up from a checkpoint."""

import dataclasses
import datetime
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._checkpoints import Checkpoints
from ._checks import check_count
from ._data import Resumable
from ._keeping import Place
from ._seen import EmptyRecord, Seen
from ._state import TrainState

Row = dict[str, float]


@dataclasses.dataclass
class Run:
    """A run under way.

    Attributes:
      carried: the train state that steps carry along; its step is None where `seen` keeps that.
      start: the step that the whole run starts from.
      done: steps made since then.
      seen: metrics since the last report.
      history: rows of the reports.
      saved: whether a checkpoint says all this.
    """

    carried: TrainState
    start: int
    done: int = 0
    seen: Seen = dataclasses.field(default_factory=Seen)
    history: list[Row] = dataclasses.field(default_factory=list)
    saved: bool = False

    @property
    def train_state(self) -> TrainState:
        """After the steps that were made."""
        return self.carried if self.carried.step is not None else self.carried._replace(step=self.seen.step)

    def begin_record(self, empty: EmptyRecord) -> None:
        """Begins a record of single steps. It keeps the train state's step too, if that is a number as `init` makes it.

        A call of a small step takes the less time, the fewer arrays it has.
        """
        train_state = self.train_state
        kept = isinstance(train_state, TrainState) and jnp.shape(train_state.step) == ()
        kept = kept and train_state.step.dtype == jnp.int32
        self.seen.record = empty(train_state.step if kept else 0)
        self.carried = train_state._replace(step=None) if kept else train_state

    @property
    def step(self) -> int:
        """The step at which it stands."""
        return self.start + self.done

    def place(self) -> Place:
        """What a checkpoint holds of it."""
        extra = {
            "start": self.start,
            "seen": {name: column.tolist() for name, column in self.seen.columns().items()},
            "history": self.history,
        }
        is_reported = bool(self.history) and self.history[-1]["step"] == self.step
        return Place(self.step, self.train_state, self.history[-1] if is_reported else None, extra)

    def leads(self, best: tuple[str, str] | None) -> bool:
        """Whether it stands at a report that is better than all before.

        Raises:
          ValueError: if reports do not have the metric.
        """
        if best is None or self.seen or not self.history or self.history[-1]["step"] != self.step:
            return False
        name, aim = best
        if name not in self.history[-1]:
            raise ValueError(
                f"fit: expected reports to have the metric {name!r} that the checkpoints' best names, got "
                f"{', '.join(key for key in self.history[-1] if key != 'step')}."
            )
        last, *before = (row.get(name, math.nan) * (1 if aim == "max" else -1) for row in reversed(self.history))
        return not math.isnan(last) and all(last > each or math.isnan(each) for each in before)


def taken_up(train_state: TrainState, checkpoints: Checkpoints | None, num_steps: int) -> Run:
    """A run of so many steps from a train state on, where its last checkpoint left it.

    Raises:
      ValueError: if the checkpoints are those of another run.
    """
    start = int(train_state.step)
    saved = None if checkpoints is None else checkpoints.latest()
    if checkpoints is None or saved is None:
        return Run(jax.tree.map(jnp.copy if checkpoints is None else settled, train_state), start)
    began = saved.extra.get("start") if isinstance(saved.extra, dict) else None
    if began != start or not start <= saved.step <= start + num_steps:
        whose = "by another hand" if began is None else f"of a run from step {began}"
        raise ValueError(
            f"fit: expected checkpoints of a run from step {start} to {start + num_steps}, got one of step "
            f"{saved.step} {whose} in {checkpoints.directory}. "
            "Give every run a directory of its own, and its first train state and whole number of steps."
        )
    seen = {name: np.array(column, np.float64) for name, column in saved.extra["seen"].items()}
    return Run(
        jax.tree.map(settled, checkpoints.restore(train_state, step=saved.step)),
        start,
        saved.step - start,
        Seen(seen),
        saved.extra["history"],
        saved=not seen,
    )


def check_checkpoints(checkpoints: object, every: object, batches: object, mesh: object) -> None:
    """Refuses what cannot be saved, or taken up.

    Raises:
      TypeError: if `checkpoints` are none, or `batches` cannot be taken up at a step.
      ValueError: for an interval that is neither steps nor time, or that several processes cannot agree on; for several
        processes without a mesh.
    """
    if isinstance(every, datetime.timedelta):
        if every < datetime.timedelta(0):
            raise ValueError(f"fit: expected checkpoint_every to be no time below zero, got {every!r}")
    else:
        check_count("fit", "checkpoint_every", every, at_least=1)
    if checkpoints is None:
        return
    if not isinstance(checkpoints, Checkpoints):
        raise TypeError(
            f"fit: expected checkpoints to be training.Checkpoints(directory), got {type(checkpoints).__name__}."
        )
    if not isinstance(batches, Resumable):
        raise TypeError(
            "fit: expected batches with a method starting_at(step), so that a run can be taken up, got "
            f"{type(batches).__name__}. Give training.batches, or a class with this method."
        )
    if jax.process_count() == 1:
        return
    if mesh is None:
        raise ValueError(
            f"fit: expected a mesh where {jax.process_count()} processes save to one directory, got None. "
            "Give mesh=jax.make_mesh((jax.device_count(),), ('data',))."
        )
    if not isinstance(every, int):
        raise ValueError(
            f"fit: expected checkpoint_every to be a number of steps where there are {jax.process_count()} processes, "
            f"whose clocks differ, got {every!r}. Give checkpoint_every=1000, say."
        )


def settled(leaf: Any) -> Any:
    """A copy whose dtype no longer yields to others', as none does that comes from a checkpoint."""
    leaf = jnp.copy(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else lax.convert_element_type(leaf, leaf.dtype)
