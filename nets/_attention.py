"""Attention: each position takes a mean over others, weighted by how well they match."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ._attend import attend_to, both, closed_by, fitting, near, zero_where_blind
from ._cache import recall, start_of
from ._check import check_size
from ._define import Initializer, define
from ._dropout import dropout
from ._errors import NetError, ShapeError
from ._initializers import lecun_normal, zeros
from ._net import Net, layer
from ._projection import check_drop_rate, projection


@layer
def attention(
    num_heads: int,
    *,
    head_size: int | None = None,
    num_kv_heads: int | None = None,
    features: int | None = None,
    causal: bool = False,
    window: int | None = None,
    rope: Net | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
    implementation: Literal["cudnn"] | None = None,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Multi-head attention, of a sequence to itself or to a memory.

    Scores and their softmax are taken in float32 at least. Where a query may look at no key at all, its heads
    give zeros, and no gradient.

    With `cache=` a number, `apply` makes an empty `KVCache` of so many positions, and with `cache=` what the
    call before returned, it goes on from there; in both cases it returns `(y, cache)`. The new tokens may be
    any number. More than the whole cache holds are refused; the output at a position past the end is NaN, and
    the cache keeps what it had.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2; with fewer heads for keys and
    values, Ainslie et al. 2023, https://arxiv.org/abs/2305.13245.

    Args:
      num_heads: how many heads.
      head_size: features of a head; `in / num_heads` unless given.
      num_kv_heads: how many heads keys and values have, a divisor of `num_heads`, each for as many neighbouring
        heads of queries; `num_heads` unless given.
      features: size of the last axis of the output; that of the input unless given.
      causal: whether a position sees only itself and those before it.
      window: a position sees only those less than `window` away from it.
      rope: a net that turns queries and keys `[..., time, heads, head_size]` by their positions `[time]`, such as
        `rotary()`.
      bias: whether the four maps have a `b`.
      drop_rate: the share of the weights that is dropped in training.
      implementation: `"cudnn"` is the fused kernel of NVIDIA's cuDNN, which keeps no scores: its memory grows with the
        time and not with its square, but for a mask, a cache, or a window without causality. It runs on such a GPU
        alone, in bfloat16 unless queries are float16, with heads of a multiple of 8 features and, to be trained with
        one of those three, even times and lengths; it drops no weights, takes no `bias`, and has one derivative, in
        reverse mode. `vmap` and meshes of explicit axes go as far as `jax.nn.dot_product_attention` does with it:
        what is mapped over is to be in front of all inputs. By default XLA compiles what there is to compute, for
        any device and with all derivatives and transforms.
      w_init: `w_init(key, (product of in, product of out), dtype)` makes each `w`, flattened.
      b_init: `b_init(key, shape, dtype) -> b`.
    Returns:
      A net from `x [..., time, in]`, and `memory [..., length, in2]` to look at if it is not `x` itself, to
      `[..., time, features]`. By name it takes `mask`, booleans that broadcast to `[..., num_heads, time,
      length]`, True where a query may look at a key; `bias`, floats that broadcast to the same, added to the
      scores; minus infinity, or the least finite number, hides a key as a mask does; and `cache`, with which `length`
      is that of the cache. Its float32 params are
      `{"q": {"w": [in, num_heads, head_size], "b": [num_heads, head_size]}, "k": ..., "v": ...,
      "out": {"w": [num_heads, head_size, features], "b": [features]}}`, those of `k` and `v` with `in2` and
      `num_kv_heads`.
    Raises:
      ShapeError: if inputs, mask, bias or cache do not fit each other or the parameters.
      NetError: if there is a memory and also a cache, causality or a window, or a cache without causality; or cuDNN
        is to compute and is not there, or does not know the sizes.

    >>> net = attention(2, causal=True, rope=rotary())
    >>> x = jax.random.normal(jax.random.key(1), (3, 5, 8))
    >>> params = net.init(jax.random.key(0), x)
    >>> net.apply(params, x).shape, params["q"]["w"].shape
    ((3, 5, 8), (8, 2, 4))
    """
    _check_sizes(num_heads, head_size, num_kv_heads, features, window)
    check_drop_rate("attention", drop_rate)
    _check_implementation(implementation, drop_rate)
    if rope is not None and (not isinstance(rope, Net) or rope.core.has_params or rope.core.stateful):
        raise TypeError(f"attention: expected rope to be a network without parameters, got {rope!r}")
    project = functools.partial(projection, bias=bias, w_init=w_init, b_init=b_init)

    @define
    def body(
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        q=project(),
        k=project(),
        v=project(),
        out=project(2),
        drop=dropout(drop_rate),
        mask=None,
        bias=None,
        cache=None,
        train,
    ):
        x = jnp.asarray(x)
        source = x if memory is None else jnp.asarray(memory)
        _check_inputs(x, source)
        _check_uses(memory is not None, cache is not None, causal, window is not None)
        size = head_size or _head_size(x, num_heads)
        queries = q(x, sizes=(num_heads, size))
        keys, values = (child(source, sizes=(num_kv_heads or num_heads, size)) for child in (k, v))
        keys, values = keys.astype(queries.dtype), values.astype(queries.dtype)
        places = start_of(cache, keys) + jnp.arange(x.shape[-2])
        if rope is not None:
            queries = rope(queries, places)
            keys = rope(keys, places if memory is None else jnp.arange(source.shape[-2]))
        keys, values, cached = recall(cache, keys, values)
        length = source.shape[-2] if cached is None else cached.keys.shape[-3]
        scores = (*x.shape[:-2], num_heads, x.shape[-2], length)
        mask, bias = (fitting(*given, scores, keys.shape[-3]) for given in (("mask", mask), ("bias", bias)))
        mask, bias = closed_by(bias, mask)
        within = near(places, keys.shape[-3], causal, window)
        span = None if window is None else window - 1
        reach = (None, None) if cached is not None else (span, 0 if causal else span)
        y = attend_to(
            *(queries, keys, values), mask=mask, within=within, bias=bias, reach=reach,
            drop=drop if train and drop_rate else None, by_cudnn=implementation == "cudnn",
        )  # fmt: skip
        y = zero_where_blind(y, None if mask is None else both(mask, within))
        y = y if cached is None else jnp.where((places < length)[:, None, None], y, jnp.nan)
        y = out(y, sizes=(features or x.shape[-1],))
        return y if cached is None else (y, cached)

    return body


def _check_sizes(
    num_heads: int, head_size: int | None, num_kv_heads: int | None, features: int | None, window: int | None
) -> None:
    check_size("attention", "num_heads", num_heads)
    named = {"head_size": head_size, "num_kv_heads": num_kv_heads, "features": features, "window": window}
    for name, size in named.items():
        if size is not None:
            check_size("attention", name, size)
    if num_kv_heads is not None and num_heads % num_kv_heads:
        raise ValueError(f"attention: expected num_kv_heads to divide num_heads, {num_heads}, got {num_kv_heads}")


def _check_implementation(implementation: Any, drop_rate: float) -> None:
    if implementation not in (None, "cudnn"):
        raise ValueError(f"attention: expected implementation to be None or 'cudnn', got {implementation!r}")
    if implementation is not None and drop_rate:
        raise ValueError(f"attention: expected drop_rate=0 with implementation='cudnn', got {drop_rate!r}")


def _check_inputs(x: jax.Array, source: jax.Array) -> None:
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ShapeError("an input [..., time, features]", f"{x.shape}")
    if source.ndim != x.ndim or source.shape[:-2] != x.shape[:-2] or 0 in source.shape[-2:]:
        wanted = ", ".join([*map(str, x.shape[:-2]), "length", "features"])
        raise ShapeError(f"a memory [{wanted}] beside an input {x.shape}", f"{source.shape}")


def _check_uses(has_memory: bool, has_cache: bool, causal: bool, windowed: bool) -> None:
    if has_memory and (has_cache or causal or windowed):
        found = "a cache" if has_cache else "causal=True" if causal else "a window"
        raise NetError("a memory without a cache, causality or a window", f"a memory and {found}")
    if has_cache and not causal:
        raise NetError("a cache for causal attention only", "causal=False", "Build it with causal=True.")


def _head_size(x: jax.Array, num_heads: int) -> int:
    if x.shape[-1] % num_heads:
        hint = "Give head_size= the features of a head."
        raise ShapeError(f"an input [..., time, features] with a multiple of {num_heads} features", f"{x.shape}", hint)
    return x.shape[-1] // num_heads
