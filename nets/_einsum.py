"""Linear maps of several axes: the last ones, or those of an equation."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._check import check_arrays, check_size, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import lecun_normal, zeros
from ._keys import child_key, indexed_keys
from ._net import Net, layer


@layer
def linear_general(
    features: int | Sequence[int],
    *,
    num_axes: int = 1,
    bias: bool = True,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Affine map of the last axes to one or more others.

    Args:
      features: sizes of the axes that it makes, one or several.
      num_axes: how many of the last axes of the input it takes.
      bias: whether `b` is added.
      w_init: `w_init(key, (product of in, product of features), dtype)` makes `w`, flattened: so an
        initializer sees the number of terms in a sum.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `[..., *in]` to `[..., *features]` with float32 params
      `{"w": [*in, *features], "b": [*features]}`.
    Raises:
      ShapeError: if the last axes of the input are not those that the parameters were made for.

    >>> net = linear_general((4, 8))
    >>> x = jnp.ones((2, 16))
    >>> params = net.init(jax.random.key(0), x)
    >>> net.apply(params, x).shape, params["w"].shape
    ((2, 4, 8), (16, 4, 8))
    """
    made = tuple(features) if isinstance(features, Sequence) else (features,)
    if not made or isinstance(features, str):
        raise ValueError(f"linear_general: expected features to be one size or several, got {features!r}")
    for size in made:
        check_size("linear_general", "features", size)
    check_size("linear_general", "num_axes", num_axes)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        _check_last_axes(x, (None,) * num_axes)
        taken = x.shape[-num_axes:]
        w = w_init(child_key(key, "w"), (math.prod(taken), math.prod(made)), jnp.float32)
        params = {"w": w.reshape(*taken, *made)}
        return params | ({"b": b_init(child_key(key, "b"), made, jnp.float32)} if bias else {})

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (None,) * num_axes + made} | ({"b": made} if bias else {}))
        x, w = jnp.asarray(x), params["w"]
        _check_last_axes(x, w.shape[:num_axes])
        dtype = dtype_for(x, w)
        y = jnp.tensordot(x.astype(dtype), w.astype(dtype), num_axes)
        return y + params["b"].astype(dtype) if bias else y

    return Net(init, apply)


def _check_last_axes(x: Any, sizes: tuple[int | None, ...]) -> None:
    given = tuple(x.shape[-len(sizes) :])
    if len(given) < len(sizes) or 0 in given or any(s not in (None, g) for s, g in zip(sizes, given, strict=True)):
        wanted = ", ".join(f"in{axis}" if size is None else str(size) for axis, size in enumerate(sizes, 1))
        raise ShapeError(f"an input [..., {wanted}]", f"{tuple(x.shape)}")


@layer
def einsum(
    equation: str,
    *,
    bias_axes: str = "",
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
    **sizes: int,
) -> Net:
    """Linear map by an equation between the axes of the input, of the weight, and of the output.

    Axes are letters, and `...` stands for any number of them. An axis of the weight that is summed over is
    an input axis, one in the output alone an output axis; one that input, weight and output share gives each
    of its positions a map of its own.

    Args:
      equation: `"x,w->y"`, such as `"...d,dhk->...hk"`.
      bias_axes: the axes of the output that `b` has, in their order; without any there is no `b`.
      w_init: `w_init(key, (in, out), dtype)` makes each map, flattened: `in` and `out` are the products of
        the input and output axes.
      b_init: `b_init(key, shape, dtype) -> b`.
      **sizes: of the axes that the weight has and the input has not, by their letters.
    Returns:
      A net with float32 params `{"w": [the axes of w], "b": [bias_axes]}`.
    Raises:
      ValueError: if the equation or the sizes do not determine a map.
      ShapeError: if the input has not the axes that the equation says, or not those that the parameters were
        made for.

    >>> heads = einsum("...d,dhk->...hk", bias_axes="hk", h=4, k=8)
    >>> x = jnp.ones((2, 16))
    >>> params = heads.init(jax.random.key(0), x)
    >>> heads.apply(params, x).shape, params["w"].shape, params["b"].shape
    ((2, 4, 8), (16, 4, 8), (4, 8))
    """
    x_axes, w_axes, y_axes = _terms(equation)
    _check_sizes(x_axes, w_axes, y_axes, sizes)
    if not _in_order(bias_axes, y_axes):
        raise ValueError(f"einsum: expected bias_axes to be axes of {y_axes!r} in their order, got {bias_axes!r}")

    def check_params(params: dict, known: dict[str, int]) -> None:
        named = {"w": w_axes} | ({"b": bias_axes} if bias_axes else {})
        check_arrays(params, {name: tuple(known.get(axis) for axis in axes) for name, axes in named.items()})

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        known = _sizes_of(x, x_axes, {}) | sizes
        if any(known[axis] < 1 for axis in w_axes):
            raise ShapeError(f"an input {_in_words(x_axes, {})} without axes of 0", f"{tuple(x.shape)}")
        params = {"w": _init_maps(w_init, child_key(key, "w"), (x_axes, w_axes, y_axes), known)}
        shape = tuple(known[axis] for axis in bias_axes)
        return params | ({"b": b_init(child_key(key, "b"), shape, jnp.float32)} if bias_axes else {})

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_params(params, sizes)
        x, w = jnp.asarray(x), params["w"]
        of_bias = zip(bias_axes, params["b"].shape, strict=True) if bias_axes else ()
        check_params(params, known := dict(of_bias) | dict(zip(w_axes, w.shape, strict=True)))
        _sizes_of(x, x_axes, known)
        dtype = dtype_for(x, w)
        y = jnp.einsum(equation, x.astype(dtype), w.astype(dtype))
        return y + _beside(params["b"], bias_axes, y_axes, y.ndim).astype(dtype) if bias_axes else y

    return Net(init, apply)


def _terms(equation: Any) -> tuple[str, str, str]:
    """The axes of the input, the weight and the output."""
    terms = re.fullmatch(r"([^,]*),([^,]*)->([^,]*)", equation.replace(" ", "")) if isinstance(equation, str) else None
    if terms is None:
        raise ValueError(f"einsum: expected one input, one weight and one output, 'x,w->y', got {equation!r}")
    x, w, y = terms.groups()
    for term, letters in ((x, _letters(x)), (w, w), (y, _letters(y))):
        if not re.fullmatch("[a-zA-Z]*", letters) or len(set(letters)) < len(letters):
            raise ValueError(
                f"einsum: expected axes to be letters, each once, and '...' in the input and the output only, "
                f"got {term!r} in {equation!r}"
            )
    if ("..." in x) != ("..." in y):
        raise ValueError(f"einsum: expected '...' in both the input and the output or in neither, got {equation!r}")
    return x, w, y


def _check_sizes(x: str, w: str, y: str, sizes: dict[str, int]) -> None:
    if strange := [axis for axis in _letters(y) if axis not in x + w]:
        raise ValueError(f"einsum: expected axes of the output that input or weight have, got {strange}")
    if lost := [axis for axis in w if axis not in x + y]:
        raise ValueError(f"einsum: expected axes of the weight that input or output have, got {lost}")
    alone = [axis for axis in w if axis not in x]
    if set(sizes) != set(alone):
        raise ValueError(
            f"einsum: expected a size for each axis that the weight has and the input has not, {alone}, got {sizes}"
        )
    for axis, size in sizes.items():
        check_size("einsum", axis, size)


def _sizes_of(x: Any, axes: str, known: dict[str, int]) -> dict[str, int]:
    """The sizes of the input's axes; refuses an input that has others than those known."""
    before, dots, after = axes.partition("...")
    rank, least = len(x.shape), len(before) + len(after)
    if rank >= least if dots else rank == least:
        pairs = [*zip(before, x.shape, strict=False), *zip(after, x.shape[rank - len(after) :], strict=True)]
        if all(known.get(axis, size) == size for axis, size in pairs):
            return dict(pairs)
    raise ShapeError(f"an input {_in_words(axes, known)}", f"{tuple(x.shape)}")


def _init_maps(w_init: Initializer, key: jax.Array, terms: tuple[str, str, str], known: dict[str, int]) -> jax.Array:
    """Draws one flat map for each position of the axes that all three share, and lays its axes as `w` has them."""
    x, w, y = terms
    shared = [axis for axis in w if axis in x and axis in y]
    taken = [axis for axis in w if axis not in y]
    made = [axis for axis in w if axis not in x]
    num, *flat = (math.prod(known[axis] for axis in axes) for axes in (shared, taken, made))

    def one(key: jax.Array) -> jax.Array:
        return w_init(key, tuple(flat), jnp.float32)

    maps = jax.vmap(one)(indexed_keys(key, num)) if shared else one(key)
    order = [*shared, *taken, *made]
    return maps.reshape([known[axis] for axis in order]).transpose([order.index(axis) for axis in w])


def _beside(b: jax.Array, axes: str, y: str, rank: int) -> jax.Array:
    """The bias with an axis of 1 for every axis of `y` that it does not have."""
    before, _, after = y.partition("...")
    names = [*before, *[""] * (rank - len(before) - len(after)), *after]
    sizes = dict(zip(axes, b.shape, strict=True))
    return b.reshape([sizes.get(name, 1) for name in names])


def _letters(term: str) -> str:
    return term.replace("...", "", 1)


def _in_order(axes: Any, y: str) -> bool:
    return isinstance(axes, str) and axes == "".join(axis for axis in _letters(y) if axis in axes)


def _in_words(axes: str, known: dict[str, int]) -> str:
    before, dots, after = axes.partition("...")
    names = [*before, *([dots] if dots else []), *after]
    return f"[{', '.join(str(known.get(name, name)) for name in names)}]"
