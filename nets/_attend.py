"""The mean of values, weighted by how well their keys match a query."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ._check import at_least_float32
from ._errors import NetError, ShapeError

Drop = Callable[[jax.Array], jax.Array]
Reach = tuple[int | None, int | None]
_BLOCK, _FEW_BLOCKS = 128, 8
_GROUP, _MOST_GROUPS = 512, 16
_KEPT = "attention of a block"


def attend_to(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    mask: jax.Array | None = None,
    within: jax.Array | None = None,
    bias: jax.Array | None = None,
    reach: Reach = (None, None),
    drop: Drop | None = None,
    by_cudnn: bool = False,
) -> jax.Array:
    """Values weighted by the softmax of scores: `[..., time, heads, head_size]` from those of all three.

    Keys and values may have fewer heads, a divisor. Where the mask `[..., heads or 1, time or 1, length or 1]` has no
    True, the weights are the same for all keys, or for some of them. `reach` says how many keys before and after its
    own place a query may see at most, None for all; `within`, a second mask, says so too.
    """
    if by_cudnn and bias is not None:  # under `vmap`, JAX adds up its gradients over what is mapped
        raise NetError("no bias where cuDNN is to compute attention", "one")
    if by_cudnn:
        return _by_cudnn(queries, keys, values, mask, within, reach)
    mask = both(mask, within)
    if drop is not None or queries.dtype not in (jnp.float32, jnp.bfloat16):
        return _plain(queries, keys, values, mask, bias, drop)
    by_block = functools.partial(_by_block, reach=reach) if _is_long(queries, keys) else None
    if queries.dtype == jnp.bfloat16 or (keys.shape[-2] != queries.shape[-2] and by_block is None):
        return _by_jax(queries, keys, values, mask, bias)
    # On CPUs the plain form is faster where heads are not grouped: benchmarks/nets.py transformer.
    return lax.platform_dependent(queries, keys, values, mask, bias, cpu=by_block or _plain, default=_by_jax)


def _plain(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    drop: Drop | None = None,
) -> jax.Array:
    return jnp.swapaxes(_mean(*_heads_first(queries, keys, values), mask, bias, drop), -3, -2)


def _is_long(queries: jax.Array, keys: jax.Array) -> bool:
    """Whether queries make more than a block: not where time is a symbol (`jax.export`), or spread over devices."""
    num, is_spread = queries.shape[-3], any(jax.typeof(each).sharding.spec[-3] for each in (queries, keys))
    return isinstance(num, int) and num > _BLOCK and not is_spread


def _by_block(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    reach: Reach,
) -> jax.Array:
    """The same for one block of queries after the other, without the keys that none of a block may see.

    Many blocks are made in groups, each of which sees the same keys: programs then do not grow with the sequence, and
    take the less fresh memory. The backward pass of a group computes the scores again; those of a few single blocks
    XLA's CPU backend keeps: outside of loops it drops the barrier of `jax.checkpoint`. On CPUs a causal layer over
    2,048 tokens takes a third of the time that those take which make all scores at once: benchmarks/attention.py.
    """
    num, length = queries.shape[-3], keys.shape[-3]
    size = _BLOCK if num <= _FEW_BLOCKS * _BLOCK else max(_GROUP, -(-num // _MOST_GROUPS))
    q, k, v = _heads_first(queries, keys, values)
    blocks = []
    for begin in range(0, num, size):
        end = min(begin + size, num)
        first = 0 if reach[0] is None else max(0, begin - reach[0])
        last = length if reach[1] is None else min(length, end + reach[1])
        cut = functools.partial(_cut, rows=slice(begin, end), columns=slice(first, last))
        k_seen, v_seen = k[..., first:last, :], v[..., first:last, :]
        blocks.append(_in_turn(q[..., begin:end, :], k_seen, v_seen, cut(mask), cut(bias)))
    return jnp.swapaxes(jnp.concatenate(blocks, -2), -3, -2)


def _in_turn(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """One block, or a loop over those of a group."""
    num = q.shape[-2]
    count = -(-num // _BLOCK)
    if count == 1:
        return _made_again(_mean_of_block)(q, k, v, mask, bias)
    size = -(-num // count)

    def rows(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, size * count - num), (0, 0)])
        return jnp.moveaxis(padded.reshape(*array.shape[:-2], count, size, array.shape[-1]), -3, 0)

    # Keys have time last here: their derivatives are then products of a form that XLA's CPU backend is fast at.
    each, keys = {"q": rows(q)}, jnp.swapaxes(k, -1, -2)
    shared: dict[str, Any] = {"v": v, "mask": None, "bias": None}
    for name, array in (("mask", mask), ("bias", bias)):
        if array is not None:
            (each if array.shape[-2] == num else shared)[name] = rows(array) if array.shape[-2] == num else array

    def some(each: dict[str, jax.Array]) -> jax.Array:
        return _mean_of_block(k=jnp.swapaxes(keys, -1, -2), **(shared | each))

    some = _made_again(some, prevent_cse=False)
    y = jnp.moveaxis(lax.map(some, each), 0, -3)
    return y.reshape(*y.shape[:-3], size * count, y.shape[-1])[..., :num, :]


def _made_again(function: Callable[..., jax.Array], *, prevent_cse: bool = True) -> Callable[..., jax.Array]:
    """A function of which the backward pass is to keep no scores, just what `_mean_of_block` names."""
    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return jax.checkpoint(function, policy=policy, prevent_cse=prevent_cse)


def _mean_of_block(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, bias: jax.Array | None
) -> jax.Array:
    """What `_mean` gives, divided by the sum of the weights at its end: that passes over the scores less often."""
    scores = _scores(q, k, mask, bias)
    highest = checkpoint_name(lax.stop_gradient(scores.max(-1, keepdims=True)), _KEPT)
    weights = jnp.exp(scores - highest)  # the mean does not depend on the highest
    total = checkpoint_name(weights.sum(-1, keepdims=True), _KEPT)
    return checkpoint_name(_weighted(weights, v), _KEPT) / total


def _mean(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    drop: Drop | None = None,
) -> jax.Array:
    """`[..., heads, time, head_size]` from what `_heads_first` gives."""
    weights = jax.nn.softmax(_scores(q, k, mask, bias))
    return _weighted(weights if drop is None else drop(weights), v)


def _scores(q: jax.Array, k: jax.Array, mask: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """`[..., heads, time, length]`, in at least float32."""
    dtype, heads, groups = at_least_float32(q.dtype), q.shape[-3], k.shape[-3]
    alike = heads == groups  # a third axis of heads would cost a fifth of the time
    q = q if alike else q.reshape(*q.shape[:-3], groups, heads // groups, *q.shape[-2:])
    head, of = ("h", "h") if alike else ("kg", "k")
    scores = jnp.einsum(f"...{head}td,...{of}sd->...{head}ts", q, k, preferred_element_type=dtype)
    scores = scores if alike else scores.reshape(*scores.shape[:-4], heads, *scores.shape[-2:])
    scores = scores if q.dtype == dtype else scores / math.sqrt(q.shape[-1])
    scores = scores if bias is None else scores + bias.astype(dtype)
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(dtype).min)


def _weighted(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums of values: `[..., heads, time, head_size]`, in their dtype."""
    dtype, heads, groups = weights.dtype, weights.shape[-3], v.shape[-3]
    alike = heads == groups
    weights = weights if alike else weights.reshape(*weights.shape[:-3], groups, heads // groups, *weights.shape[-2:])
    head, of = ("h", "h") if alike else ("kg", "k")
    y = jnp.einsum(f"...{head}ts,...{of}sd->...{head}td", weights.astype(v.dtype), v, preferred_element_type=dtype)
    y = y.astype(v.dtype)
    return y if alike else y.reshape(*y.shape[:-4], heads, *y.shape[-2:])


def _heads_first(queries: jax.Array, keys: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[..., heads, time, head_size]` of each; queries in full precision are scaled.

    Scores are many more than queries, but queries in half precision would lose digits.
    """
    full = queries.dtype == at_least_float32(queries.dtype)
    queries = queries / math.sqrt(queries.shape[-1]) if full else queries
    q, k, v = (jnp.swapaxes(each, -3, -2) for each in (queries, keys, values))
    return q, k, v


def _cut(array: jax.Array | None, rows: slice, columns: slice) -> jax.Array | None:
    """What a mask or bias has for some queries and keys; an axis of 1 is for all."""
    if array is None:
        return None
    array = array if array.shape[-2] == 1 else array[..., rows, :]
    return array if array.shape[-1] == 1 else array[..., columns]


def _by_cudnn(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    within: jax.Array | None,
    reach: Reach,
) -> jax.Array:
    """The same by the fused kernel of NVIDIA's cuDNN, which knows of causality and needs no mask to be told."""
    dtype = queries.dtype if queries.dtype in (jnp.float16, jnp.bfloat16) else jnp.bfloat16
    num, length, options = queries.shape[-3], keys.shape[-3], {}
    if reach[1] == 0 and num == length and num > 1:
        before = None if reach[0] is None or reach[0] >= num - 1 else reach[0]
        options["is_causal"] = True
        if before is None or mask is None:  # older versions take no mask beside a window
            within, options["local_window_size"] = None, None if before is None else (before, 0)
    mask = both(mask, within)
    mask = None if mask is None else jnp.broadcast_to(mask, (*mask.shape[:-2], num, length))
    arrays = (array.astype(dtype) for array in (queries, keys, values))
    try:
        return _by_jax(*arrays, mask, None, implementation="cudnn", **options).astype(queries.dtype)
    except RuntimeError as error:  # there is no cuDNN, or it does not know these sizes
        wanted = "sizes that cuDNN's attention takes, and a machine that has it"
        raise NetError(wanted, f"its refusal ({str(error).rstrip('.')})") from error


def _by_jax(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    **options: Any,
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

    y = jax.nn.dot_product_attention(fold(queries), fold(keys), fold(values), spread(bias), spread(mask), **options)
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
