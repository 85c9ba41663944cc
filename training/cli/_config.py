"""TOML into frozen dataclasses, and back: what does not fit is refused by its dotted path."""

import copy
import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

Config = TypeVar("Config")

FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127


class ConfigError(ValueError):
    """A config, or a command line, that cannot be run; the message says where and what was expected."""


class Range(NamedTuple):
    """The numbers that a field allows, or the lengths of a list, for `typing.Annotated`.

    Attributes:
      low: the smallest.
      high: the largest; where it is infinite, the largest that float32 can hold.
      open_low: whether `low` itself is left out.
      open_high: whether `high` itself is left out.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not abs(value) <= FLOAT32_MAX:  # NaN is not above it either
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'of at least'} {self.low}"
        return f"in {'(' if self.open_low else '['}{self.low}, {self.high}{')' if self.open_high else ']'}"


@dataclasses.dataclass(frozen=True)
class Described:
    """A table that stays as it is, for someone else to read: of a name that none of the dataclasses has.

    Attributes:
      tables: what TOML gave.
    """

    tables: dict[str, Any]


def load(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
      ConfigError: if the file cannot be read or is not TOML, with the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: expected a file that can be read, got '{error.strerror}'") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8, got {error}") from None
    except (ValueError, RecursionError) as error:  # not TOML, or integers too long and lists too deep for Python
        raise ConfigError(f"{path}: expected TOML, got a mistake: {error}") from None


def override(tables: dict[str, Any], assignments: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Tables with some values replaced, each by `dotted.key=value`.

    A value is read as TOML, or as the text itself where it is none. In a list, an index stands for a name.

    Args:
      tables: what TOML gave.
      assignments: what to replace.
      option: which gave them, for messages.

    Raises:
      ConfigError: if an assignment has no key or no `=`, or goes through a value that is no table.

    >>> override({"optim": {"rho": 0.05}}, ["optim.rho=0.1", "optim.name=adam"])
    {'optim': {'rho': 0.1, 'name': 'adam'}}
    """
    tables = copy.deepcopy(tables)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        names = [name.strip() for name in dotted.split(".")]
        if not equals or not all(names):
            raise ConfigError(f"{option} {assignment}: expected key=value, such as optim.rho=0.1")
        table: Any = tables
        for depth in range(len(names) - 1):
            place = _place(table, names, depth, f"{option} {assignment}")
            table = table[place] if isinstance(table, list) else table.setdefault(place, {})
        table[_place(table, names, len(names) - 1, f"{option} {assignment}")] = toml_value(text.strip())
    return tables


def read(kind: type[Config], tables: Any, where: str = "") -> Config:
    """A frozen dataclass from tables.

    Args:
      kind: the dataclass. A field may be true or false, a number (in a `Range`), text, a `Literal`, a tuple (its
        length in a `Range`), a dict of any of these or of `Any`, another dataclass, or one of several dataclasses
        that differ in their `name`; a table without one has that of the field's default. `Described` among them takes
        tables of all other names.
      tables: what TOML gave.
      where: the dotted path of these tables, for messages.
    Raises:
      ConfigError: for the first key that is unknown, missing, of another type or out of range.
    """
    if not isinstance(tables, dict):
        raise ConfigError(f"{where}: expected a table, got {shown(tables)}")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    for name in tables:
        if name not in fields:
            owner = f" of {fields['name'].default}" if "name" in fields else ""
            expected = f"expected a key{owner} ({', '.join(fields)})"
            raise ConfigError(f"{_dotted(where, name)}: {expected}, got {shown(name)}{_meant(name, fields, where)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    values = {
        name: _value(hints[name], _named_as(fields[name].default, value), _dotted(where, name))
        for name, value in tables.items()
    }
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            _value(hints[name], None, _dotted(where, name))  # TOML has no None, so this raises
    return kind(**values)


def write(config: Any, where: str = "") -> str:
    """A dataclass as TOML that `read` takes; fields that are None are left out.

    Args:
      config: the dataclass, or a dict of some.
      where: the dotted path of its table.
    """
    values = config if isinstance(config, dict) else config.tables if isinstance(config, Described) else vars(config)
    plain = {name: value for name, value in values.items() if not _is_table(value) and value is not None}
    lines = [f"{_toml_name(name)} = {write_value(value)}" for name, value in plain.items()]
    for name, value in values.items():
        if _is_table(value):
            path = _dotted(where, _toml_name(name))
            lines += ["", f"[{path}]", write(value, path).rstrip()]
    return "\n".join(lines) + "\n"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like a mistaken one, if one is; capitals are taken for small letters."""
    by_lower = {each.lower(): each for each in known}
    return next((by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=1)), None)


def _place(table: Any, names: Sequence[str], depth: int, assignment: str) -> Any:
    """A name in a table, or an index of a list."""
    name, outer = names[depth], ".".join(names[:depth])
    if isinstance(table, dict):
        return name
    if not isinstance(table, list):
        raise ConfigError(f"{assignment}: expected {outer} to be a table, got {shown(table)}")
    if not (name.isdecimal() and int(name) < len(table)):
        raise ConfigError(f"{assignment}: expected an index below {len(table)} of the list {outer}, got {name}")
    return int(name)


def _value(hint: Any, value: Any, where: str) -> Any:
    allowed: Any = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, allowed = typing.get_args(hint)
    origin, options = typing.get_origin(hint), [each for each in typing.get_args(hint) if each is not type(None)]
    if origin is Literal:
        return _choice(options, value, where)
    if origin is tuple:
        return _items(options[0], allowed or Range(1), value, where)
    if origin is dict:
        return _entries(options[1], value, where)
    if origin in (types.UnionType, typing.Union):
        return _value(options[0], value, where) if len(options) == 1 else _one_of(options, value, where)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(Any, hint), value, where)
    fits = isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
    if not fits or (allowed is not None and value not in allowed):
        raise ConfigError(f"{where}: expected {_kind(hint, allowed)}, got {shown(value)}")
    return float(value) if hint is float else value


def _choice(options: Sequence[str | int], value: Any, where: str) -> Any:
    """One of some names or integers."""
    if type(value) in map(type, options) and value in options:
        return value
    names = [str(option) for option in options]
    hint = _meant(value, names) if isinstance(value, str) else ""
    raise ConfigError(f"{where}: expected one of {', '.join(names)}, got {shown(value)}{hint}")


def _items(hint: Any, lengths: Range, value: Any, where: str) -> tuple[Any, ...]:
    """The items of a list."""
    if not isinstance(value, list) or len(value) not in lengths:
        expected = f"expected a list with a length {lengths}, each item {_kind(hint)}"
        raise ConfigError(f"{where}: {expected}, got {shown(value)}")
    return tuple(_value(hint, item, f"{where}[{index}]") for index, item in enumerate(value))


def _entries(hint: Any, value: Any, where: str) -> dict[str, Any]:
    """The entries of a table whose names are the config's own."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a table, got {shown(value)}")
    return value if hint is Any else {name: _value(hint, item, _dotted(where, name)) for name, item in value.items()}


def _named_as(default: Any, value: Any) -> Any:
    """A table with the name of the default where it has none itself."""
    named = isinstance(value, dict) and "name" not in value and hasattr(default, "name")
    return {"name": default.name} | value if named else value


def _one_of(kinds: list[Any], value: Any, where: str) -> Any:
    """The dataclass whose `name` the table gives."""
    by_name: dict[Any, Any] = {
        next(f.default for f in dataclasses.fields(kind) if f.name == "name"): kind
        for kind in kinds
        if kind is not Described
    }
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a table, its name one of {', '.join(by_name)}, got {shown(value)}")
    name = value.get("name")
    if Described in kinds and isinstance(name, str) and name.lower() not in by_name:
        return Described(value)
    name = _choice(list(by_name), name, _dotted(where, "name"))
    return read(by_name[name], value, where)


def _kind(hint: Any, allowed: Range | None = None) -> str:
    if typing.get_origin(hint) is typing.Annotated:
        return _kind(*typing.get_args(hint))
    kind = {int: "an integer", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))
    if allowed is None:
        return kind
    return f"{kind} {allowed}{' and finite' if hint is float and allowed.high == math.inf else ''}"


def _meant(name: str, known: Iterable[str], where: str = "") -> str:
    guess = nearest(name, known)
    return f". Did you mean {_dotted(where, guess)}?" if guess else ""


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _is_table(value: Any) -> bool:
    """Whether a value is written as a table of its own."""
    holds = isinstance(value, dict) and any(map(dataclasses.is_dataclass, value.values()))
    return holds or dataclasses.is_dataclass(value)


def toml_value(text: str) -> Any:
    """A value from TOML, or the text itself where it is none."""
    try:
        tables = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return tables["value"] if len(tables) == 1 else text  # text with a line break may assign to another key


def write_value(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml_name(name)} = {write_value(item)}' for name, item in value.items())}}}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _toml_name(name: str) -> str:
    bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if bare else json.dumps(name, ensure_ascii=False)


def shown(value: Any) -> str:
    """A value as TOML has it, at most a line of it."""
    text = "none" if value is None else write_value(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
