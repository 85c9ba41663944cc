"""The compiled calls of steps that `fit` makes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._compiler import compiler_options
from ._convolutions import is_slow_in_loops
from ._run import Run
from ._seen import Record, empty_record
from ._spread import Layout, SpreadStep
from ._state import TrainState

Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


class Calls:
    """The calls of one run, over the devices of its layout if it has one."""

    def __init__(self, step: Step, layout: Layout | None):
        options = tuple(compiler_options().items())
        self._step = step if layout is None else SpreadStep(step, layout)
        self._layout = layout
        self._one = _compiled(_train_step, (1, 2), options)
        self._several = _compiled(_train_steps, (1,), options)
        self._empty_record: Callable[[], Record] | None = None

    def make(self, run: Run, chunk: list[Any]) -> None:
        """Makes a step for every batch of a chunk, in one dispatch; the run holds what comes of them."""
        if self._layout is None:
            self._call(run, chunk)
        else:
            with jax.set_mesh(self._layout.mesh):
                self._call(run, chunk)
        run.done += len(chunk)

    def default_size(self, train_state: TrainState, batch: Any) -> int:
        """How many steps go into a call unless `fit` is told."""
        if self._layout is None:
            return default_steps_per_call(self._step, train_state, batch)
        with jax.set_mesh(self._layout.mesh):
            return default_steps_per_call(self._step, train_state, self._layout.spread(batch))

    def _call(self, run: Run, chunk: list[Any]) -> None:
        layout = self._layout
        if len(chunk) == 1:
            batch = chunk[0] if layout is None else layout.spread(chunk[0])
            if (record := run.seen.record) is None:
                record = self._new_record(run.train_state, batch)
            run.train_state, record = self._one(self._step, run.train_state, record, batch)
            run.seen.add_one(record)
        else:
            batches = _stack(chunk) if layout is None else layout.spread(_stack(chunk), steps=len(chunk))
            run.train_state, metrics = self._several(self._step, run.train_state, batches)
            run.seen.add_several(metrics)

    def _new_record(self, train_state: TrainState, batch: Any) -> Record:
        if self._empty_record is None:
            _, metrics = _checked.eval_shape(self._step, train_state, batch)
            self._empty_record = empty_record(metrics, near=train_state.step)
        return self._empty_record()


def default_steps_per_call(step: Step, train_state: TrainState, batch: Any) -> int:
    """How many steps `fit` puts into one dispatch unless told.

    Ten hide most of what Python costs. On CPUs it is one where a convolution would be slow inside a loop.
    """
    slow = is_slow_in_loops(_checked.trace(step, train_state, batch).jaxpr.jaxpr)
    return 1 if slow and jax.default_backend() == "cpu" else 10


@functools.partial(jax.jit, static_argnums=0)
def _checked(step: Step, train_state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """A step, traced once for both of the programs that it is part of."""
    train_state, metrics = step(train_state, batch)
    for name, value in metrics.items():
        if jnp.shape(value) != ():
            raise ValueError(f"fit: expected metrics/{name} to be a scalar, got shape {jnp.shape(value)}")
    return train_state, metrics


def _train_step(step: Step, train_state: TrainState, record: Record, batch: Any) -> tuple[TrainState, Record]:
    train_state, metrics = _checked(step, train_state, batch)
    return train_state, record.noting(metrics)


def _train_steps(step: Step, train_state: TrainState, batches: Any) -> tuple[TrainState, Metrics]:
    return lax.scan(functools.partial(_checked, step), train_state, batches)


@functools.cache
def _compiled(function: Callable[..., Any], donated: tuple[int, ...], options: tuple[tuple[str, str], ...]) -> Any:
    """Steps under `jit`, one function for all runs, so that equal steps are compiled once."""
    return jax.jit(function, static_argnums=0, donate_argnums=donated, compiler_options=dict(options))


def _stack(chunk: list[Any]) -> Any:
    def stack(*leaves: Any) -> Any:
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise ValueError(f"fit: expected batches of one shape, got {' and '.join(map(str, sorted(shapes)))}")
        return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)

    return jax.tree.map(stack, *chunk)
