"""What attention carries from one step of decoding to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._errors import NetError, ShapeError, shape_of


class KVCache(NamedTuple):
    """Keys and values of the positions that attention has seen.

    Attributes:
      keys: `[..., max_length, kv_heads, head_size]`, turned by the positions where there is a `rope`.
      values: `[..., max_length, kv_heads, head_size]`.
      length: `[]`, how many positions are filled: the first ones.

    >>> net = attention(2, causal=True)
    >>> x = jnp.ones((5, 4))
    >>> params = net.init(jax.random.key(0), x)
    >>> y, cache = net.apply(params, x[:3], cache=8)
    >>> y, cache = net.apply(params, x[3:], cache=cache)
    >>> cache.keys.shape, cache.length.item()
    ((8, 2, 2), 5)
    """

    keys: jax.Array
    values: jax.Array
    length: jax.Array


def start_of(cache: KVCache | int | None, keys: jax.Array) -> jax.Array | int:
    """The position of the first of some new tokens, given their keys `[..., time, kv_heads, head_size]`.

    Raises:
      NetError: if the cache is neither a cache nor a number.
      ShapeError: if it is not made for such keys, or too short for them.
    """
    if cache is None:
        return 0
    max_length, num = _max_length(cache, keys), keys.shape[-3]
    if num > max_length:
        raise ShapeError(f"at most {max_length} new positions, as many as the cache holds", f"{num}")
    return cache.length if isinstance(cache, KVCache) else 0


def recall(
    cache: KVCache | int | None, keys: jax.Array, values: jax.Array
) -> tuple[jax.Array, jax.Array, KVCache | None]:
    """Keys and values to look at, given new ones, and the cache that holds them; what does not fit is left out."""
    if cache is None:
        return keys, values, None
    num = keys.shape[-3]
    if not isinstance(cache, KVCache):
        padding = [(0, 0)] * (keys.ndim - 3) + [(0, cache - num), (0, 0), (0, 0)]
        return keys, values, KVCache(jnp.pad(keys, padding), jnp.pad(values, padding), jnp.asarray(num, jnp.int32))
    slots = cache.length + jnp.arange(num)
    length = jnp.minimum(cache.length + num, cache.keys.shape[-3]).astype(cache.length.dtype)
    cache = KVCache(_write(cache.keys, slots, keys), _write(cache.values, slots, values), length)
    return cache.keys, cache.values, cache


def _write(old: jax.Array, slots: jax.Array, new: jax.Array) -> jax.Array:
    options: Any = {"mode": "drop", "indices_are_sorted": True, "unique_indices": True}
    return jnp.asarray(old).at[..., slots, :, :].set(new, **options)


def _max_length(cache: Any, keys: jax.Array) -> int:
    if isinstance(cache, int) and not isinstance(cache, bool) and cache > 0:
        return cache
    if not isinstance(cache, KVCache):
        given = repr(cache) if isinstance(cache, int | float | str) else type(cache).__name__
        hint = "Under jax.jit a number must be static: name cache in static_argnames."
        raise NetError("cache to be a KVCache or a number of positions", given, hint)
    _check_cache(cache, keys)
    return cache.keys.shape[-3]


def _check_cache(cache: KVCache, keys: jax.Array) -> None:
    shapes, dtypes = ([getattr(array, name, None) for array in cache] for name in ("shape", "dtype"))
    length = shapes[0][-3] if shapes[0] is not None and len(shapes[0]) == keys.ndim else None
    wanted = (*keys.shape[:-3], length, *keys.shape[-2:])
    fits = shapes == [wanted, wanted, ()] and dtypes[:2] == [keys.dtype, keys.dtype] and _is_integer(dtypes[2])
    if length is None or not fits:
        axes = ", ".join(map(str, (*keys.shape[:-3], "max_length", *keys.shape[-2:])))
        given = f"{', '.join(map(str, dtypes))} {shape_of(tuple(cache))}"
        raise ShapeError(f"a cache of {keys.dtype} keys and values [{axes}] and an integer length []", given)


def _is_integer(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.integer)
