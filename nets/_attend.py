"""The mean of values, weighted by how well their keys match a query."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._check import at_least_float32
from ._errors import ShapeError

Drop = Callable[[jax.Array], jax.Array]


def attend_to(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop: Drop | None = None,
) -> jax.Array:
    """Values weighted by the softmax of scores: `[..., time, heads, head_size]` from those of all three.

    Keys and values may have fewer heads, a divisor. Where the mask `[..., heads or 1, time or 1, length or 1]` has no
    True, the weights are the same for all keys.
    """
    if drop is not None or queries.dtype not in (jnp.float32, jnp.bfloat16):
        return _plain(queries, keys, values, mask, bias, drop)
    if queries.dtype == jnp.bfloat16 or keys.shape[-2] != queries.shape[-2]:
        return _fused(queries, keys, values, mask, bias)
    # On CPUs the plain form is faster where heads are not grouped: benchmarks/nets.py transformer.
    return lax.platform_dependent(queries, keys, values, mask, bias, cpu=_plain, default=_fused)


def _plain(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    drop: Drop | None = None,
) -> jax.Array:
    dtype = at_least_float32(queries.dtype)
    num_heads, groups = queries.shape[-2], keys.shape[-2]
    grouped = queries.reshape(*queries.shape[:-2], groups, num_heads // groups, queries.shape[-1])
    scale = 1 / math.sqrt(queries.shape[-1])
    # Scores are many more than queries, but queries in half precision would lose digits.
    before, after = (scale, 1) if queries.dtype == dtype else (1, scale)
    scores = after * jnp.einsum("...tkgd,...skd->...kgts", before * grouped, keys, preferred_element_type=dtype)
    by_group = scores.shape
    scores = scores.reshape(*by_group[:-4], num_heads, *by_group[-2:])
    scores = scores if bias is None else scores + bias.astype(dtype)
    weights = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, jnp.finfo(dtype).min))
    weights = weights if drop is None else drop(weights)
    weights = weights.reshape(*weights.shape[:-3], *by_group[-4:-2], *weights.shape[-2:]).astype(values.dtype)
    y = jnp.einsum("...kgts,...skd->...tkgd", weights, values, preferred_element_type=dtype)
    return y.reshape(queries.shape).astype(values.dtype)


def _fused(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None, bias: jax.Array | None
) -> jax.Array:
    """The same by JAX's own function, which takes one batch axis.

    In float64 it would round the weights to float32, and in float16 it does not compile on every device.
    """
    batch = queries.shape[:-3]
    size = math.prod(batch)

    def fold(array: jax.Array) -> jax.Array:
        return array if len(batch) == 1 else array.reshape(size, *array.shape[-3:])

    def spread(array: jax.Array | None) -> jax.Array | None:
        if array is None or math.prod(array.shape[:-3]) == 1:
            return None if array is None else array.reshape(1, *array.shape[-3:])
        return fold(jnp.broadcast_to(array, (*batch, *array.shape[-3:])))

    y = jax.nn.dot_product_attention(fold(queries), fold(keys), fold(values), spread(bias), spread(mask))
    return y.reshape(queries.shape)


def near(places: jax.Array, num_keys: int, causal: bool, window: int | None) -> jax.Array | None:
    """Which keys a query at each place may look at: `[1, time, num_keys]`, or None for all."""
    if not causal and window is None:
        return None
    apart = places[:, None] - jnp.arange(num_keys)
    least, most = 0 if causal else 1 - (window or 0), num_keys if window is None else window - 1
    return ((least <= apart) & (apart <= most))[None]


def both(mask: jax.Array | None, other: jax.Array | None) -> jax.Array | None:
    """Where two masks are True."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def closed_by(bias: jax.Array | None, mask: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
    """Mask and bias, with the keys that the bias hides, by minus infinity or the least finite number, in the mask."""
    if bias is None:
        return mask, bias
    hidden = bias <= jnp.finfo(bias.dtype).min
    return both(mask, ~hidden), jnp.where(hidden, 0, bias)


def zero_where_blind(y: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Zeros for those heads of `y [..., time, heads, head_size]` that may look at no key."""
    return y if mask is None else jnp.where(jnp.swapaxes(mask.any(-1), -1, -2)[..., None], y, 0)


def fitting(name: str, given: Any, shape: tuple[int, ...], num_keys: int) -> jax.Array | None:
    """A mask or bias of scores of this shape, with three axes at least, for the first `num_keys` keys.

    Raises:
      ShapeError: if it does not broadcast to that shape, or is of another kind of numbers.
    """
    if given is None:
        return None
    array, kind = jnp.asarray(given), np.bool_ if name == "mask" else np.floating
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits or not jnp.issubdtype(array.dtype, kind):
        what = "booleans" if name == "mask" else "floats"
        raise ShapeError(f"a {name} of {what} that broadcasts to {shape}", f"{array.dtype} {array.shape}")
    array = array.reshape((1,) * (3 - array.ndim) + array.shape)
    return array if array.shape[-1] == 1 else array[..., :num_keys]
