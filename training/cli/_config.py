"""TOML into frozen dataclasses, and back: what does not fit is refused by its dotted path."""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A config, or a command line, that cannot be run; the message says where and what was expected."""


class Range(NamedTuple):
    """The numbers that a field allows, for `typing.Annotated`.

    Attributes:
      low: the smallest.
      high: the largest.
      open_low: whether `low` itself is left out.
      open_high: whether `high` itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a number {'above' if self.open_low else 'of at least'} {self.low:g}"
        return f"a number in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


def load(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
      ConfigError: if the file cannot be read or is not TOML, with the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a readable text file, got {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got a mistake: {error}") from None


def override(tables: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Tables with some values replaced, each by `dotted.key=value`.

    A value is read as TOML, or as the text itself where it is none.

    Raises:
      ConfigError: if an assignment has no `=`, or goes through a value that is no table.

    >>> override({"optim": {"rho": 0.05}}, ["optim.rho=0.1", "optim.name=adam"])
    {'optim': {'rho': 0.1, 'name': 'adam'}}
    """
    tables = json.loads(json.dumps(tables))
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        *outer, last = dotted.strip().split(".")
        if not equals or not last:
            raise ConfigError(f"--set {assignment}: expected key=value, such as optim.rho=0.1")
        table = tables
        for name in outer:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: expected {name} to be a table, got {table!r}")
        table[last] = _toml_value(text.strip())
    return tables


def read(kind: type[Config], tables: Any, where: str = "") -> Config:
    """A frozen dataclass from tables.

    Args:
      kind: the dataclass. A field may be a number (in a `Range`), text, a `Literal`, a tuple, another dataclass, or
        one of several dataclasses that differ in their `name`.
      tables: what TOML gave.
      where: the dotted path of these tables, for messages.
    Raises:
      ConfigError: for the first key that is unknown, missing, of another type or out of range.
    """
    if not isinstance(tables, dict):
        raise ConfigError(f"{where}: expected a table, got {tables!r}")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    for name in tables:
        if name not in fields:
            raise ConfigError(f"{_dotted(where, name)}: expected a known key, {_nearest(name, list(fields), where)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    values = {name: _value(hints[name], value, _dotted(where, name)) for name, value in tables.items()}
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise ConfigError(f"{_dotted(where, name)}: expected a value, got none")
    return kind(**values)


def write(config: Any) -> str:
    """A dataclass as TOML that `read` takes; fields that are None are left out."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    plain = {name: value for name, value in values.items() if not dataclasses.is_dataclass(value) and value is not None}
    lines = [f"{name} = {_toml_text(value)}" for name, value in plain.items()]
    for name, value in values.items():
        if dataclasses.is_dataclass(value):
            lines += ["", f"[{name}]", write(value).rstrip()]
    return "\n".join(lines) + "\n"


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like a mistaken one, if one is."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _value(hint: Any, value: Any, where: str) -> Any:
    allowed: Any = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, allowed = typing.get_args(hint)
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if typing.get_origin(options[0]) is typing.Annotated or len(options) == 1:
            return _value(options[0], value, where)
        return _one_of(options, value, where)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(Any, hint), value, where)
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"{where}: expected one of {', '.join(options)}, {_nearest(str(value), options, '')}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{where}: expected a list of at least one {_kind(options[0])}, got {value!r}")
        return tuple(_value(options[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    fits = isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
    if not fits:
        raise ConfigError(f"{where}: expected {_kind(hint)}, got {value!r}")
    if allowed is not None and value not in allowed:
        raise ConfigError(f"{where}: expected {allowed}, got {value!r}")
    return float(value) if hint is float else value


def _one_of(kinds: list[Any], value: Any, where: str) -> Any:
    """The dataclass whose `name` the table gives."""
    by_name = {next(f.default for f in dataclasses.fields(kind) if f.name == "name"): kind for kind in kinds}
    if not isinstance(value, dict) or "name" not in value:
        raise ConfigError(f"{_dotted(where, 'name')}: expected one of {', '.join(by_name)}, got none")
    name = value["name"]
    if name not in by_name:
        raise ConfigError(
            f"{_dotted(where, 'name')}: expected one of {', '.join(by_name)}, {_nearest(str(name), list(by_name), '')}"
        )
    return read(by_name[name], value, where)


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return {int: "an integer", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _nearest(name: str, known: list[str], where: str) -> str:
    guess = nearest(name, known)
    hint = f"Did you mean {_dotted(where, guess)}?" if guess else f"Known are {', '.join(known)}."
    return f"got {name!r}. {hint}"


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_text, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, str) else repr(value)
