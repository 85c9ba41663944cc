"""The kinds of experiments that a config can describe: how each is told, trained, judged, looked at, and swept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ._config import read
from ._experiment import Experiment
from ._game import GameExperiment
from ._game_methods import Grid, Ring
from ._game_run import game_train
from ._gan import GanExperiment
from ._gan_run import gan_train
from ._loaded import supervised_evaluate
from ._members import Members, meta_members, rl_members, supervised_members
from ._meta import MetaExperiment
from ._meta_run import meta_train
from ._methods import Sinusoids
from ._rl import RlExperiment
from ._rl_run import rl_evaluate, rl_train
from ._run import train
from ._task import inputs_of

AnyExperiment = Experiment | GameExperiment | GanExperiment | MetaExperiment | RlExperiment
Networks = dict[str, tuple[Any, Any, dict[str, Any]]]


class Kind(NamedTuple):
    """A kind of experiment.

    Attributes:
      config: the dataclass of its configs.
      what: a config of it, in words.
      is_told: whether tables describe one, by what only its kind has.
      train: `(experiment, directory, title, *, opened)`, a whole run.
      networks: by name, each with what it is given.
      evaluate: what to print of the directory of a run; None where a run is judged when it ends.
      members: what it is to a sweep; None where it compares methods and seeds by itself, or cannot be swept.
    """

    config: type
    what: str
    is_told: Callable[[dict[str, Any]], bool]
    train: Callable[..., Any]
    networks: Callable[[Any], Networks]
    evaluate: Callable[[Any, Path], str] | None = None
    members: Callable[[Any], Members] | None = None


def _data_name(tables: dict[str, Any]) -> Any:
    data = tables.get("data")
    return data.get("name") if isinstance(data, dict) else None


def _players(nets: dict[str, Any], inputs: dict[str, Any]) -> Networks:
    return {player: (net, inputs[player], {}) for player, net in nets.items()}


def _only(experiment: Experiment | MetaExperiment) -> Networks:
    return {"": (experiment.net.build(experiment.data.num_outputs), *inputs_of(experiment.data.example))}


KINDS = (
    Kind(
        GameExperiment,
        "a game",
        lambda tables: "methods" in tables or _data_name(tables) in (Ring.name, Grid.name),
        game_train,
        lambda experiment: _players(experiment.net.build(), experiment.net.inputs),
    ),
    Kind(
        GanExperiment,
        "a GAN",
        lambda tables: "generator" in tables,
        gan_train,
        lambda experiment: _players(experiment.players, experiment.inputs),
    ),
    Kind(
        RlExperiment,
        "reinforcement learning",
        lambda tables: "env" in tables or "learner" in tables,
        rl_train,
        lambda experiment: {name: (net, x, {}) for name, (net, x) in experiment.networks.items()},
        rl_evaluate,
        rl_members,
    ),
    Kind(
        MetaExperiment,
        "meta-learning",
        lambda tables: "method" in tables or _data_name(tables) == Sinusoids.name,
        meta_train,
        _only,
        members=meta_members,
    ),
    Kind(
        Experiment,
        "a classifier or a language model",
        lambda tables: True,
        train,
        _only,
        supervised_evaluate,
        supervised_members,
    ),
)
"""In the order in which they are told."""


def read_experiment(tables: dict[str, Any]) -> AnyExperiment:
    """The config that tables describe, by what only its kind has.

    One with a method, or with sinusoids for data, is one of meta-learning; one with methods, or a mixture of Gaussians
    for data, is a game; one with a generator is a GAN; one with an environment or a learner is reinforcement learning.

    Raises:
      ConfigError: for the first key that is unknown, missing, of another type or out of range.
    """
    return read(next(kind.config for kind in KINDS if kind.is_told(tables)), tables)


def kind_of(experiment: AnyExperiment) -> Kind:
    """What kind a config is of."""
    return next(kind for kind in KINDS if isinstance(experiment, kind.config))
