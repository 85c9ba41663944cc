"""The reports of a run of `fit`: when they are due, what they hold, and who is told."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._guarded import NotFiniteError, told_apart
from ._progress import Progress
from ._run import Row, Run
from ._seen import Seen
from ._state import TrainState


@dataclasses.dataclass(frozen=True)
class Reports:
    """What is made of the metrics of a run.

    Attributes:
      run: whose history they join.
      num_steps: of the run; the last one is reported.
      every: steps between two reports.
      evaluate: as `fit` takes it.
      on_report: as `fit` takes it.
      stop: as `fit` takes it.
      shown: where they are printed, if they are.
    """

    run: Run
    num_steps: int
    every: int
    evaluate: Callable[[TrainState], dict[str, float]] | None
    on_report: Callable[[Row, TrainState], None] | None
    stop: Callable[[list[Row]], bool] | None
    shown: Progress | None

    @property
    def have_ended(self) -> bool:
        """Whether the run ends after the report that was just made."""
        return bool(self.stop and self.run.history and not self.run.seen and self.stop(self.run.history))

    def make_if_due(self) -> bool:
        """Makes a report after as many steps as there are between two, and after the last one; says whether it did."""
        done = self.run.done
        due = (done % self.every == 0 or done == self.num_steps) and bool(self.run.seen)
        if due:
            self.make()
        return due

    def make(self) -> None:
        """Makes a report of all steps since the last one; one that is cut short is made again.

        Raises:
          NotFiniteError: if a `guarded` step met NaN or infinity since then; it holds the last good train state.
          ValueError: if `evaluate` returned what is no scalar.
        """
        run = self.run
        metrics, broken = told_apart(_means(run.seen))
        found = self.evaluate(run.train_state) if self.evaluate else {}
        row = {"step": run.step} | metrics | {name: _number(name, value) for name, value in found.items()}
        if self.shown:
            self.shown.report(row)
        if self.on_report:
            self.on_report(row, run.train_state)
        run.seen.clear()
        run.history.append(row)
        if broken:
            raise NotFiniteError(broken, jax.tree.map(jnp.copy, run.train_state))


def _means(seen: Seen) -> Row:
    return {name: float(column.mean()) for name, column in seen.columns().items()}


def _number(name: str, value: Any) -> Any:
    """A metric as a checkpoint gives it back: a number of Python's."""
    if np.shape(value) != ():
        raise ValueError(
            f"fit: expected evaluate to return scalars, got shape {np.shape(value)} for {name!r}. "
            "Return its mean, or each number by a name of its own."
        )
    return value.item() if hasattr(value, "item") else value
