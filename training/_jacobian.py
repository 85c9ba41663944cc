"""Jacobians and Hessians, forward or reverse by shape, all at once or in chunks."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ._checks import check_count, path_of

Mode = Literal["auto", "forward", "reverse"]


@recording
def jacobian(f: Callable[..., Any], *, mode: Mode = "auto", chunk: int | None = None) -> Callable[..., Any]:
    """The Jacobian of a function with respect to its first argument.

    Forward mode takes a pass for each number that goes in, reverse mode one for each that comes out: by default the
    smaller number decides, forward where they are equal. Passes are batched by `jax.vmap`; `chunk` bounds how many at
    a time, and so the memory.

    Args:
      f: `f(x, *args) -> outputs`, of trees of floating-point arrays.
      mode: "forward", "reverse", or "auto" for the cheaper.
      chunk: passes at a time; all unless given.
    Returns:
      `(x, *args) -> jacobian`: a tree like `outputs` of trees like `x`, each array `[*output's axes, *input's axes]`.
      It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: for another mode, or a chunk below 1.
      TypeError: when called, if `x` or the outputs hold other things than floating-point numbers, complex ones too.

    >>> jacobian(lambda x, scale: scale * x**2)(jnp.array([1.0, 3.0]), 2.0).tolist()
    [[4.0, 0.0], [0.0, 12.0]]
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ValueError(f"jacobian: expected mode to be 'auto', 'forward' or 'reverse', got {mode!r}.")
    _check_chunk("jacobian", chunk)

    def of(x: Any, *args: Any) -> Any:
        x = _floats("jacobian", x)

        def inner(x: Any) -> Any:
            return f(x, *args)

        outputs = _floats("jacobian", jax.eval_shape(inner, x), "outputs")
        reverse = mode == "reverse" or (mode == "auto" and size_of(outputs) < size_of(x))
        return (_by_rows if reverse else _by_columns)(inner, x, chunk)

    return of


@recording
def hessian(f: Callable[..., Any], *, chunk: int | None = None) -> Callable[..., Any]:
    """The Hessian of a function with respect to its first argument, forward over the cheaper Jacobian.

    `jax.flatten_util.ravel_pytree` makes one axis of many arrays where a single matrix is wanted:
    `hessian(lambda flat: f(unravel(flat)))(flat)` is `[numbers, numbers]`.

    Args:
      f: `f(x, *args) -> outputs`, of trees of floating-point arrays; a loss, say.
      chunk: columns at a time; all unless given.
    Returns:
      `(x, *args) -> hessian`: a tree like `outputs` of trees like `x` of trees like `x`, each array
      `[*output's axes, *input's axes, *input's axes]`. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: for a chunk below 1.
      TypeError: when called, if `x` holds other things than floating-point numbers.

    >>> hessian(lambda x: x[0] ** 2 * x[1])(jnp.array([3.0, 5.0])).tolist()
    [[10.0, 6.0], [6.0, 0.0]]
    """
    _check_chunk("hessian", chunk)

    def of(x: Any, *args: Any) -> Any:
        x = _floats("hessian", x)
        return _by_columns(lambda x: jacobian(f)(x, *args), x, chunk)

    return of


def _by_columns(f: Callable[[Any], Any], x: Any, chunk: int | None) -> Any:
    outputs, push = jax.linearize(f, x)
    columns = _over_basis(push, x, chunk)

    def join(output: jax.Array, *parts: jax.Array) -> Any:
        leaves = [
            jnp.moveaxis(part, 0, -1).reshape(*jnp.shape(output), *jnp.shape(leaf))
            for part, leaf in zip(parts, jax.tree.leaves(x), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(x), leaves)

    return jax.tree.map(join, outputs, *columns)


def _by_rows(f: Callable[[Any], Any], x: Any, chunk: int | None) -> Any:
    outputs, pull = jax.vjp(f, x)
    rows = [
        jax.tree.map(lambda part, leaf, out=out: part.reshape(*jnp.shape(out), *jnp.shape(leaf)), row, x)
        for out, row in zip(jax.tree.leaves(outputs), _over_basis(lambda y: pull(y)[0], outputs, chunk), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(outputs), rows)


def _over_basis(linear: Callable[[Any], Any], space: Any, chunk: int | None) -> list[Any]:
    """A linear map of every unit vector of a tree: for each array, the results with an axis of its entries in front."""
    zeros = [jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(space)]

    def of_leaf(place: int) -> Any:
        leaf = zeros[place]

        def one(unit: jax.Array) -> Any:
            parts = [*zeros[:place], unit.reshape(leaf.shape), *zeros[place + 1 :]]
            return linear(jax.tree.unflatten(jax.tree.structure(space), parts))

        if chunk is None or chunk >= leaf.size:
            return jax.vmap(one)(jnp.eye(leaf.size, dtype=leaf.dtype))
        entries = jnp.arange(leaf.size)
        return lax.map(lambda index: one(jax.nn.one_hot(index, leaf.size, dtype=leaf.dtype)), entries, batch_size=chunk)

    return [of_leaf(place) for place in range(len(zeros))]


def size_of(tree: Any) -> int:
    """How many numbers a tree holds."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def _floats(name: str, x: Any, what: str = "x") -> Any:
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{name}: expected {what} of floating-point numbers, got {jnp.result_type(leaf)} at "
                f"{path_of(path)!r}. Close over what is not differentiated."
            )
    return x


def _check_chunk(name: str, chunk: Any) -> None:
    if chunk is not None:
        check_count(name, "chunk", chunk, at_least=1)
