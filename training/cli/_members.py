"""What a kind of experiment is to a sweep: a beginning and a step that take numbers of the config as arrays."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._data import batches
from .._evaluate import evaluate
from .._evaluate_tasks import evaluate_tasks
from .._state import TrainState, init
from .._step import step
from ._config import Described
from ._experiment import Experiment, chain_from, chain_of, net_of
from ._learner import NoBatches
from ._meta import MetaExperiment
from ._meta_run import regression
from ._rl import RlExperiment
from ._rl_run import check_numpyro, evaluated
from ._task import Losses

Values = dict[str, Any]


class Members(NamedTuple):
    """Runs of one program: an experiment whose seed, and some of whose numbers, are arguments.

    Attributes:
      begin: `(experiment, key) -> TrainState`; numbers of the experiment may be tracers, the key is its seed's.
      step: `experiment -> step`, likewise.
      feed: `experiment -> batches` of a member, numbers being numbers.
      test: `(experiment, train_state) -> metrics` of a member that has ended, likewise.
      num_steps: of a run.
      report_every: steps that a row of its metrics is the mean of.
    """

    begin: Callable[[Any, jax.Array], TrainState]
    step: Callable[[Any], Callable[[TrainState, Any], Any]]
    feed: Callable[[Any], Any]
    test: Callable[[Any, TrainState], dict[str, float]]
    num_steps: int
    report_every: int


def supervised_members(shared: Experiment) -> Members:
    """Those of a classifier or a language model, each on the data and in the order of its seed.

    Raises:
      ConfigError: if the data are missing, or do not suffice.
    """
    losses, splits, feeds = Losses(net_of(shared), shared.data), {}, {}
    metrics_fn, size = losses.metrics, shared.data.test_batch_size

    def split(experiment: Experiment) -> Any:
        seed, task = experiment.seed, losses.task
        if seed not in splits:
            splits[seed] = task.split(task.load(seed, shared.train.batch_size), seed)
        return splits[seed]

    def begin(experiment: Experiment, key: jax.Array) -> TrainState:
        params, state = losses.init(jax.random.fold_in(key, 1))
        return init(params, chain_of(experiment), state=state, key=jax.random.fold_in(key, 3))

    def one_step(experiment: Experiment) -> Any:
        loss_fn = losses.loss if experiment.attack is None else experiment.attack.loss(losses.loss)
        return step(loss_fn, chain_of(experiment), stateful=True)

    def feed(experiment: Experiment) -> Any:
        seed = experiment.seed
        if seed not in feeds:
            key = jax.random.fold_in(jax.random.key(seed), 2)
            feeds[seed] = batches(split(experiment).train, shared.train.batch_size, key=key)
        return feeds[seed]

    def test(experiment: Experiment, train_state: TrainState) -> dict[str, float]:
        data = split(experiment).test
        return evaluate(metrics_fn, train_state.params, train_state.state, data=data, batch_size=size)

    shared.data.load(shared.seed, shared.train.batch_size)  # which refuses what cannot be run
    return Members(begin, one_step, feed, test, shared.train.num_steps, shared.train.report_every)


def rl_members(shared: RlExperiment) -> Members:
    """Those of reinforcement learning.

    Raises:
      ConfigError: without NumPyro.
    """
    check_numpyro()
    nothing = NoBatches()

    def begin(experiment: RlExperiment, key: jax.Array) -> TrainState:
        return experiment.build()[1].begin(key)

    def test(experiment: RlExperiment, train_state: TrainState) -> dict[str, float]:
        env, learner = experiment.build()
        return {"test_return": float(jnp.mean(evaluated(experiment, env, learner, train_state.params).returns))}

    train = shared.train
    return Members(
        begin, lambda experiment: experiment.build()[1].step, lambda experiment: nothing, test,
        train.num_updates, train.report_every,
    )  # fmt: skip


def meta_members(shared: MetaExperiment) -> Members:
    """Those of meta-learning, each a run of one seed; tasks are drawn with the key of the train state."""
    net, train = shared.net.build(shared.data.num_outputs), shared.train
    loss_fn, last = regression(net), min(max(shared.method.inner_steps, 1), shared.test.inner_steps)
    nothing = NoBatches()

    def chain(experiment: MetaExperiment) -> Any:
        return chain_from(experiment.optim, experiment.train.num_steps)

    def begin(experiment: MetaExperiment, key: jax.Array) -> TrainState:
        params = net.init(jax.random.fold_in(key, 0), experiment.data.example["x"])
        return init(experiment.method.learnt(params), chain(experiment), key=jax.random.fold_in(key, 1))

    def one_step(experiment: MetaExperiment) -> Any:
        update, sample = step(experiment.method.loss(loss_fn), chain(experiment)), shared.method.sampler(shared.data)

        def on_new_tasks(train_state: TrainState, batch: Any) -> Any:
            order = train_state.key
            assert order is not None  # from `begin`
            tasks = sample(jax.random.fold_in(order, train_state.step), train.num_tasks)
            train_state, metrics = update(train_state._replace(key=None), tasks)
            return train_state._replace(key=order), metrics

        return on_new_tasks

    def test(experiment: MetaExperiment, train_state: TrainState) -> dict[str, float]:
        method, sample = experiment.method, experiment.data.sampler(experiment.data.shots, experiment.test.grid)
        tasks = sample(jax.random.fold_in(jax.random.key(experiment.seed), 2), experiment.test.num_tasks)
        judge = evaluate_tasks(loss_fn, method.inner, experiment.test.inner_steps, adapted=method.adapted)
        return {"test_loss": float(jax.jit(judge)(train_state.params, tasks).mean["loss"][last])}

    return Members(begin, one_step, lambda experiment: nothing, test, train.num_steps, train.per_report)


class Together:
    """Batches of several members as one, arrays with a leading axis of members.

    Args:
      feeds: of the members; those that are one object are asked once.
    """

    def __init__(self, feeds: Sequence[Any]):
        self._feeds = list({id(feed): feed for feed in feeds}.values())
        places = {id(feed): place for place, feed in enumerate(self._feeds)}
        self._places = np.array([places[id(feed)] for feed in feeds])

    def __iter__(self) -> Iterator[Any]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[Any]:
        """The batches from a step on."""
        for each in zip(*(feed.starting_at(step) for feed in self._feeds), strict=True):
            yield jax.tree.map(lambda *leaves: np.stack(leaves)[self._places], *each)


def with_values(config: Any, values: Values) -> Any:
    """A config with other values at dotted paths."""
    for path, value in values.items():
        config = _with_value(config, path.split("."), value)
    return config


def value_at(config: Any, path: str) -> Any:
    """What a config has at a dotted path; None where it has nothing."""
    for name in path.split("."):
        config = _entry(config, name)
    return config


def _entry(config: Any, name: str) -> Any:
    if isinstance(config, Described):
        config = config.tables
    if isinstance(config, dict):
        return config.get(name)
    if isinstance(config, list):
        return config[int(name)]  # which `override` has checked
    return getattr(config, name, None) if dataclasses.is_dataclass(config) else None


def _with_value(config: Any, names: list[str], value: Any) -> Any:
    if not names:
        return value
    inner = _with_value(_entry(config, names[0]), names[1:], value)
    if isinstance(config, Described):
        return Described(config.tables | {names[0]: inner})
    if isinstance(config, dict):
        return config | {names[0]: inner}
    if isinstance(config, list):
        return [inner if place == int(names[0]) else each for place, each in enumerate(config)]
    return dataclasses.replace(config, **{names[0]: inner})
