"""The compiled calls of steps that `fit` makes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._compiler import Option, compiler_options
from ._convolutions import is_slow_in_loops
from ._run import Run
from ._seen import EmptyRecord, OtherMetricsError, Record, empty_record, noted
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
        try:
            self._one, self._several = _compiled(self._step, options)
        except TypeError:
            raise TypeError(f"fit: expected step to be hashable, as functions are, got {step!r}.") from None
        self._empty_record: EmptyRecord | None = None

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
            try:
                self._make_one(run, batch)
            except OtherMetricsError:  # than those of the step before; nothing was run
                run.seen.close()
                self._empty_record = None
                self._make_one(run, batch)
        else:
            batches = _stack(chunk) if layout is None else layout.spread(_stack(chunk), steps=len(chunk))
            run.carried, metrics = self._several(run.train_state, batches)
            run.seen.add_several(metrics)

    def _make_one(self, run: Run, batch: Any) -> None:
        if self._empty_record is None:
            _, metrics = _checked.eval_shape(self._step, run.train_state, batch)
            self._empty_record = empty_record(metrics, near=run.train_state.step)
        if run.seen.record is None:
            run.begin_record(self._empty_record)
        run.carried, record = self._one(run.carried, run.seen.record, batch)
        run.seen.add_one(record)


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
        dtype = jnp.asarray(value).dtype
        if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise ValueError(f"fit: expected metrics/{name} to be a real number, got {dtype}")
    return train_state, metrics


@functools.lru_cache(maxsize=128)
def _compiled(step: Step, options: tuple[tuple[str, Option], ...]) -> tuple[Any, Any]:
    """One step under `jit`, and several, the same functions for all runs of equal steps: compiled once.

    The step is no static argument, since to compare it at every call takes 2 % of a small one.
    """

    def _train_step(carried: TrainState, record: Record, batch: Any) -> tuple[TrainState, Record]:
        if carried.step is not None:
            train_state, metrics = _checked(step, carried, batch)
            return train_state, noted(record, metrics)
        train_state, metrics = _checked(step, carried._replace(step=record.step()), batch)
        return train_state._replace(step=None), noted(record, metrics, train_state.step)

    def _train_steps(train_state: TrainState, batches: Any) -> tuple[TrainState, Metrics]:
        return lax.scan(functools.partial(_checked, step), train_state, batches)

    jit = functools.partial(jax.jit, compiler_options=dict(options))
    return jit(_train_step, donate_argnums=(0, 1)), jit(_train_steps, donate_argnums=0)


def _stack(chunk: list[Any]) -> Any:
    def stack(*leaves: Any) -> Any:
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise ValueError(f"fit: expected batches of one shape, got {' and '.join(map(str, sorted(shapes)))}")
        return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)

    return jax.tree.map(stack, *chunk)
