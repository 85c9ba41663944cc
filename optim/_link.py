"""What a link is: an Optax gradient transformation, and the call that made it."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, cast

import jax
import numpy as np
import optax
from jax.core import Tracer

from .._call import Call, Recorded, recording

Args = ParamSpec("Args")


class Link(Recorded, optax.GradientTransformationExtraArgs):
    """A gradient transformation as a value.

    It is an `optax.GradientTransformationExtraArgs`, so it stands in any Optax chain or wrapper, and Optax's stand
    in ours. It prints, compares, hashes and pickles as the call that made it. Its `update` takes any extra
    keyword argument; a training step passes `value`, `grad`, `value_fn` and `grad_fn`.

    Args:
      init: `init(params) -> state`.
      update: `update(updates, state, params, **extra) -> (updates, state)`.

    >>> link = adam(1e-3)
    >>> link
    adam(0.001)
    >>> link == adam(1e-3), link == adam(1e-2)
    (True, False)
    """

    call: Call | None = None
    returned: "Link | None" = None

    @property
    def evaluates_gradient(self) -> bool:
        """Whether this link, or one that it holds, calls `grad_fn`."""
        return evaluates_gradient(self)

    @property
    def inside(self) -> Iterator["Link"]:
        """This link, all in the call that made it, and all in the link that its constructor returned."""
        yield self
        given = _links((self.call.args, self.call.kwargs) if self.call else ())
        for held in (*given, *_links(self.returned)):
            yield from held.inside

    def holds(self, name: str) -> bool:
        """Whether this link, or one inside, was made by the constructor of that name."""
        return any(each.call is not None and each.call.name == name for each in self.inside)


def link(constructor: Callable[Args, optax.GradientTransformation], home: str | None = None) -> Callable[Args, Link]:
    """Marks a function that returns a gradient transformation: the result is the call that made it.

    Args:
      constructor: a function that returns an `optax.GradientTransformation`, one of Optax's say.
      home: the module where pickle finds the marked function, if not the one that defines it.
    Returns:
      The same function, with the same signature; it returns a `Link`.

    >>> import optax
    >>> @link
    ... def sign_descent(learning_rate: float) -> optax.GradientTransformation:
    ...     return optax.chain(optax.scale_by_sign(), optax.scale(-learning_rate))
    >>> sign_descent(0.1) == sign_descent(learning_rate=0.1)
    True
    """

    def wrap(transformation: Any, call: Call) -> Link:
        if not isinstance(transformation, optax.GradientTransformation):
            raise TypeError(
                f"{call.name}: expected a function marked @link to return an optax.GradientTransformation, "
                f"got {transformation!r}"
            )
        made = Link(*optax.with_extra_args_support(cast(Any, transformation)))
        made.call = call
        made.returned = transformation if isinstance(transformation, Link) else None
        return made

    return cast(Callable[Args, Link], recording(constructor, wrap, home))


def evaluates_gradient(tx: optax.GradientTransformation) -> bool:
    """Whether a transformation, Optax's or a user's too, takes `grad_fn`, or holds one that does in its closures."""
    return _takes(tx.update, "grad_fn", set())


def check_not_negative(name: str, argument: str, value: Any) -> None:
    """Refuses a negative number; schedules, tracers and arrays of several numbers are let through.

    Raises:
      ValueError: naming the link, the argument, and what was given.
    """
    if _is_number(value) and not value >= 0:
        raise ValueError(f"{name}: expected {argument} of at least 0, got {value!r}")


def check_positive(name: str, argument: str, value: Any) -> None:
    """Refuses a number that is not above 0; schedules, tracers and arrays of several numbers are let through.

    Raises:
      ValueError: naming the link, the argument, and what was given.
    """
    if _is_number(value) and not value > 0:
        raise ValueError(f"{name}: expected {argument} above 0, got {value!r}")


def check_share(name: str, argument: str, value: Any, *, one: bool = False) -> None:
    """Refuses a number that is not at least 0 and below 1, or with `one` at most 1; tracers are let through.

    Raises:
      ValueError: naming the link, the argument, and what was given.
    """
    if _is_number(value) and not (0 <= value < 1 or (one and value == 1)):
        raise ValueError(
            f"{name}: expected {argument} of at least 0 and {'at most' if one else 'below'} 1, got {value!r}"
        )


def check_count(name: str, argument: str, value: Any, *, at_least: int = 1) -> None:
    """Refuses what is not an integer of at least so much.

    Raises:
      ValueError: naming the link, the argument, and what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name}: expected {argument} to be an integer of at least {at_least}, got {value!r}")


def check_word(name: str, argument: str, value: Any, words: tuple[str, ...]) -> None:
    """Refuses what is none of the words.

    Raises:
      ValueError: naming the link, the argument, and what was given.
    """
    if value not in words:
        raise ValueError(f"{name}: expected {argument} {' or '.join(map(repr, words))}, got {value!r}")


def check_link(name: str, argument: str, given: Any, *, evaluates: bool = True, remedy: str = "") -> Link:
    """A chain to be wrapped, with extra arguments.

    Args:
      name: of the link that wraps it.
      argument: its name there.
      given: what was given.
      evaluates: whether it may evaluate gradients itself.
      remedy: what to write instead if it does.
    Raises:
      TypeError: if it is no gradient transformation.
      ValueError: if it evaluates gradients and may not.
    """
    if not isinstance(given, optax.GradientTransformation):
        raise TypeError(f"{name}: expected {argument} to be a link such as adam(1e-3), got {given!r}")
    made = given if isinstance(given, Link) else Link(*optax.with_extra_args_support(given))
    if not evaluates and evaluates_gradient(made):
        remedy = remedy or f"The gradient that {name} finds would be discarded."
        raise ValueError(f"{name}: expected {argument} without links that evaluate gradients, got {given!r}. {remedy}")
    return made


def at(value: Any, count: Any) -> Any:
    """A hyper-parameter at a step: a schedule's value, or the number itself."""
    return value(count) if callable(value) else value


def _links(held: Any) -> Iterator[Link]:
    if isinstance(held, Link):
        yield held
    elif isinstance(held, tuple | list):
        for item in held:
            yield from _links(item)
    elif isinstance(held, Mapping):
        yield from _links(list(held.values()))


def _takes(value: Any, argument: str, seen: set[int]) -> bool:
    """Whether a function, or one that it closes over or is bound to, has such an argument."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, functools.partial):
        return _takes((value.func, value.args, value.keywords), argument, seen)
    if inspect.ismethod(value):
        return _takes((value.__func__, list(vars(value.__self__).values())), argument, seen)
    if inspect.isfunction(value):
        inner: Iterable[Any] = _cells(value)
        return argument in inspect.signature(value).parameters or any(_takes(each, argument, seen) for each in inner)
    if isinstance(value, tuple | list):
        return any(_takes(each, argument, seen) for each in value)
    return isinstance(value, Mapping) and _takes(list(value.values()), argument, seen)


def _cells(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray | jax.Array):
        return value.ndim == 0 and not isinstance(value, Tracer)
    return isinstance(value, int | float | np.number)
