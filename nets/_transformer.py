"""The transformer: blocks of attention and of what each position does by itself."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ._attention import attention
from ._cache import KVCache
from ._check import check_size
from ._combine import serial
from ._define import define
from ._dropout import dropout
from ._errors import ShapeError
from ._feed_forward import feed_forward
from ._linear import attend, embed
from ._net import Net, layer
from ._norm import layer_norm
from ._positions import learned_positions
from ._stack import repeat


@layer
def transformer_block(
    num_heads: int,
    *,
    mlp: Net | None = None,
    norm: Net | None = None,
    head_size: int | None = None,
    num_kv_heads: int | None = None,
    causal: bool = False,
    window: int | None = None,
    rope: Net | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
    implementation: Literal["cudnn"] | None = None,
) -> Net:
    """Attention and a feed-forward net, each on the normed input and added to it.

    That is `x = x + drop(attn(attn_norm(x)))`, then `x + drop(mlp(mlp_norm(x)))`.

    Source: Xiong et al. 2020, https://arxiv.org/abs/2002.04745, the pre-norm form.

    Args:
      num_heads: how many heads attention has.
      mlp: what each position does by itself: any net from `[..., features]` to the same, such as `swiglu(512)`;
        `feed_forward()` unless given.
      norm: what is applied before both, such as `rms_norm()`; `layer_norm()` unless given.
      head_size: as for `attention`.
      num_kv_heads: as for `attention`.
      causal: as for `attention`.
      window: as for `attention`.
      rope: as for `attention`.
      bias: whether the maps of attention have a `b`; those of `mlp` are its own matter.
      drop_rate: the share that is dropped in training of attention's weights and of what both add.
      implementation: as for `attention`.
    Returns:
      A net from `[..., time, features]` to the same, which takes `mask`, `bias` and `cache` by name as
      `attention` does and with a cache returns `(y, cache)`. Its params are
      `{"attn_norm", "attn", "mlp_norm", "mlp"}`.
    Raises:
      ShapeError: as for `attention`.

    >>> net = transformer_block(2)
    >>> x = jnp.ones((3, 5, 8))
    >>> params = net.init(jax.random.key(0), x)
    >>> sorted(params), net.apply(params, x).shape
    (['attn', 'attn_norm', 'mlp', 'mlp_norm'], (3, 5, 8))
    """
    norm, mlp = layer_norm() if norm is None else norm, feed_forward() if mlp is None else mlp
    for name, net in (("mlp", mlp), ("norm", norm)):
        if not isinstance(net, Net):
            raise TypeError(f"transformer_block: expected {name} to be a network, got {net!r}")
    heads = attention(
        num_heads,
        head_size=head_size,
        num_kv_heads=num_kv_heads,
        causal=causal,
        window=window,
        rope=rope,
        bias=bias,
        drop_rate=drop_rate,
        implementation=implementation,
    )

    @define
    def body(
        x: jax.Array,
        *,
        attn_norm=norm,
        attn=heads,
        mlp_norm=norm,
        mlp=mlp,
        drop=dropout(drop_rate),
        mask=None,
        bias=None,
        cache=None,
    ):
        y = attn(attn_norm(x), mask=mask, bias=bias, cache=cache)
        y, after = (y, None) if cache is None else y
        x = x + drop(y)
        y = mlp(mlp_norm(x))
        if y.shape != x.shape:
            raise ShapeError(f"an mlp from {x.shape} to the same", f"one to {y.shape}")
        x = x + drop(y)
        return x if cache is None else (x, after)

    return body


@layer
def transformer(
    vocab_size: int,
    features: int,
    *,
    num_layers: int,
    num_heads: int,
    max_length: int | None = None,
    causal: bool = True,
    mlp: Net | None = None,
    norm: Net | None = None,
    head: Net | None = None,
    head_size: int | None = None,
    num_kv_heads: int | None = None,
    window: int | None = None,
    rope: Net | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
    implementation: Literal["cudnn"] | None = None,
    remat: bool = False,
) -> Net:
    """Token ids to the logits of the next ones, or, without causality, to what the head says of each.

    GPT-2 is `transformer(50257, 768, num_layers=12, num_heads=12, max_length=1024)`. A Llama is
    `transformer(32000, 4096, num_layers=32, num_heads=32, num_kv_heads=8, rope=rotary(), norm=rms_norm(),
    mlp=swiglu(11008), bias=False, head=linear(32000, bias=False))`. An encoder has `causal=False`.

    Source: Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf;
    Touvron et al. 2023, https://arxiv.org/abs/2302.13971.

    Args:
      vocab_size: how many tokens there are.
      features: size of the vectors between the blocks.
      num_layers: how many blocks, one scan over their stacked params.
      num_heads: as for `attention`.
      max_length: how many positions have a learned vector, which is added to that of the token; without one,
        `rope` or `bias=` are what tells positions apart.
      causal: whether a position sees only itself and those before it.
      mlp: as for `transformer_block`.
      norm: as for `transformer_block`; also applied after the last block.
      head: a net from the last vectors to the output, such as `linear(vocab_size, bias=False)`. None takes the
        vectors of the tokens themselves, as `attend` does.
      head_size: as for `attention`.
      num_kv_heads: as for `attention`.
      window: as for `attention`.
      rope: as for `attention`.
      bias: as for `transformer_block`.
      drop_rate: as for `transformer_block`; also of the first vectors.
      implementation: as for `attention`.
      remat: as for `repeat`.
    Returns:
      A net from integers `[..., time]` to `[..., time, vocab_size]` with params `{"tokens", "positions", "blocks",
      "norm", "head"}`, as far as they are there; arrays in `blocks` have a leading axis of `num_layers`. It
      takes `mask` and `bias` by name as `attention` does, and `cache`, with which it returns `(logits, caches)`:
      a number makes empty caches, a `KVCache` of stacked arrays is what a call before returned.
    Raises:
      ShapeError: if the ids are no integers `[..., time]`, or more than `max_length` with those in the cache.

    >>> net = transformer(50, 16, num_layers=2, num_heads=4, rope=rotary(), norm=rms_norm(), mlp=swiglu(32))
    >>> ids = jnp.array([[1, 2, 3, 4]])
    >>> params = net.init(jax.random.key(0), ids)
    >>> net.apply(params, ids).shape
    (1, 4, 50)
    >>> logits, caches = net.apply(params, ids, cache=10)
    >>> logits, caches = net.apply(params, ids[:, :1], cache=caches)
    >>> logits.shape, caches.keys.shape
    ((1, 1, 50), (2, 1, 10, 4, 4))
    """
    named = {"vocab_size": vocab_size, "features": features, "num_layers": num_layers, "max_length": max_length}
    for name, size in named.items():
        if size is not None or name != "max_length":
            check_size("transformer", name, size)
    if head is not None and not isinstance(head, Net):
        raise TypeError(f"transformer: expected head to be a network, got {head!r}")
    tied = head is None
    block = transformer_block(
        num_heads,
        mlp=mlp,
        norm=norm,
        head_size=head_size,
        num_kv_heads=num_kv_heads,
        causal=causal,
        window=window,
        rope=rope,
        bias=bias,
        drop_rate=drop_rate,
        implementation=implementation,
    )

    @define
    def body(
        ids: jax.Array,
        *,
        tokens=embed(vocab_size, features),
        positions=serial() if max_length is None else learned_positions(max_length),
        drop=dropout(drop_rate),
        blocks=repeat(block, num_layers, per_block="cache", remat=remat),
        norm=layer_norm() if norm is None else norm,
        head=serial() if head is None else head,
        mask=None,
        bias=None,
        cache=None,
    ):
        ids = jnp.asarray(ids)
        _check_ids(ids, cache, max_length)
        places: dict[str, Any] = {} if max_length is None else {"positions": _start(cache) + jnp.arange(ids.shape[-1])}
        x = drop(positions(tokens(ids), **places))
        x = blocks(x, mask=mask, bias=bias, cache=cache)
        x, caches = (x, None) if cache is None else x
        x = head(norm(x))
        logits = attend(tokens.params, x) if tied else x
        return logits if cache is None else (logits, caches)

    return body


def _start(cache: Any) -> jax.Array | int:
    """The position of the first new token: caches of all layers have the same length."""
    return jnp.ravel(cache.length)[0] if isinstance(cache, KVCache) else 0


def _check_ids(ids: jax.Array, cache: Any, max_length: int | None) -> None:
    if ids.ndim < 1 or ids.shape[-1] < 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ShapeError("ids [..., time] of integers", f"{ids.dtype} {ids.shape}")
    if max_length is None:
        return
    if ids.shape[-1] > max_length:
        raise ShapeError(f"ids [..., time] of at most {max_length} positions", f"{ids.shape}")
    size = jnp.size(cache.keys, -3) if isinstance(cache, KVCache) and jnp.ndim(cache.keys) > 2 else cache
    if isinstance(size, int) and size > max_length:
        raise ShapeError(f"a cache of at most {max_length} positions, the learned ones", f"{size}")
