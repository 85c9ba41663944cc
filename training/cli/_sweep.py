"""`renga sweep`: what its command line asks for, and which runs go side by side."""

import dataclasses
import functools
import itertools
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._convolutions import convolves
from .._ensemble import ensemble
from .._state import TrainState
from ._config import ConfigError, Described, override, shown, toml_value, write_value
from ._kinds import kind_of, read_experiment
from ._members import Members, Together, Values, value_at, with_values

TRACED_TABLES = ("optim", "learner", "method", "attack")
"""Tables whose numbers only a step reads; others shape data and networks."""


class Member(NamedTuple):
    """A run of a sweep.

    Attributes:
      values: of the config, by dotted path, as they were given.
      experiment: the whole config, with its own seed.
    """

    values: dict[str, Any]
    experiment: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Members that differ in arguments of one compiled program.

    Attributes:
      members: the runs.
      shared: the config of the first; the others' but for seeds and what is traced.
      runs: what a member does.
      traced: dotted paths of numbers that are arguments.
    """

    members: list[Member]
    shared: Any
    runs: Members
    traced: tuple[str, ...]

    def begin(self, members: Sequence[Member]) -> TrainState:
        """Their train states as those of an ensemble; state holds values too."""
        values = {path: jnp.array([each.values[path] for each in members], float) for path in self.traced}
        seeds = jnp.array([each.experiment.seed for each in members], jnp.uint32)
        train_states = self._begin(values, seeds)
        return train_states._replace(step=train_states.step[0])

    def step(self, num_members: int) -> Callable[[TrainState, Any], Any]:
        """The step of so many members."""
        return ensemble(self.step_one, num_members, metrics="named")

    def step_one(self, train_state: TrainState, batch: Any) -> Any:
        """The step of one; its values stand in its state."""
        values = train_state.state["values"]
        one_step = self.runs.step(with_values(self.shared, values))
        train_state, metrics = one_step(train_state._replace(state=train_state.state["state"]), batch)
        return train_state._replace(state={"values": values, "state": train_state.state}), metrics

    def feed(self, members: Sequence[Member]) -> Together:
        """The batches of some members."""
        return Together([self.runs.feed(each.experiment) for each in members])

    def default_at_once(self) -> int:
        """All; by themselves where they convolve on a CPU, as `training.sweep` has it."""
        if jax.default_backend() != "cpu":
            return len(self.members)
        train_state, batch = self._shapes()
        found = convolves(jax.make_jaxpr(self.step_one)(train_state, batch).jaxpr)
        return 1 if found else len(self.members)

    def is_traceable(self) -> bool:
        """Whether a step can be made where what is traced is an argument."""
        try:
            train_state, batch = self._shapes()
            jax.eval_shape(self.step_one, train_state, batch)
        except (TypeError, ValueError):  # a ConfigError, and what JAX says of numbers that are none yet
            return False
        return True

    @functools.cached_property
    def _begin(self) -> Callable[[Values, jax.Array], TrainState]:
        return jax.jit(jax.vmap(self._begin_one))

    def _begin_one(self, values: Values, seed: jax.Array) -> TrainState:
        train_state = self.runs.begin(with_values(self.shared, values), jax.random.key(seed))
        return train_state._replace(state={"values": values, "state": train_state.state})

    def _shapes(self) -> tuple[TrainState, Any]:
        values = {path: jax.ShapeDtypeStruct((), jnp.result_type(float)) for path in self.traced}
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        batch = next(iter(self.runs.feed(self.shared).starting_at(0)))
        return jax.eval_shape(self._begin_one, values, seed), batch


def parse_over(words: Sequence[str]) -> dict[str, list[Any]]:
    """`["optim.rho=0.01,0.05"]` as `{"optim.rho": [0.01, 0.05]}`.

    Values are read as the items of a TOML list, or as text between commas where they are none.

    Raises:
      ConfigError: for one without key and values, and for a key that comes twice or has another option.

    >>> parse_over(["optim.rho=0.01, 0.05", "optim.name=adam,sgd", "net.hidden=[8],[8,8]"])
    {'optim.rho': [0.01, 0.05], 'optim.name': ['adam', 'sgd'], 'net.hidden': [[8], [8, 8]]}
    """
    found: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = ".".join(name.strip() for name in key.split("."))
        values = _items(text)
        if not equals or not all(key.split(".")) or not values or "" in values:
            raise ConfigError(f"--over {word}: expected key=values, such as optim.rho=0.01,0.1")
        if key in ("seed", "num_seeds"):
            raise ConfigError(f"--over {word}: expected another key than {key}. --seeds 5 takes five from seed on")
        if key in found:
            raise ConfigError(f"--over {word}: expected each key once, got {key} again")
        if twice := [value for place, value in enumerate(values) if value in values[:place]]:
            raise ConfigError(f"--over {word}: expected different values, got {shown(twice[0])} twice")
        found[key] = values
    return found


def members_of(tables: dict[str, Any], over: dict[str, list[Any]], num_seeds: int, *, where: str) -> list[Member]:
    """All runs, seeds changing fastest; each is the config that `renga train` would make of its values.

    Args:
      tables: of the config.
      over: values by dotted path.
      num_seeds: how many, from the config's on.
      where: the config, for messages.
    Raises:
      ConfigError: for a kind of config that cannot be swept, and for a value that cannot be run, by its dotted path.
    """
    first = read_experiment(tables)
    if kind_of(first).members is None:
        raise ConfigError(
            f"{where}: expected a config of a classifier, a language model, reinforcement learning or meta-learning, "
            f"got one of {kind_of(first).what}. renga train makes its runs"
        )
    if hasattr(first, "num_seeds"):
        tables = tables | {"num_seeds": 1}
    found = []
    for values in itertools.product(*over.values()):
        named = dict(zip(over, values, strict=True))
        assigned = override(tables, [f"{key}={write_value(value)}" for key, value in named.items()], option="--over")
        read_experiment(assigned)
        for seed in range(first.seed, first.seed + num_seeds):
            found.append(Member(named, read_experiment(assigned | {"seed": seed})))
    return found


def programs_of(members: Sequence[Member], over: dict[str, list[Any]]) -> Iterator[Program]:
    """Members by the programs that they need, as few as can be."""
    traced = tuple(path for path in over if _is_number(members, path) and _is_traced(members[0], path))
    shaping = [path for path in over if path not in traced]
    for _, group in itertools.groupby(sorted(members, key=_place(over, shaping)), _place(over, shaping)):
        group = list(group)
        yield _program(group, traced)


def _program(members: list[Member], traced: tuple[str, ...]) -> Program:
    shared = members[0].experiment
    make = kind_of(shared).members
    assert make is not None  # `members_of` refuses such
    return Program(members, shared, make(shared), traced)


def _is_traced(member: Member, path: str) -> bool:
    return _program([member], (path,)).is_traceable()


def _is_number(members: Sequence[Member], path: str) -> bool:
    """Whether a key is a number, where a step reads it, in every member; fields of integers are none."""
    found = [value_at(each.experiment, path) for each in members]
    is_described = isinstance(value_at(members[0].experiment, path.split(".")[0]), Described)
    kinds = (int, float) if is_described else float
    return path.split(".")[0] in TRACED_TABLES and all(
        type(each) is not bool and isinstance(each, kinds) for each in found
    )


def _place(over: dict[str, list[Any]], paths: Sequence[str]) -> Callable[[Member], tuple[int, ...]]:
    return lambda member: tuple(over[path].index(member.values[path]) for path in paths)


def _items(text: str) -> list[Any]:
    try:
        tables = tomllib.loads(f"values = [{text}]")
        return tables["values"] if len(tables) == 1 else [text]
    except (ValueError, RecursionError):
        return [toml_value(item.strip()) for item in text.split(",")]
