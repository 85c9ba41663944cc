"""What actions and observations may be: discrete or in a box."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers from 0 up to, not including, `n`; gymnax's attributes, as a value that compares and hashes.

    Args:
      n: how many there are.
    Raises:
      ValueError: if `n` is no integer of at least 1.

    >>> space = rl.Discrete(2)
    >>> space.sample(jax.random.key(0)).shape, space.contains(jnp.array([0, 1, 2])).tolist(), space == rl.Discrete(2)
    ((), [True, True, False], True)
    """

    n: int

    def __post_init__(self):
        if isinstance(self.n, bool) or not isinstance(self.n, int | np.integer) or self.n < 1:
            raise ValueError(f"Discrete: expected n to be an integer of at least 1, got {self.n!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element."""
        return ()

    @property
    def dtype(self) -> Any:
        """The type of one element."""
        return jnp.dtype("int32")

    def __repr__(self) -> str:
        return f"Discrete({self.n})"

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Elements drawn uniformly: `[*sample_shape]`."""
        return jax.random.randint(key, sample_shape, 0, self.n, self.dtype)

    def contains(self, x: Any) -> jax.Array:
        """Whether each of `x` is an element, `[...]` of bool."""
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.zeros(x.shape, bool)
        return (x >= 0) & (x < self.n)


class Box:
    """Arrays between two bounds, both included; gymnax's attributes, as a value that compares and hashes.

    Args:
      low: the least of each number, of a shape that broadcasts to `shape`; `-inf` for none.
      high: the greatest.
      shape: the shape of one element; that of the bounds unless given.
      dtype: its type; JAX's float unless given.
    Raises:
      ValueError: if the bounds do not fit the shape, or are in the wrong order.

    >>> space = rl.Box(-2.0, 2.0, (1,))
    >>> space, space.sample(jax.random.key(0)).shape, space.contains(jnp.array([[2.0], [2.1]])).tolist()
    (Box(-2.0, 2.0, (1,)), (1,), [True, False])
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any

    def __init__(self, low: Any, high: Any, shape: tuple[int, ...] | None = None, dtype: Any = None):
        numpy = jnp if isinstance(low, Tracer) or isinstance(high, Tracer) else np
        dtype = jax.dtypes.canonicalize_dtype(jnp.result_type(float) if dtype is None else dtype)
        shape = np.broadcast_shapes(np.shape(low), np.shape(high)) if shape is None else tuple(shape)
        for name, bound in {"low": low, "high": high}.items():
            if not _broadcasts(np.shape(bound), shape):
                raise ValueError(
                    f"Box: expected {name} of a shape that broadcasts to {shape}, got one of {np.shape(bound)}"
                )
            object.__setattr__(self, name, numpy.broadcast_to(numpy.asarray(bound, dtype), shape))
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", dtype)
        if numpy is np and not np.all(self.low <= self.high):
            raise ValueError(f"Box: expected low to be at most high, got {low} and {high}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r}: a space is a value and cannot be changed; make another one")

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Elements drawn uniformly: `[*sample_shape, *shape]`.

        Numbers without bounds are normal; those with one are its distance, exponential, from it. Integers are uniform.
        """
        shape = (*sample_shape, *self.shape)
        if jnp.issubdtype(self.dtype, jnp.integer):
            return jax.random.randint(key, shape, self.low.astype(int), self.high.astype(int) + 1).astype(self.dtype)
        if jnp.issubdtype(self.dtype, jnp.bool_):
            return jax.random.bernoulli(key, 0.5, shape)
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        below, above = jnp.isfinite(low), jnp.isfinite(high)
        if not isinstance(low, Tracer) and np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)):
            return jax.random.uniform(key, shape, self.dtype, low, high)
        keys = jax.random.split(key, 3)
        bounded = jax.random.uniform(keys[0], shape, self.dtype, jnp.where(below, low, 0), jnp.where(above, high, 1))
        distance = jax.random.exponential(keys[1], shape, self.dtype)
        one_sided = jnp.where(below, jnp.where(below, low, 0) + distance, jnp.where(above, high, 0) - distance)
        unbounded = jax.random.normal(keys[2], shape, self.dtype)
        return jnp.where(below & above, bounded, jnp.where(below | above, one_sided, unbounded))

    def contains(self, x: Any) -> jax.Array:
        """Whether `x` is an element, or each one on its leading axes: `[...]` of bool."""
        x = jnp.asarray(x)
        batch = x.shape[: max(x.ndim - len(self.shape), 0)]
        if x.shape[len(batch) :] != self.shape:
            return jnp.zeros(batch, bool)
        axes = tuple(range(len(batch), x.ndim))
        return jnp.all((x >= self.low) & (x <= self.high), axes)

    def __repr__(self) -> str:
        low, high = (_shown(bound) for bound in (self.low, self.high))
        named = "" if jnp.issubdtype(self.dtype, jnp.floating) else f", {self.dtype.name}"
        return f"Box({low}, {high}, {self.shape}{named})"

    def _key(self) -> tuple[Any, ...]:
        return (self.shape, self.dtype.name, _content(self.low), _content(self.high))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return Box, (self.low, self.high, self.shape, self.dtype)


def symmetric_box(*high: Any) -> Box:
    """The box of vectors with these greatest numbers and minus them as the least; the numbers may be traced."""
    bound = (jnp if any(isinstance(each, Tracer) for each in high) else np).stack(high)
    return Box(-bound, bound)


def check_action(name: str, action: Any, shape: tuple[int, ...]) -> jax.Array:
    """An action as an array.

    Raises:
      ValueError: naming the environment, if it has another shape.
    """
    if jnp.shape(action) != shape:
        raise ValueError(
            f"{name}: expected an action of shape {shape}, got one of {jnp.shape(action)}. "
            "For many environments at once, vectorize this one."
        )
    return jnp.asarray(action)


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def _content(bound: Any) -> Any:
    return id(bound) if isinstance(bound, Tracer) else np.asarray(bound).tobytes()


def _shown(bound: Any) -> str:
    if isinstance(bound, Tracer):
        return "..."
    values = np.unique(bound)
    return str(values[0]) if values.size == 1 else np.array2string(np.asarray(bound), separator=", ", threshold=8)
