"""The loop: several steps a dispatch, donated buffers, metrics on the device until they are reported."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from ._calls import Calls, Step
from ._checkpoints import Checkpoints
from ._checks import check_count
from ._data import Resumable
from ._interrupts import check_interrupts, check_preemption
from ._keeping import HALF_A_MINUTE, Every, keeping
from ._progress import Progress
from ._reports import Reports
from ._run import Row, check_checkpoints, taken_up
from ._sharding import ShardingRules
from ._spread import layout_of
from ._state import TrainState


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
    stop: Callable[[list[Row]], bool] | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: Every = HALF_A_MINUTE,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
    progress: bool = True,
) -> tuple[TrainState, list[Row]]:
    """Runs a step over batches.

    Steps run `steps_per_call` at a time in one compiled `lax.scan` that reuses the train state's buffers; the
    train state that you gave stays valid. Between reports nothing is fetched from the device. The numbers are the
    same for every `steps_per_call`, up to rounding.

    With `checkpoints`, the run is saved from time to time and at its end, and taken up from the last checkpoint if
    there is one: the same program, run again after whatever stopped it, makes the steps that are left, and ends with
    the very numbers and the history of a run that nothing stopped, however often either was saved. Ctrl-C and SIGTERM
    then wait for the end of a call of steps, or of a batch of `training.evaluate`, and the run is saved before they are
    answered; a second one does not wait.

    With a `mesh`, the train state is laid out over its devices as the `rules` say and stays so, and every batch is
    dealt out to them; the step is the same, and so are the numbers, up to rounding. Of several processes each calls
    `fit` with its own rows of every batch, such as `local_batches` picks. The first one prints, and saves, to a
    directory that all see. SIGTERM to any of them stops all after the same call of steps, saved; Ctrl-C, of which the
    others know nothing, saves nothing.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, from `training.step` say. It is compiled once for
        equal steps, over several calls of `fit`.
      train_state: where to start.
      batches: pytrees of arrays, all of one shape. What has a method `starting_at(step)`, as `training.batches` and
        `poisson_batches` have, is taken up at `train_state.step`; anything else from where it stands, and not with
        `checkpoints`.
      num_steps: how many steps to make, those before a checkpoint included; fewer if the batches end before.
      steps_per_call: steps a dispatch. More of them cost memory for as many batches, and hide more of Python. By
        default 10, or 1 where a CPU would be slow at the step inside a loop: see `default_steps_per_call`.
      report_every: steps between reports.
      evaluate: `evaluate(train_state) -> metrics`, called at each report; its metrics join the report's.
      on_report: `on_report(row, train_state)`, called at each report: to log and to save. Copy what you keep of the
        train state, since its buffers are reused.
      stop: `stop(history) -> bool`, asked after each report whether the run ends there, as `early_stop` makes them.
      checkpoints: where to save the run, and to take it up: a directory for this run alone.
      checkpoint_every: steps, or a `datetime.timedelta`, between two checkpoints. It is saved after the call of steps
        in which that falls; steps, where there are several processes. A report that is better than all before, by the
        checkpoints' `best`, is saved besides.
      mesh: devices to train on, of all processes. Its axes may be explicit or automatic; to apply a network to sharded
        parameters outside of the step, as `evaluate` may, take automatic ones.
      rules: how parameters and batches are spread over the mesh; `data_parallel()` unless given.
      progress: whether to print reports, with rate and time left.
    Returns:
      The train state, and the history: a row a report, `{"step": ..., metric: mean since the last report, ...}`.
    Raises:
      ValueError: if a count is below 1, batches differ in shape, a metric is no scalar, or the checkpoints are those of
        another run or network, or their `best` names no metric; if rules do not fit the mesh or the parameters, or
        rows the mesh.
      TypeError: if there are checkpoints, and the batches cannot be taken up at a step.
      CheckpointError: if a checkpoint could not be written, or all are damaged.
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
    check_checkpoints(checkpoints, checkpoint_every, batches, mesh)
    layout = layout_of(train_state, mesh, rules)
    if layout is not None:
        train_state = layout.put(train_state)
    run = taken_up(train_state, checkpoints, num_steps)
    stream = batches.starting_at(run.step) if isinstance(batches, Resumable) else iter(batches)
    first = None if run.done == num_steps else next(stream, None)
    progress = progress and jax.process_index() == 0
    if progress and run.done:
        print(f"taken up at step {run.step}", flush=True)
    shown = Progress(run.step, run.start + num_steps) if progress and (first is not None or run.seen) else None

    calls, num_processes = Calls(step, layout), jax.process_count()
    leads = lambda: checkpoints is not None and run.leads(checkpoints.best)  # noqa: E731
    reports = Reports(run, num_steps, report_every, evaluate, on_report, stop, shown)
    try:
        with keeping(checkpoints, checkpoint_every, run.place, begin=run.step, saved=run.saved, leads=leads) as offer:
            reports.make_if_due()  # of a run that was stopped just before one
            if first is not None and not reports.have_ended:
                size = steps_per_call or calls.default_size(run.train_state, first)
                chunks = _chunks(itertools.chain([first], stream), run.done, num_steps, size, report_every)
                for num_calls, chunk in enumerate(chunks, 1):
                    calls.make(run, chunk)
                    check_interrupts()
                    if num_processes > 1:
                        check_preemption(num_calls)
                    reported = reports.make_if_due()
                    offer(run.step)
                    if reported and reports.have_ended:
                        break
            if run.seen:  # the batches ended between two reports
                reports.make()
    finally:
        if shown:
            shown.close()
    return run.train_state, run.history


def _chunks(
    stream: Iterator[Any], done: int, num_steps: int, steps_per_call: int, report_every: int
) -> Iterator[list[Any]]:
    """Batches in the groups that go into one dispatch; no group crosses a report."""
    if steps_per_call == 1:
        yield from ([batch] for batch in itertools.islice(stream, num_steps - done))
        return
    while done < num_steps:
        size = min(steps_per_call, report_every - done % report_every, num_steps - done)
        chunk = list(itertools.islice(stream, size))
        if not chunk:
            return
        yield chunk
        done += len(chunk)
