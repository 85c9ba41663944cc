"""A chain as the tree of calls that made it: arguments by name, and the chain made again with others."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._call import Call, Recorded
from .._names import numbered
from ._link import Link

Number = Callable[[str, Any], Any]
Seen = Callable[[str, Any], None]


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a constructor takes, by name."""
    return inspect.signature(function).parameters


def arguments_of(call: Call, *, defaults: bool) -> dict[str, Any]:
    """A call's arguments by parameter; those of a variadic one as a tuple or a dict."""
    bound = inspect.signature(call.function).bind(*call.args, **call.kwargs)
    if defaults:
        bound.apply_defaults()
    return dict(bound.arguments)


def call_with(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The inverse: calls a constructor with arguments by parameter."""
    bound = inspect.BoundArguments(inspect.signature(function), cast(Any, dict(arguments)))
    return function(*bound.args, **bound.kwargs)


def kinds(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The types that an annotation allows, unions taken apart; empty where nothing is known."""
    hint = parameter.annotation
    if hint is parameter.empty or isinstance(hint, str | typing.TypeVar):
        return ()
    return tuple(_kinds(hint))


def takes_schedule(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is a number or a function of the step."""
    return optax.Schedule in kinds(parameter)


def is_number(value: Any) -> bool:
    """Whether an argument is a float, or an array that is one; integers and bools are not."""
    if isinstance(value, np.ndarray | jax.Array):
        return value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, float | np.floating)


def remade(value: Recorded, number: Number, seen: Seen) -> Any:
    """A recorded link, made again with other numbers.

    Paths name links by their constructor, numbered as `chain` numbers them, or by the name that they were given. A
    chain adds no name, but in another chain; arguments have the name of their parameter, items of a sequence their
    index.

    Args:
      value: the link.
      number: `number(path, value) -> value`, for every float.
      seen: `seen(path, schedule)`, for every schedule that a link is given, made again too.
    """
    prefix = "" if _is_chain(value) else cast(Call, value.call).name
    return _remade(value, prefix, number, seen)


def _remade(value: Recorded, prefix: str, number: Number, seen: Seen) -> Any:
    call = cast(Call, value.call)
    taken: dict[str, None] = {}

    def under(name: str) -> str:
        taken[name := numbered(name, taken)] = None
        return f"{prefix}/{name}" if prefix else name

    def changed(item: Any, name: str, *, named: bool) -> Any:
        items: Any = item
        if isinstance(item, Link) and item.call:
            transparent = not named and _is_chain(item) and not _is_chain(value)
            path = prefix if transparent else under(name if named else item.call.name)
            return _remade(item, path, number, seen)
        if isinstance(item, Recorded) and item.call:
            return _remade(item, under(name), number, seen)
        if type(item) in (tuple, list):
            if any(isinstance(each, Link) for each in items):
                return _sequence(item, (changed(each, name, named=False) for each in items))
            return _sequence(item, (changed(each, f"{name}/{index}", named=True) for index, each in enumerate(items)))
        if type(item) is dict:
            links = any(isinstance(each, Link) for each in item.values())
            return {
                key: changed(each, str(key) if links else f"{name}/{key}", named=True) for key, each in item.items()
            }
        return number(under(name), item) if is_number(item) else item

    given, new = arguments_of(call, defaults=True), {}
    for name, item in given.items():
        new[name] = changed(item, name, named=not isinstance(item, Link))
        if isinstance(value, Link) and callable(item) and _is_schedule(item, parameters_of(call.function)[name]):
            seen(f"{prefix}/{name}" if prefix else name, new[name])
    return call_with(call.function, new)


def _sequence(like: Any, items: Iterator[Any]) -> Any:
    return list(items) if isinstance(like, list) else tuple(items)


def _is_schedule(item: Any, parameter: inspect.Parameter) -> bool:
    return (isinstance(item, Recorded) and not isinstance(item, Link)) or takes_schedule(parameter)


def _is_chain(value: Any) -> bool:
    return isinstance(value, Link) and value.call is not None and value.call.name == "chain"


def _kinds(hint: Any) -> Iterator[Any]:
    options = typing.get_args(hint)
    if options and (typing.get_origin(hint) is typing.Literal or _is_union(hint)):
        for option in options:
            yield from _kinds(option) if _is_union(hint) else [option]
    else:
        yield hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
