"""Chains in plain words: nested dicts of text and numbers, as TOML and JSON have them, and back."""

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import numpy as np
import optax

from .._call import Recorded, show
from .._patterns import listed
from ._link import Link
from ._recorded import arguments_of, call_with, kinds, parameters_of, takes_schedule

Constructors = Mapping[str, Callable[..., Any]]
Config = dict[str, Any]

_LENGTHS = ("decay_steps", "transition_steps")


def to_config(tx: optax.GradientTransformation) -> Config:
    """A chain as nested dicts that TOML and JSON can hold.

    Args:
      tx: a link that is the call that made it.
    Returns:
      `{"name": constructor, argument: value, ...}`, without arguments that have their default. The links of a chain
      are a list, `links`, and a dict, `named_links`.
    Raises:
      TypeError: for an argument that cannot be said, such as a function, an array or a key, with its place.

    >>> to_config(chain(sam(0.05), base=sgd(0.1)))["links"]
    [{'name': 'sam', 'rho': 0.05}]
    >>> from_config(to_config(chain(sam(0.05), base=sgd(0.1))))
    chain(sam(0.05), base=sgd(0.1))
    """
    if not isinstance(tx, Link) or tx.call is None:
        raise TypeError(f"to_config: expected a link that is the call that made it, such as optim.adam(1e-3), got {tx}")
    return _call_said(tx, tx.call.name)


def from_config(
    config: Mapping[str, Any],
    *,
    known: Constructors | None = None,
    num_steps: int | None = None,
    where: str = "config",
) -> Link:
    """A chain from nested dicts; the inverse of `to_config`.

    Integers that stand for a float become one, and lists where a constructor has a tuple by default. A number may be an
    array, traced too: so one compiled program can train by many.

    Args:
      config: `{"name": constructor, argument: value, ...}`; the name is that of a link of `optim`. Schedules, where
        a number may be one, are described alike: `{"name": "cosine_decay_schedule", "init_value": 0.1, ...}`.
      known: constructors of your own by name.
      num_steps: length of the run. A schedule whose description leaves out its `decay_steps` or `transition_steps`,
        although it needs them, lasts so long; in `accumulate`, so many windows, and in links that step their base
        twice, so many pairs.
      where: what the description is called in errors.
    Returns:
      A link.
    Raises:
      ValueError: for a name or an argument that there is not, one that is missing, of another kind or refused by the
        constructor, with its dotted path.

    >>> from_config({"name": "sgd", "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1}}, num_steps=9)
    sgd(cosine_decay_schedule(0.1, 9))
    """
    made = _Reader({**_constructors(), **(known or {})}, num_steps).call(config, where)
    if not isinstance(made, Link):
        raise ValueError(f"{where}: expected a link such as adam, got the schedule {config['name']}")
    return made


class _Reader:
    """What descriptions are read with: constructors by name, and the length of the run."""

    def __init__(self, known: Constructors, num_steps: int | None):
        self.known, self.num_steps = known, num_steps

    def call(self, config: Any, where: str) -> Any:
        """What a description describes."""
        if not isinstance(config, Mapping) or not isinstance(name := config.get("name"), str):
            raise ValueError(f"{where}: expected a table with a name, such as adam, got {config!r}")
        if name not in self.known:
            raise ValueError(
                f"{where}.name: expected the name of a link or a schedule, got {name!r}. {listed(self.known, name)}"
            )
        function = self.known[name]
        parameters = parameters_of(function)
        given = self._arguments(name, config, parameters)
        for argument in given:
            if argument not in parameters:
                raise ValueError(f"{where}.{argument}: expected an argument of {name}. {listed(parameters, argument)}")
        inner = _Reader(self.known, _steps_inside(name, given, self.num_steps))
        values = {
            argument: inner.value(value, parameters[argument], f"{where}.{argument}")
            for argument, value in given.items()
        }
        for argument, parameter in parameters.items():
            if argument not in values and parameter.default is parameter.empty and not _is_variadic(parameter):
                raise ValueError(f"{where}: expected {argument}, which {name} needs, got none")
        try:
            return call_with(function, values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error

    def _arguments(self, name: str, config: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
        given = {argument: value for argument, value in config.items() if argument != "name"}
        if self.num_steps is not None:
            for length in _LENGTHS:
                if length in parameters and parameters[length].default is inspect.Parameter.empty:
                    given.setdefault(length, self.num_steps)
        return given

    def value(self, value: Any, parameter: inspect.Parameter, where: str) -> Any:
        """An argument, of a kind that its annotation allows."""
        if parameter.kind is parameter.VAR_POSITIONAL:
            if not isinstance(value, list | tuple):
                raise ValueError(f"{where}: expected a list, got {value!r}")
            return tuple(self._plain(item, f"{where}[{index}]") for index, item in enumerate(value))
        if parameter.kind is parameter.VAR_KEYWORD:
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}: expected a table, got {value!r}")
            return {name: self._plain(item, f"{where}.{name}") for name, item in value.items()}
        value, allowed = self._plain(value, where), kinds(parameter)
        if not _fits(value, parameter, allowed):
            raise ValueError(f"{where}: expected {_words(parameter, allowed)}, got {value!r}")
        if type(value) is int and allowed and int not in allowed and float in allowed:
            return float(value)
        if isinstance(value, list) and (isinstance(parameter.default, tuple) or _holds(allowed, tuple)):
            return tuple(value)
        if type(value) is dict and any(_has_integer_names(kind) for kind in allowed):
            return {_integer(name, where): item for name, item in value.items()}
        return value

    def _plain(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return self.call(value, where)
        if isinstance(value, Mapping):
            return {name: self._plain(item, f"{where}.{name}") for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if not isinstance(value, str | bool | int | float | jax.Array):
            raise ValueError(f"{where}: expected text, a number, true or false, a list or a table, got {value!r}")
        return value


def _steps_inside(name: str, given: Mapping[str, Any], num_steps: int | None) -> int | None:
    """How often a link updates the one that it holds, in so many steps of its own."""
    if num_steps is None:
        return None
    if name in ("extragradient_plus", "anchored") or (name == "extragradient" and given.get("moments") != "second"):
        return 2 * num_steps
    every = given.get("every") if name == "accumulate" else 1
    return max(num_steps // every, 1) if isinstance(every, int) and every > 0 else num_steps


def _constructors() -> dict[str, Callable[..., Any]]:
    """The public functions of `optim` that record their calls: links and schedules."""
    public = vars(importlib.import_module(cast(str, __package__)))
    return {name: item for name, item in public.items() if inspect.isfunction(item) and hasattr(item, "__wrapped__")}


def _call_said(value: Recorded, where: str) -> Config:
    call = value.call
    if call is None:
        raise TypeError(
            f"to_config: {where}: expected a link of optim, such as optim.adam, got one of Optax: {value!r}"
        )
    config: Config = {"name": call.name}
    for name, item in arguments_of(call, defaults=False).items():
        parameter = parameters_of(call.function)[name]
        if (_is_variadic(parameter) and not item) or (item is None and parameter.default is None):
            continue
        if type(item) is dict and any(map(_has_integer_names, kinds(parameter))):
            item = {str(each): value for each, value in item.items()}
        config[name] = _said(item, f"{where}.{name}")
    return config


def _said(value: Any, where: str) -> Any:
    if isinstance(value, Recorded):
        return _call_said(value, where)
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value)
    if type(value) in (list, tuple):
        return [_said(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if type(value) is dict and all(isinstance(name, str) for name in value) and not isinstance(value.get("name"), str):
        return {name: _said(item, f"{where}.{name}") for name, item in value.items()}
    if (dtype := _dtype_name(value)) is not None:
        return dtype
    raise TypeError(
        f"to_config: {where}: expected text, a number, true or false, a list, a table or a link of optim, got "
        f"{show(value)}. Functions, arrays and keys cannot be written down: masks and labels can be patterns of paths, "
        "keys integers, and Optax's links those of optim."
    )


def _dtype_name(value: Any) -> str | None:
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    return (
        value.dtype.name
        if isinstance(getattr(value, "dtype", None), np.dtype) and not hasattr(value, "shape")
        else None
    )


def _is_variadic(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _fits(value: Any, parameter: inspect.Parameter, allowed: tuple[Any, ...]) -> bool:
    """Whether an annotation allows a value; lists, tables and annotations that say little are let through."""
    if not allowed or Any in allowed or isinstance(value, list | dict):
        return True
    if isinstance(value, Link):
        return any(isinstance(kind, type) and issubclass(kind, optax.GradientTransformation) for kind in allowed)
    if isinstance(value, Recorded):
        return takes_schedule(parameter)
    if isinstance(value, jax.Array):
        return float in allowed and int not in allowed
    if type(value) is int and float in allowed:
        return True
    return type(value) in allowed or value in allowed


def _words(parameter: inspect.Parameter, allowed: tuple[Any, ...]) -> str:
    """The kinds of an annotation as a config has them."""
    names = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
    words = [repr(kind) for kind in allowed if isinstance(kind, str)]
    words += [word for kind, word in names.items() if kind in allowed and not (kind is int and float in allowed)]
    if takes_schedule(parameter):
        words.append("a schedule")
    if any(isinstance(kind, type) and issubclass(kind, optax.GradientTransformation) for kind in allowed):
        words.append("a link")
    return " or ".join(words) or "another kind"


def _holds(allowed: tuple[Any, ...], kind: type) -> bool:
    return any(typing.get_origin(each) is kind for each in allowed)


def _has_integer_names(kind: Any) -> bool:
    return typing.get_origin(kind) is dict and typing.get_args(kind)[0] is int


def _integer(name: str, where: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise ValueError(f"{where}.{name}: expected an integer for a name") from None
