"""A loss taken of every example of a batch by itself."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._backward import Backward, backward, weighed
from ._checks import check_count, path_of
from ._data import num_examples
from ._traced import Traced, traced

LossFn = Callable[..., Any]


def rows_of(name: str, batch: Any, key: jax.Array | None) -> tuple[Any, jax.Array | None]:
    """A batch, and a key for each of its examples.

    Raises:
      ValueError: if the arrays differ in their number of examples.
    """
    num = num_examples(name, batch)
    return jax.tree.map(jnp.asarray, batch), None if key is None else jax.random.split(key, num)


def mask_of(name: str, batch: Any, mask: Any) -> jax.Array:
    """Which examples are real: all of them, unless a mask is given.

    Raises:
      ValueError: for a mask that is not of booleans, one an example.
    """
    num = num_examples(name, batch)
    if mask is None:
        return jnp.ones(num, bool)
    mask = jnp.asarray(mask)
    if mask.shape != (num,) or mask.dtype != bool:
        raise ValueError(f"{name}: expected a mask of {num} booleans, got {mask.dtype}{list(mask.shape)}")
    return mask


def check_wide(name: str, params: Any) -> None:
    """Refuses parameters whose sums would be rounded to half precision.

    Raises:
      TypeError: with the path of the first.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
            place = path_of(path)
            raise TypeError(
                f"{name}: expected params of at least float32, got {dtype} at {place!r}. Sums over examples would be "
                "rounded to that; compute in half precision by nets.cast."
            )


def program_of(name: str, loss_fn: LossFn, params: Any, rows: tuple[Any, Any]) -> Traced:
    """The program of the loss of one example.

    Raises:
      TypeError: if the loss is no real scalar, or a parameter is not of floats.
    """
    batch = jax.tree.map(lambda row: jax.ShapeDtypeStruct((1, *row.shape[1:]), row.dtype), rows[0])
    key = jax.tree.map(lambda keys: jax.ShapeDtypeStruct(keys.shape[1:], keys.dtype), rows[1])
    shapes = jax.eval_shape(lambda params: params, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            place = path_of(path)
            raise TypeError(
                f"{name}: expected params of floats, got {leaf.dtype} at {place!r}. Close over what is not trained."
            )
    leaves, tree = jax.tree.flatten(shapes)

    def loss(leaves: list[Any], example: tuple[Any, Any]) -> jax.Array:
        return _scalar(name, loss_fn(jax.tree.unflatten(tree, leaves), *example))

    return traced(loss, leaves, (batch, key))


def backward_of(name: str, loss_fn: LossFn, params: Any, rows: tuple[Any, Any]) -> tuple[Backward, Any]:
    """The backward pass of all examples, and the structure of the parameters."""
    program = program_of(name, loss_fn, params, rows)
    leaves, tree = jax.tree.flatten(params)
    batch, keys = rows
    examples = jax.tree.leaves((jax.tree.map(lambda row: row[:, None], batch), keys))
    return backward(program, [jnp.asarray(leaf) for leaf in leaves], examples), tree


def clipped(
    found: Backward, mask: jax.Array, max_norm: float, *, per_leaf: bool
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Sums of clipped gradients, and norms: one for each parameter, or one of all."""
    squares, margins, gradients = found.all_squares()
    groups = [[number] for number in range(len(squares))] if per_leaf else [list(range(len(squares)))]
    bound = max_norm / math.sqrt(max(len(groups), 1))
    norms, scales = [], {}
    for group in groups:
        square, margin = (sum((each[number] for number in group), jnp.zeros(mask.shape)) for each in (squares, margins))
        norm, largest = jnp.sqrt(square), jnp.sqrt(square + margin)
        counts = mask & jnp.isfinite(largest)
        scale = jnp.where(counts, bound / jnp.maximum(largest, bound), 0)
        norms.append(jnp.where(mask, norm, 0))
        scales |= dict.fromkeys(group, scale)
    return summed(found, gradients, scales), norms


def summed(found: Backward, gradients: dict[int, jax.Array], scales: dict[int, jax.Array]) -> list[jax.Array]:
    """Weighted sums over examples of all gradients, some of which are known already."""
    sums = found.totals({number: scale for number, scale in scales.items() if number not in gradients})
    for number, rows in gradients.items():
        sums[number] = jnp.sum(weighed(rows, scales[number]), 0).astype(rows.dtype)
    return [sums[number] for number in range(len(scales))]


def in_chunks(function: Callable[..., Any], rows: tuple[Any, ...], size: int | None) -> tuple[Any, Any]:
    """`function(*rows) -> (total, rows)` of so many rows at a time: totals are added up, rows put together."""
    num = jax.tree.leaves(rows)[0].shape[0]
    if size is None or size >= num:
        return function(*rows)
    num_whole = num // size
    whole = jax.tree.map(lambda row: row[: num_whole * size].reshape(num_whole, size, *row.shape[1:]), rows)
    start, _ = jax.eval_shape(function, *jax.tree.map(lambda row: row[0], whole))

    def one(total: Any, chunk: Any) -> tuple[Any, Any]:
        more, found = function(*chunk)
        return jax.tree.map(jnp.add, total, more), found

    total, found = lax.scan(one, jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), start), whole)
    found = jax.tree.map(lambda row: row.reshape(-1, *row.shape[2:]), found)
    if num % size:
        more, rest = function(*jax.tree.map(lambda row: row[num_whole * size :], rows))
        total = jax.tree.map(jnp.add, total, more)
        found = jax.tree.map(lambda row, last: jnp.concatenate([row, last]), found, rest)
    return total, found


def check_bound(name: str, argument: str, value: Any) -> None:
    """Refuses what is no positive number; what JAX traces is taken as it is.

    Raises:
      ValueError: naming who asks, and the argument.
    """
    number = number_of(value)
    if number is not None and not 0 < number < math.inf:
        raise ValueError(f"{name}: expected {argument} to be a number above 0, got {value!r}")


def number_of(value: Any) -> float | None:
    """A number as Python's, NaN for what is none, and None for what JAX traces."""
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, bool | str | None) or jnp.shape(value) != ():
        return math.nan
    return float(value)


def check_chunk(name: str, value: int | None) -> None:
    """Refuses what is no number of examples at once.

    Raises:
      ValueError: naming who asks.
    """
    if value is not None:
        check_count(name, "examples_at_once", value, at_least=1)


def _scalar(name: str, loss: Any) -> jax.Array:
    if not jax.tree_util.all_leaves([loss]):
        raise TypeError(
            f"{name}: expected loss_fn to return a scalar, got {jax.tree.structure(loss)}. Return the loss alone."
        )
    if jnp.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        found = f"{jnp.result_type(loss)}{list(jnp.shape(loss))}"
        raise TypeError(f"{name}: expected loss_fn to return a scalar of floats, got {found}. Take its mean.")
    return jnp.asarray(loss)
