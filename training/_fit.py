"""The loop: several steps a dispatch, donated buffers, metrics on the device until they are reported."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Jaxpr, jaxprs_in_params

from ._checks import check_count
from ._data import Resumable
from ._guarded import NotFiniteError, told_apart
from ._progress import Progress
from ._state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
Row = dict[str, float]


def fit(
    step: Step,
    train_state: TrainState,
    batches: Iterable[Any],
    *,
    num_steps: int,
    steps_per_call: int | None = None,
    report_every: int = 100,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
    on_report: Callable[[Row, TrainState], None] | None = None,
    progress: bool = True,
) -> tuple[TrainState, list[Row]]:
    """Runs a step over batches.

    Steps run `steps_per_call` at a time in one compiled `lax.scan` that reuses the train state's buffers; the
    train state that you gave stays valid. Between reports nothing is fetched from the device. The numbers are the
    same for every `steps_per_call`, up to rounding.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, from `training.step` say. It is compiled once for
        equal steps, over several calls of `fit`.
      train_state: where to start.
      batches: pytrees of arrays, all of one shape. What has a method `starting_at(step)`, as `training.batches` and
        `poisson_batches` have, is taken up at `train_state.step`; anything else from where it stands.
      num_steps: how many steps to make; fewer if the batches end before.
      steps_per_call: steps a dispatch. More of them cost memory for as many batches, and hide more of Python. By
        default 10, or 1 where the step convolves on a CPU: see `default_steps_per_call`.
      report_every: steps between reports.
      evaluate: `evaluate(train_state) -> metrics`, called at each report; its metrics join the report's.
      on_report: `on_report(row, train_state)`, called at each report: to log and to save. Copy what you keep of the
        train state, since its buffers are reused.
      progress: whether to print reports, with rate and time left.
    Returns:
      The train state, and the history: a row a report, `{"step": ..., metric: mean since the last report, ...}`.
    Raises:
      ValueError: if a count is below 1, batches differ in shape, or a metric is no scalar.
      NotFiniteError: after a report, if a `guarded` step met NaN or infinity; it holds the last good train state.

    >>> net = nets.linear(1)
    >>> loss_fn = lambda params, batch, key: squared_error(net.apply(params, batch["x"]), batch["y"])
    >>> data = {"x": jnp.arange(8.0)[:, None], "y": 2 * jnp.arange(8.0)[:, None]}
    >>> tx = optim.adam(0.1)
    >>> train_state = init(net.init(jax.random.key(0), data["x"]), tx)
    >>> feed = batches(data, 4, key=jax.random.key(1))
    >>> train_state, history = fit(step(loss_fn, tx), train_state, feed, num_steps=200, progress=False)
    >>> [row["step"] for row in history], history[-1]["loss"] < 0.1
    ([100, 200], True)
    """
    counts = {"num_steps": num_steps, "report_every": report_every}
    for name, count in (counts if steps_per_call is None else counts | {"steps_per_call": steps_per_call}).items():
        check_count("fit", name, count, at_least=1)
    train_state = jax.tree.map(jnp.copy, train_state)
    start = int(train_state.step)
    stream = batches.starting_at(start) if isinstance(batches, Resumable) else iter(batches)
    first = next(stream, None)
    if first is None:
        return train_state, []
    stream = itertools.chain([first], stream)
    steps_per_call = steps_per_call or default_steps_per_call(step, train_state, first)
    shown = Progress(start, start + num_steps) if progress else None
    history: list[Row] = []
    seen: list[dict[str, jax.Array]] = []

    def report(step_now: int) -> None:
        metrics, broken = told_apart(_means(seen))
        row = {"step": step_now} | metrics | (evaluate(train_state) if evaluate else {})
        seen.clear()
        history.append(row)
        if shown:
            shown.report(row)
        if on_report:
            on_report(row, train_state)
        if broken:
            raise NotFiniteError(broken, jax.tree.map(jnp.copy, train_state))

    done = 0
    try:
        for chunk in _chunks(stream, num_steps, steps_per_call, report_every):
            train_state, metrics = _run_steps(step, train_state, chunk)
            seen.append(metrics)
            done += len(chunk)
            if done % report_every == 0 or done == num_steps:
                report(start + done)
        if seen:  # the batches ended between two reports
            report(start + done)
    finally:
        if shown:
            shown.close()
    return train_state, history


def default_steps_per_call(step: Step, train_state: TrainState, batch: Any) -> int:
    """How many steps `fit` puts into one dispatch unless told.

    Ten hide most of what Python costs. But XLA's CPU backend rewrites convolutions into its fast form only
    outside loops: inside one, the gradient of a 3x3 kernel takes 70 times as long (jaxlib 0.10), and a train step
    of a small network 12 times. So there it is one.
    """
    convolves = "conv_general_dilated" in primitives(_one_step.trace(step, train_state, batch).jaxpr.jaxpr)
    return 1 if convolves and jax.default_backend() == "cpu" else 10


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _one_step(step: Step, train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
    train_state, metrics = step(train_state, batch)
    for name, value in metrics.items():
        if jnp.shape(value) != ():
            raise ValueError(f"fit: expected metrics/{name} to be a scalar, got shape {jnp.shape(value)}")
    return train_state, metrics


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _scan_steps(step: Step, train_state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
    return lax.scan(functools.partial(_one_step, step), train_state, batches)


def _run_steps(step: Step, train_state: TrainState, chunk: list[Any]) -> tuple[TrainState, dict[str, jax.Array]]:
    """Steps over batches in one dispatch; metrics `[steps]`, or `[]` for one."""
    if len(chunk) == 1:
        return _one_step(step, train_state, chunk[0])
    return _scan_steps(step, train_state, _stack(chunk))


def primitives(jaxpr: Jaxpr) -> set[str]:
    """The names of the operations of a program, those inside others too."""
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    return names.union(*(primitives(sub) for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params)))


def _chunks(stream: Iterator[Any], num_steps: int, steps_per_call: int, report_every: int) -> Iterator[list[Any]]:
    """Batches in the groups that go into one dispatch; no group crosses a report."""
    done = 0
    while done < num_steps:
        size = min(steps_per_call, report_every - done % report_every, num_steps - done)
        chunk = list(itertools.islice(stream, size))
        if not chunk:
            return
        yield chunk
        done += len(chunk)


def _stack(chunk: list[Any]) -> Any:
    def stack(*leaves: Any) -> Any:
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise ValueError(f"fit: expected batches of one shape, got {' and '.join(map(str, sorted(shapes)))}")
        return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)

    return jax.tree.map(stack, *chunk)


def _means(seen: list[dict[str, jax.Array]]) -> Row:
    fetched = jax.device_get(seen)
    wide = {name: [np.atleast_1d(metrics[name]).astype(np.float64) for metrics in fetched] for name in fetched[0]}
    return {name: float(np.concatenate(values).mean()) for name, values in wide.items()}
