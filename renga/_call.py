"""Recorded calls: values that print, compare, hash and pickle as the call that made them.

A network, a link, a schedule and a step are closures: two built alike are two objects, and `jax.jit`
compiles once for each. A `Recorded` value keeps the call that made it, and *is* that call to anyone who
prints, compares or pickles it.
"""

import functools
import importlib
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Function = TypeVar("Function", bound=Callable[..., Any])


class Call:
    """A call of `function` with `arguments`; those that equal the function's defaults are left out.

    Args:
      function: the function as its users name it, found again by `home` and its qualified name.
      args: the positional arguments.
      kwargs: the keyword arguments.
      home: the module in which `function` is to be found; the one that defines it, unless given.

    Attributes:
      site: the file and line of the first caller outside this library and JAX; no part of what calls are compared by.
    """

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: dict, home: str | None = None):
        self.function = function
        self.site = _site()
        self.home = home or function.__module__
        self.args, self.kwargs = _canonical(inspect.signature(function), args, kwargs)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @functools.cached_property
    def key(self) -> tuple:
        """What equal calls have in common: hashable."""
        return (same(self.function), same(self.args), same(self.kwargs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        shown = [show(value) for value in self.args]
        shown += [f"{name}={show(value)}" for name, value in self.kwargs.items()]
        return f"{self.name}({', '.join(shown)})"

    def __reduce__(self) -> tuple:
        return _call_again, self.recipe()

    def recipe(self) -> tuple[str, str, tuple, dict]:
        """The call as plain data, for pickle.

        Raises:
          pickle.PicklingError: if the function cannot be found again by its name.
        """
        name = self.function.__qualname__
        if "<locals>" in name:
            raise pickle.PicklingError(
                f"{self!r}: expected a function at the top level of a module, got {self.home}:{name}. "
                "Move it out of the function that defines it."
            )
        return self.home, name, _by_name(self.args), _by_name(self.kwargs)


class Recorded:
    """A value that is the call that made it, or only itself where no call is known."""

    __slots__ = ()
    call: Call | None

    def __repr__(self) -> str:
        return super().__repr__() if self.call is None else repr(self.call)

    def __eq__(self, other: object) -> bool:
        if self.call is None or type(self) is not type(other):
            return self is other
        return self.call == cast(Recorded, other).call

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self) if self.call is None else hash(self.call)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __reduce__(self) -> Any:
        if self.call is None:
            raise pickle.PicklingError(f"{self!r}: expected a value made by a recorded call, got one without.")
        return _call_again, self.call.recipe()


class RecordedFunction(Recorded):
    """A function that is the call that made it: a schedule, an initializer, a training step."""

    def __init__(self, function: Callable[..., Any], call: Call):
        self.function = function
        self.call = call
        self.__name__ = call.name
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self.function(*args, **kwargs)


def recording(
    constructor: Function, wrap: Callable[[Any, Call], Any] = RecordedFunction, home: str | None = None
) -> Function:
    """Makes a constructor whose results know the call that made them.

    Args:
      constructor: a function that returns a value.
      wrap: `wrap(value, call) -> recorded value`; a `RecordedFunction` unless given.
      home: the module in which the returned constructor is to be found.
    Returns:
      A function with the constructor's signature and docstring.
    """

    @functools.wraps(constructor)
    def construct(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _settled(args), _settled(kwargs)
        return wrap(constructor(*args, **kwargs), Call(construct, args, kwargs, home))

    return cast(Function, construct)


def _settled(value: Any, copies: dict[int, Any] | None = None) -> Any:
    """An argument that no caller can change later: lists and dicts are copied; NumPy's integers become Python's."""
    copies = {} if copies is None else copies
    if id(value) in copies:
        return copies[id(value)]
    if type(value) is tuple:
        return tuple(_settled(item, copies) for item in value)
    if type(value) is list:
        copy = copies[id(value)] = []
        copy.extend(_settled(item, copies) for item in value)
        return copy
    if type(value) is dict:
        copy = copies[id(value)] = {}
        copy.update((name, _settled(item, copies)) for name, item in value.items())
        return copy
    return int(value) if isinstance(value, np.integer) else value


def same(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A hashable stand-in, equal for values that were built alike.

    Arrays compare by value, containers by content. Functions compare by identity, but closures made twice
    by the same line of code compare by what they close over: so `normal(0.1)` equals `normal(0.1)`.
    """
    if id(value) in within:  # a closure or a list that holds itself
        return ("itself", within.index(id(value)))
    within = (*within, id(value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *(same(item, within) for item in value))
    if isinstance(value, dict):
        return ("dict", *((name, same(item, within)) for name, item in value.items()))
    if isinstance(value, Tracer):
        return _Itself(value)
    if isinstance(value, np.ndarray | jax.Array):
        return _same_array(value)
    if (dtype := _dtype_name(value)) is not None:
        return ("dtype", dtype)
    if isinstance(value, functools.partial):
        return ("partial", same((value.func, value.args, value.keywords), within))
    if inspect.ismethod(value):
        return ("method", same((value.__self__, value.__func__), within))
    if inspect.isfunction(value):
        return _same_function(value, within)
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return (type(value).__name__, value)


def show(value: Any) -> str:
    """A value as it stands in a printed call: functions by name, arrays by shape."""
    if isinstance(value, Recorded):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(show, value))}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return "{" + ", ".join(f"{name!r}: {show(item)}" for name, item in value.items()) + "}"
    if isinstance(value, np.ndarray | jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return f"{value.dtype}{list(value.shape)}"
        return repr(value) if value.ndim else repr(value.item()) if not isinstance(value, Tracer) else str(value)
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else repr(value)


def _canonical(signature: inspect.Signature, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Required arguments by position, those that differ from their default by name."""
    bound = signature.bind(*args, **kwargs)
    positional, named = [], {}
    variadic = any(p.kind is p.VAR_POSITIONAL and bound.arguments.get(p.name) for p in signature.parameters.values())
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(bound.arguments.get(name, ()))
        elif parameter.kind is parameter.VAR_KEYWORD:
            named.update(bound.arguments.get(name, {}))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) and (
            parameter.default is parameter.empty or variadic
        ):
            positional.append(bound.arguments.get(name, parameter.default))
        elif name in bound.arguments and same(bound.arguments[name]) != same(parameter.default):
            named[name] = bound.arguments[name]
    return tuple(positional), named


def find(module: str, name: str) -> Any:
    """What stands in a module under a dotted name; None if nothing does."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _call_again(home: str, name: str, args: tuple, kwargs: dict) -> Any:
    return find(home, name)(*args, **kwargs)


def _site() -> str:
    """The file and line of the innermost caller outside this library and JAX, which may be running a body."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_INSIDE = ("renga", "jax", "contextlib", "functools")


class _Name:
    """A function that pickles as the place where it is found: `jax.nn.relu` does not by itself."""

    def __init__(self, function: Any):
        self.place = (function.__module__, function.__qualname__)

    def __reduce__(self) -> tuple:
        return find, self.place


def _by_name(value: Any) -> Any:
    """Functions that are found by their name, replaced by it, in a value's containers too."""
    if type(value) in (list, tuple):
        return type(value)(map(_by_name, value))
    if type(value) is dict:
        return {name: _by_name(item) for name, item in value.items()}
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and callable(value) and find(module, name) is value:
        return _Name(value)
    return value


def _dtype_name(value: Any) -> str | None:
    """The name of a dtype, however it is given: `"float32"`, `jnp.float32` or `jnp.dtype("float32")`."""
    if isinstance(value, str):
        return value if value in _DTYPES else None
    if isinstance(value, type):
        value = np.dtype(value) if issubclass(value, np.generic) else getattr(value, "dtype", None)
    return value.name if isinstance(value, np.dtype) and value.name in _DTYPES else None


_DTYPES = frozenset({"bool", "bfloat16", "float16", "float32", "float64", "complex64", "complex128"}) | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


def _same_array(value: Any) -> Any:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ("key", str(value.dtype), _same_array(jax.random.key_data(value)))
    return ("array", value.shape, str(value.dtype), np.asarray(value).tobytes())


def _same_function(function: Any, within: tuple[int, ...]) -> Any:
    if "<locals>" not in function.__qualname__:
        return _Itself(function)
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a name that is not bound yet
        return _Itself(function)
    held = (cells, function.__defaults__, function.__kwdefaults__)
    return ("function", _Itself(function.__code__), same(held, within))


class _Itself:
    """Equal to nothing but a stand-in for the same object."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
