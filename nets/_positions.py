"""What tells a network where in a sequence a vector stands."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ._check import at_least_float32, check_arrays, check_size, dtype_for
from ._define import Initializer
from ._errors import ShapeError
from ._initializers import normal
from ._keys import child_key
from ._linear import embed
from ._net import Net, layer


@layer
def rotary(
    *, theta: float = 10_000.0, num_features: int | None = None, layout: Literal["halves", "pairs"] = "halves"
) -> Net:
    """Turns pairs of features of queries and keys by angles that grow with the position.

    The pair number `i` of `num_features / 2` turns by `position * theta ** (-2 * i / num_features)`, so the
    product of a query and a key depends on their positions through the difference alone. Angles are taken in
    float32 at least.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, section 3.2.

    Args:
      theta: how slowly the last pair turns: its wavelength is a little less than `2 * pi * theta` positions.
      num_features: how many leading features of a head are turned, an even number; all unless given.
      layout: which features make a pair: `"pairs"`, neighbours, as in the paper and in GPT-J; `"halves"`, one
        of the first half with its like in the second, as in GPT-NeoX and Llama.
    Returns:
      A net from `x [..., time, heads, head_size]` and integers `positions [..., time]`, which are
      `0, 1, ..., time - 1` unless given, to the shape of `x`, without parameters.
    Raises:
      ShapeError: if `x` has fewer axes or features, or an odd number of features to turn, or if `positions`
        are no integers or do not broadcast to `[..., time]` of `x`.

    >>> x = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    >>> rotary()(x).round(2).tolist()
    [[[1.0, 0.0]], [[0.5399999618530273, 0.8399999737739563]]]
    """
    _check_period("rotary", "theta", theta)
    if num_features is not None:
        check_size("rotary", "num_features", num_features)
    if num_features is not None and num_features % 2:
        raise ValueError(f"rotary: expected num_features to be even, got {num_features!r}")
    if layout not in ("halves", "pairs"):
        raise ValueError(f"rotary: expected layout to be 'halves' or 'pairs', got {layout!r}")

    def apply(params: dict, x: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        x = jnp.asarray(x)
        _check_heads(x, num_features)
        places = _places(positions, x.shape[:-2])
        turned = x.shape[-1] if num_features is None else num_features
        dtype = at_least_float32(dtype_for(x))
        angles = _angles(places, theta, turned, dtype)[..., None, :]
        a, b = _unpaired(x[..., :turned].astype(dtype), layout)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        y = _paired(a * cos - b * sin, b * cos + a * sin, layout).astype(dtype_for(x))
        return jnp.concatenate([y, x[..., turned:].astype(y.dtype)], -1)

    return Net(None, apply)


@layer
def alibi(num_heads: int) -> Net:
    """What attention's scores lose with distance: `-slope * |query position - key position|`, a slope a head.

    For a power of two the slopes are `2 ** (-8 * i / num_heads)`, i from 1 on; for another number, those of
    the power of two below it and then every other one of those of the power above. Keys that come after a
    query lose as much as those before it; the paper masks them out.

    Source: Press, Smith, Lewis 2022, https://arxiv.org/abs/2108.12409, section 3.

    Args:
      num_heads: how many heads.
    Returns:
      A net from integers `query_positions [..., queries]` and `key_positions [..., keys]` to float32
      `[..., num_heads, queries, keys]`, without parameters.
    Raises:
      ShapeError: if positions are no integers, or if their leading axes do not broadcast together.

    >>> alibi(2)(jnp.array([2]), jnp.arange(3)).tolist()
    [[[-0.125, -0.0625, 0.0]], [[-0.0078125, -0.00390625, 0.0]]]
    """
    check_size("alibi", "num_heads", num_heads)

    def apply(params: dict, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        queries, keys = jnp.asarray(query_positions), jnp.asarray(key_positions)
        for name, given in (("query_positions", queries), ("key_positions", keys)):
            if given.ndim < 1 or not jnp.issubdtype(given.dtype, jnp.integer):
                raise ShapeError(f"{name} [..., length] of integers", f"{given.dtype} {given.shape}")
        if _broadcast(queries.shape[:-1], keys.shape[:-1]) is None:
            raise ShapeError("positions whose leading axes broadcast together", f"{queries.shape} and {keys.shape}")
        # Differences of int32 are exact, and right for unsigned positions too.
        apart = jnp.abs(queries.astype(jnp.int32)[..., None, :, None] - keys.astype(jnp.int32)[..., None, None, :])
        return jnp.asarray(_slopes(num_heads))[:, None, None] * (-apart).astype(jnp.float32)

    return Net(None, apply)


@layer
def learned_positions(max_length: int, *, w_init: Initializer = normal(0.02)) -> Net:
    """Adds a learned vector to each time step: `x + w[positions]`.

    A position outside `[0, max_length)` gives NaN, so that it is seen, and no gradient.

    Source: Gehring et al. 2017, https://arxiv.org/abs/1705.03122, section 3.1.

    Args:
      max_length: how many positions have a vector.
      w_init: `w_init(key, shape, dtype) -> w`.
    Returns:
      A net from `x [..., time, features]` to the same with float32 params `{"w": [max_length, features]}`.
      Integers `positions= [..., time]` are `0, 1, ..., time - 1` unless given.
    Raises:
      ShapeError: if `x` is longer than `max_length` and no positions are given, if its features are not those
        that the parameters were made for, or if `positions` are no integers or do not broadcast to
        `[..., time]` of `x`.

    >>> net = learned_positions(8)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 5, 4)))
    >>> params["w"].shape, net.apply(params, jnp.ones((2, 5, 4))).shape
    ((8, 4), (2, 5, 4))
    """
    check_size("learned_positions", "max_length", max_length)

    def check(x: Any, positions: Any) -> None:
        _check_sequence(x)
        if positions is None and x.shape[-2] > max_length:
            raise ShapeError(f"an input [..., time, features] of at most {max_length} steps", f"{tuple(x.shape)}")

    def init(key: jax.Array, x: jax.ShapeDtypeStruct, *, positions: Any = None) -> dict:
        check(x, positions)
        return {"w": w_init(child_key(key, "w"), (max_length, x.shape[-1]), jnp.float32)}

    def apply(params: dict, x: jax.Array, *, positions: jax.Array | None = None) -> jax.Array:
        check_arrays(params, {"w": (max_length, None)})
        x, w = jnp.asarray(x), params["w"]
        check(x, positions)
        _check_sequence(x, w.shape[-1])
        dtype = dtype_for(x, w)
        if positions is None:
            rows = w[: x.shape[-2]]
        else:
            rows = embed(max_length, w.shape[-1]).apply(params, _places(positions, x.shape[:-1]))
        return x.astype(dtype) + rows.astype(dtype)

    return Net(init, apply)


@layer
def sinusoidal_positions(*, max_period: float = 10_000.0) -> Net:
    """Adds sines and cosines of the position to each time step.

    Feature `2 * i` of `features` gains `sin(angle)` and feature `2 * i + 1` gains `cos(angle)`, where `angle =
    position * max_period ** (-2 * i / features)`: sines and cosines take turns, as in the paper. Angles are
    taken in float32 at least.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5.

    Args:
      max_period: the last wavelengths are a little less than `2 * pi * max_period` positions.
    Returns:
      A net from `x [..., time, features]` to the same, without parameters. Integers `positions= [..., time]`
      are `0, 1, ..., time - 1` unless given.
    Raises:
      ShapeError: if `x` has fewer axes, or if `positions` are no integers or do not broadcast to
        `[..., time]` of `x`.

    >>> sinusoidal_positions()(jnp.zeros((2, 2))).round(2).tolist()
    [[0.0, 1.0], [0.8399999737739563, 0.5399999618530273]]
    """
    _check_period("sinusoidal_positions", "max_period", max_period)

    def apply(params: dict, x: jax.Array, *, positions: jax.Array | None = None) -> jax.Array:
        x = jnp.asarray(x)
        _check_sequence(x)
        places = _places(positions, x.shape[:-1])
        dtype = at_least_float32(dtype_for(x))
        angles = _angles(places, max_period, x.shape[-1], dtype)
        waves = _paired(jnp.sin(angles), jnp.cos(angles), "pairs")[..., : x.shape[-1]]
        return (x.astype(dtype) + waves).astype(dtype_for(x))

    return Net(None, apply)


def _angles(places: jax.Array, period: float, num_features: int, dtype: Any) -> jax.Array:
    """The angle of each pair of features: `[..., time, ceil(num_features / 2)]` from `[..., time]`."""
    frequencies = period ** (-np.arange(0, num_features, 2) / num_features)
    return places[..., None].astype(dtype) * frequencies.astype(dtype)


def _unpaired(x: jax.Array, layout: str) -> tuple[jax.Array, jax.Array]:
    if layout == "pairs":
        return x[..., ::2], x[..., 1::2]
    first, second = jnp.split(x, 2, -1)
    return first, second


def _paired(first: jax.Array, second: jax.Array, layout: str) -> jax.Array:
    if layout == "pairs":
        return jnp.stack([first, second], -1).reshape(*first.shape[:-1], 2 * first.shape[-1])
    return jnp.concatenate([first, second], -1)


def _slopes(num_heads: int) -> np.ndarray:
    below = 2 ** int(math.log2(num_heads))
    slopes = 2.0 ** (-8 / below * np.arange(1, below + 1))
    further = 2.0 ** (-4 / below * np.arange(1, 2 * (num_heads - below), 2))
    return np.concatenate([slopes, further]).astype(np.float32)


def _places(positions: Any, shape: tuple[int, ...]) -> jax.Array:
    """The positions of an input with leading axes `shape = (..., time)`."""
    if positions is None:
        return jnp.arange(shape[-1])
    positions = jnp.asarray(positions)
    fits = positions.shape[-1:] == shape[-1:] and _broadcast(positions.shape, shape) == shape
    if not fits or not jnp.issubdtype(positions.dtype, jnp.integer):
        raise ShapeError(
            f"positions [..., time] of integers that broadcast to {shape}", f"{positions.dtype} {positions.shape}"
        )
    return positions


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def _check_period(name: str, argument: str, period: float) -> None:
    if not 0 < period < math.inf:
        raise ValueError(f"{name}: expected {argument} to be a number above 0, got {period!r}")


def _check_sequence(x: Any, features: int | None = None) -> None:
    if len(x.shape) < 2 or x.shape[-1] < 1 or (features is not None and x.shape[-1] != features):
        wanted = "features" if features is None else features
        raise ShapeError(f"an input [..., time, {wanted}]", f"{tuple(x.shape)}")


def _check_heads(x: jax.Array, num_features: int | None) -> None:
    size = x.shape[-1] if x.ndim else 0
    if x.ndim < 3 or size < (num_features or 2) or (num_features is None and size % 2):
        wanted = "an even number of" if num_features is None else f"at least {num_features}"
        raise ShapeError(f"an input [..., time, heads, head_size] with {wanted} features a head", f"{x.shape}")
