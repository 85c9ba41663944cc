"""What a recurrent cell is: three pure functions, and how a sequence goes through them."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import lax

from .._call import Call, Recorded, recording
from ._check import check_size
from ._core import naming, struct
from ._errors import ShapeError, shape_of
from ._moments import check_real

Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class Steps(NamedTuple):
    """How a cell goes through a sequence.

    Attributes:
      alive: `[time, *batch]`, false past a sequence's end: there the carry stays as it is and outputs are 0.
      reset: `[time, *batch]`, true where the carry is set to the initial one before the step.
      reverse: whether the last step comes first.
      unroll: how many steps of `lax.scan` are compiled as one.
    """

    alive: jax.Array | None = None
    reset: jax.Array | None = None
    reverse: bool = False
    unroll: int = 1


class Parts(NamedTuple):
    """What lies under a cell.

    Attributes:
      init: `(key, x) -> params`.
      initial_carry: `(params, x) -> carry`.
      step: `(params, carry, x) -> (carry, y)`.
      num_axes: how many trailing axes of `x` carry meaning.
      scan: `(params, carry, initial, xs, steps) -> (carry, ys)`, time first: a faster way through a whole
        sequence that gives what `step` gives one by one; None for a scan over `step`.
    """

    init: Callable[..., Any]
    initial_carry: Callable[..., Any]
    step: Callable[..., Any]
    num_axes: int = 1
    scan: Callable[..., Any] | None = None

    def through(self, params: Any, carry: Any, initial: Any, xs: Any, steps: Steps) -> tuple[Any, Any]:
        """Goes through a sequence, time first: `(carry, ys)`."""
        if self.scan is not None:
            return self.scan(params, carry, initial, xs, steps)
        return scan_steps(lambda carry, x: self.step(params, carry, x), carry, initial, xs, steps)


class Cell(Recorded):
    """A recurrent cell: three pure functions, as a value; `rnn` makes a network of it.

    It prints, compares, hashes and pickles as the call that made it. Inputs are those of one time step, real
    numbers; any number of leading axes are batch.

    Args:
      init: `init(key, x) -> params`. It is given a `jax.ShapeDtypeStruct` for `x`.
      initial_carry: `initial_carry(params, x) -> carry`, a pytree of arrays with the batch axes of `x` first.
        Zeros are best made from the data (`jnp.zeros_like(x @ params["w"])`): they then lie on devices as
        the data do.
      step: `step(params, carry, x) -> (carry, y)`, the order of `lax.scan`.
      num_axes: how many trailing axes of `x` carry meaning: 1 for features.

    Attributes:
      init: `(key, x) -> params`; only the shape and dtype of `x` are looked at.
      initial_carry: `(params, x) -> carry`.
      step: `(params, carry, x) -> (carry, y)`, one time step, with the same params as `rnn`.

    >>> def initial(params, x):
    ...     return jnp.zeros_like(x)
    >>> def step(params, carry, x):
    ...     carry = params["decay"] * carry + x
    ...     return carry, carry
    >>> average = Cell(lambda key, x: {"decay": jnp.full(x.shape[-1:], 0.5)}, initial, step)
    >>> net = rnn(average)
    >>> net.apply(net.init(jax.random.key(0), jnp.ones((3, 1))), jnp.ones((3, 1))).tolist()
    [[1.0], [1.5], [1.75]]
    """

    init: Callable[..., Any]
    initial_carry: Callable[..., Any]
    step: Callable[..., Any]
    call: Call | None
    parts: Parts
    name: str

    def __init__(
        self,
        init: Callable[..., Any],
        initial_carry: Callable[..., Any],
        step: Callable[..., Any],
        *,
        num_axes: int = 1,
    ):
        check_size("Cell", "num_axes", num_axes)
        call = Call(Cell, (init, initial_carry, step), {"num_axes": num_axes})
        _settle(self, Parts(init, initial_carry, step, num_axes), call)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r}: a cell is a value and cannot be changed; build another one")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)


def cell(constructor: Constructor) -> Constructor:
    """Marks a function that returns a `Cell`: the cell then is the call that made it, as with `layer`.

    Args:
      constructor: a function that returns a `Cell`.
    Returns:
      The same function, with the same signature.

    >>> @cell
    ... def leaky(rate: float) -> Cell:
    ...     def step(params, carry, x):
    ...         carry = rate * carry + x
    ...         return carry, carry
    ...     return Cell(lambda key, x: {}, lambda params, x: jnp.zeros_like(x), step)
    >>> leaky(rate=0.5), leaky(0.5) == leaky(0.5)
    (leaky(0.5), True)
    """

    def wrap(made: Any, call: Call) -> Cell:
        if not isinstance(made, Cell):
            raise TypeError(f"{call.name}: expected a function marked @cell to return a Cell, got {made!r}")
        return cell_from(made.parts, call)

    return recording(constructor, wrap)


def cell_from(parts: Parts, call: Call | None = None) -> Cell:
    """A cell of these parts."""
    made = object.__new__(Cell)
    _settle(made, parts, call)
    return made


def check_cell(name: str, given: Any) -> None:
    """Refuses anything but a cell.

    Raises:
      TypeError: naming the function that wants one.
    """
    if not isinstance(given, Cell):
        raise TypeError(f"{name}: expected a cell, such as lstm_cell(128), got {given!r}")


def check_carry(carry: Any, initial: Any) -> Any:
    """A carry with the dtypes of the initial one.

    Raises:
      ShapeError: if it has another structure or other shapes, or complex numbers in place of real ones.
    """
    same = jax.tree.structure(carry) == jax.tree.structure(initial)
    pairs = list(zip(jax.tree.leaves(carry), jax.tree.leaves(initial), strict=False))
    remedy = "Make it with initial_carry(params, x)."
    if not same or any(jnp.shape(given) != wanted.shape for given, wanted in pairs):
        raise ShapeError(f"a carry {shape_of(initial)}", shape_of(carry), remedy)
    if any(jnp.iscomplexobj(given) and not jnp.iscomplexobj(wanted) for given, wanted in pairs):
        raise ShapeError("a carry of real numbers", "complex ones", remedy)
    return jax.tree.map(lambda given, wanted: jnp.asarray(given, wanted.dtype), carry, initial)


def scan_steps(step: Callable[..., Any], carry: Any, initial: Any, xs: Any, steps: Steps) -> tuple[Any, Any]:
    """Scans `step(carry, x) -> (carry, y)` over time, the first axis of `xs`; `steps` says how."""

    def masked(carry: Any, at: tuple) -> tuple[Any, Any]:
        x, alive, reset = at
        before = carry if reset is None else where(reset, initial, carry)
        after, y = step(before, x)
        _check_same(carry, after)
        return (after, y) if alive is None else (where(alive, after, carry), where(alive, y, zeros_like(y)))

    return lax.scan(masked, carry, (xs, steps.alive, steps.reset), reverse=steps.reverse, unroll=steps.unroll)


def check_batched(carry: Any, batch: tuple[int, ...]) -> None:
    """Refuses a carry that does not begin with the batch axes: a mask of examples has nothing to choose there.

    Raises:
      ShapeError: with the axes and the shapes.
    """
    if any(leaf.shape[: len(batch)] != batch for leaf in jax.tree.leaves(carry)):
        raise ShapeError(f"a carry with the batch axes {batch} first", shape_of(carry))


def _check_same(before: Any, after: Any) -> None:
    wanted, given = struct(before), struct(after)
    if wanted != given:
        wanted, given = (str(jax.tree.map(_words, tree)).replace("'", "") for tree in (wanted, given))
        raise ShapeError(f"a step that returns a carry like the one it takes, {wanted}", given)


def _words(leaf: jax.ShapeDtypeStruct) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def where(mask: jax.Array, chosen: Any, other: Any) -> Any:
    """`chosen` where a mask of their leading axes is true, else `other`."""
    return jax.tree.map(lambda a, b: jnp.where(over(mask, a.ndim), a, b), chosen, other)


def over(mask: jax.Array, ndim: int) -> jax.Array:
    """A mask of leading axes with axes of size 1 behind it, `ndim` in all."""
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def zeros_like(tree: Any) -> Any:
    """Zeros of the shapes and dtypes of a pytree, spread over devices as its arrays are."""
    return jax.tree.map(jnp.zeros_like, tree)


class _Part:
    """One of a cell's functions: equal for equal cells, so that `jax.jit(cell.step)` is found again."""

    field: str

    def __init__(self, owner: Cell):
        self.cell = owner
        self.__name__ = f"{owner.name}_{self.field}"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.cell == cast(_Part, other).cell

    def __hash__(self) -> int:
        return hash((self.field, self.cell))

    def __repr__(self) -> str:
        return f"{self.cell!r}.{self.field}"

    def __reduce__(self) -> tuple:
        return getattr, (self.cell, self.field)


class _Init(_Part):
    field = "init"

    def __call__(self, key: jax.Array, x: Any) -> Any:
        with naming(self.cell, root=True):
            x = struct(x)
            check_real(x)
            return self.cell.parts.init(key, x)


class _InitialCarry(_Part):
    field = "initial_carry"

    def __call__(self, params: Any, x: Any) -> Any:
        with naming(self.cell, root=True):
            x = jnp.asarray(x)
            check_real(x)
            return self.cell.parts.initial_carry(params, x)


class _Step(_Part):
    field = "step"

    def __call__(self, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        parts = self.cell.parts
        with naming(self.cell, root=True):
            x = jnp.asarray(x)
            check_real(x)
            return parts.step(params, check_carry(carry, jax.eval_shape(parts.initial_carry, params, x)), x)


def _settle(made: Cell, parts: Parts, call: Call | None) -> None:
    for field, value in {"parts": parts, "call": call, "name": call.name if call else "cell"}.items():
        object.__setattr__(made, field, value)
    for part in (_Init, _InitialCarry, _Step):
        object.__setattr__(made, part.field, part(made))
