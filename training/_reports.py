"""The reports of a run of `fit`: when they are due, what they hold, and who is told."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._guarded import NotFiniteError, told_apart
from ._progress import Progress
from ._run import Row, Run, columns
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

    def make_if_due(self) -> None:
        """Makes a report after as many steps as there are between two, and after the last one."""
        if self.run.seen and (self.run.done % self.every == 0 or self.run.done == self.num_steps):
            self.make()

    def make(self) -> None:
        """Makes a report of all steps since the last one.

        Raises:
          NotFiniteError: if a `guarded` step met NaN or infinity since then; it holds the last good train state.
        """
        run = self.run
        metrics, broken = told_apart(_means(run.seen))
        row = {"step": run.step} | metrics | (self.evaluate(run.train_state) if self.evaluate else {})
        run.seen.clear()
        run.history.append(row)
        if self.shown:
            self.shown.report(row)
        if self.on_report:
            self.on_report(row, run.train_state)
        if broken:
            raise NotFiniteError(broken, jax.tree.map(jnp.copy, run.train_state))


def _means(seen: list[dict[str, Any]]) -> Row:
    return {name: float(column.mean()) for name, column in columns(jax.device_get(seen)).items()}
