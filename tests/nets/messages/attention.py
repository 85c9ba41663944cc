"""What attention and transformers refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import nets
from renga.nets import KVCache, NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

x, memory = zeros(2, 5, 6), zeros(2, 7, 4)
ids: Any = np.zeros((2, 5), np.int32)
wrong: Any = 4.5
plain, causal, local = nets.attention(2), nets.attention(2, causal=True), nets.attention(2, window=2)
fused = nets.attention(2, implementation="cudnn")
grouped = nets.attention(4, num_kv_heads=2, head_size=3)
gpt = nets.transformer(7, 6, num_layers=2, num_heads=2, max_length=8)
free = nets.transformer(7, 6, num_layers=2, num_heads=2)
TO_JIT = " Under jax.jit a number must be static: name cache in static_argnames."


def made(net: nets.Net, *inputs: Any) -> Any:
    return jax.tree.map(jnp.asarray, params_of(net, *inputs))


def of_ids(net: nets.Net, *given: Any, **keywords: Any) -> Any:
    return net.apply(made(net, ids), *given, **keywords)


def cache_of(
    *shape: int, values: tuple[int, ...] | None = None, length: Any = None, dtype: Any = np.float32
) -> KVCache:
    keys = zeros(*shape, dtype=dtype)
    none: Any = np.zeros((), np.int32)
    return KVCache(keys, keys if values is None else zeros(*values), none if length is None else length)


def without(net: nets.Net, name: str, *inputs: Any) -> Any:
    params = params_of(net, *inputs)
    return net.apply({key: value for key, value in params.items() if key != name}, *inputs)


def with_bias_of(net: nets.Net, name: str, shape: tuple[int, ...]) -> Any:
    params = params_of(net, x)
    return net.apply(params | {name: params[name] | {"b": zeros(*shape)}}, x)


def in_jit() -> Any:
    return jax.jit(lambda cache: applied(causal, (x,), x, cache=cache))(8)


def tokens_with(**options: Any) -> Any:
    return nets.generate(free, made(free, ids), ids, **({"num_tokens": 3, "key": KEY} | options))


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "attention, num_heads": (
        lambda: nets.attention(0),
        ValueError,
        "attention: expected num_heads to be an integer of at least 1, got 0",
    ),
    "attention, num_heads of another type": (
        lambda: nets.attention(wrong),
        ValueError,
        "attention: expected num_heads to be an integer of at least 1, got 4.5",
    ),
    "attention, head_size": (
        lambda: nets.attention(2, head_size=0),
        ValueError,
        "attention: expected head_size to be an integer of at least 1, got 0",
    ),
    "attention, num_kv_heads": (
        lambda: nets.attention(2, num_kv_heads=0),
        ValueError,
        "attention: expected num_kv_heads to be an integer of at least 1, got 0",
    ),
    "attention, num_kv_heads that do not divide": (
        lambda: nets.attention(4, num_kv_heads=3),
        ValueError,
        "attention: expected num_kv_heads to divide num_heads, 4, got 3",
    ),
    "attention, features": (
        lambda: nets.attention(2, features=-1),
        ValueError,
        "attention: expected features to be an integer of at least 1, got -1",
    ),
    "attention, window": (
        lambda: nets.attention(2, window=0),
        ValueError,
        "attention: expected window to be an integer of at least 1, got 0",
    ),
    "attention, drop_rate": (
        lambda: nets.attention(2, drop_rate=1.0),
        ValueError,
        "attention: expected drop_rate, the share that is dropped, in [0, 1), got 1.0",
    ),
    "attention, implementation": (
        lambda: nets.attention(2, implementation=wrong),
        ValueError,
        "attention: expected implementation to be None or 'cudnn', got 4.5",
    ),
    "attention, cuDNN and drop_rate": (
        lambda: nets.transformer_block(2, drop_rate=0.1, implementation="cudnn"),
        ValueError,
        "attention: expected drop_rate=0 with implementation='cudnn', got 0.1",
    ),
    "attention, cuDNN and a bias": (
        lambda: fused.apply(made(plain, x), x, bias=zeros(5, 5)),
        NetError,
        "attention(2, implementation='cudnn'): expected no bias where cuDNN is to compute attention, got one.",
    ),
    "attention, rope with parameters": (
        lambda: nets.attention(2, rope=nets.linear(3)),
        TypeError,
        "attention: expected rope to be a network without parameters, got linear(3)",
    ),
    "attention, rope that is no network": (
        lambda: nets.attention(2, rope=wrong),
        TypeError,
        "attention: expected rope to be a network without parameters, got 4.5",
    ),
    "attention, rank": (
        lambda: applied(plain, (x,), zeros(6)),
        ShapeError,
        "attention(2): expected an input [..., time, features], got (6,).",
    ),
    "attention, rank at init": (
        lambda: plain.init(KEY, zeros(6)),
        ShapeError,
        "attention(2): expected an input [..., time, features], got (6,).",
    ),
    "attention, no time": (
        lambda: applied(plain, (x,), zeros(2, 0, 6)),
        ShapeError,
        "attention(2): expected an input [..., time, features], got (2, 0, 6).",
    ),
    "attention, no features at init": (
        lambda: plain.init(KEY, zeros(2, 5, 0)),
        ShapeError,
        "attention(2): expected an input [..., time, features], got (2, 5, 0).",
    ),
    "attention, features that heads do not divide": (
        lambda: plain.init(KEY, zeros(5, 7)),
        ShapeError,
        "attention(2): expected an input [..., time, features] with a multiple of 2 features, got (5, 7). "
        "Give head_size= the features of a head.",
    ),
    "attention, other features": (
        lambda: applied(plain, (x,), zeros(2, 5, 8)),
        ShapeError,
        "attention/q = projection(): expected an input [..., 6], got (2, 5, 8).",
    ),
    "attention, other features with head_size": (
        lambda: applied(grouped, (x,), zeros(2, 5, 8)),
        ShapeError,
        "attention/q = projection(): expected an input [..., 6], got (2, 5, 8).",
    ),
    "attention, memory of another batch": (
        lambda: applied(plain, (x, memory), x, memory[:1]),
        ShapeError,
        "attention(2): expected a memory [2, length, features] beside an input (2, 5, 6), got (1, 7, 4).",
    ),
    "attention, memory of another rank": (
        lambda: applied(plain, (x, memory), x, memory[0]),
        ShapeError,
        "attention(2): expected a memory [2, length, features] beside an input (2, 5, 6), got (7, 4).",
    ),
    "attention, empty memory": (
        lambda: applied(plain, (x, memory), x, memory[:, :0]),
        ShapeError,
        "attention(2): expected a memory [2, length, features] beside an input (2, 5, 6), got (2, 0, 4).",
    ),
    "attention, memory of other features": (
        lambda: applied(plain, (x, memory), x, zeros(2, 7, 5)),
        ShapeError,
        "attention/k = projection(): expected an input [..., 4], got (2, 7, 5).",
    ),
    "attention, memory and causality": (
        lambda: causal.init(KEY, x, memory),
        NetError,
        "attention(2, causal=True): expected a memory without a cache, causality or a window, got a memory "
        "and causal=True.",
    ),
    "attention, memory and window": (
        lambda: local.init(KEY, x, memory),
        NetError,
        "attention(2, window=2): expected a memory without a cache, causality or a window, got a memory and a window.",
    ),
    "attention, memory and cache": (
        lambda: plain.init(KEY, x, memory, cache=8),
        NetError,
        "attention(2): expected a memory without a cache, causality or a window, got a memory and a cache.",
    ),
    "attention, three inputs": (
        lambda: applied(plain, (x,), x, memory, memory),
        NetError,
        "attention(2): expected inputs (x, memory=None, mask=None, bias=None, cache=None), got 3 inputs: "
        "too many positional arguments.",
    ),
    "attention, unknown keyword": (
        lambda: applied(plain, (x,), x, masks=None),
        NetError,
        "attention(2): expected inputs (x, memory=None, mask=None, bias=None, cache=None), got 1 inputs: "
        "got an unexpected keyword argument 'masks'.",
    ),
    "attention, mask of floats": (
        lambda: applied(plain, (x,), x, mask=zeros(5, 5)),
        ShapeError,
        "attention(2): expected a mask of booleans that broadcasts to (2, 2, 5, 5), got float32 (5, 5).",
    ),
    "attention, mask of another size": (
        lambda: applied(plain, (x,), x, mask=zeros(5, 4, dtype=bool)),
        ShapeError,
        "attention(2): expected a mask of booleans that broadcasts to (2, 2, 5, 5), got bool (5, 4).",
    ),
    "attention, mask of a batch without heads": (
        lambda: applied(plain, (zeros(3, 5, 6),), zeros(3, 5, 6), mask=zeros(3, 5, 5, dtype=bool)),
        ShapeError,
        "attention(2): expected a mask of booleans that broadcasts to (3, 2, 5, 5), got bool (3, 5, 5).",
    ),
    "attention, mask with axes of its own": (
        lambda: applied(plain, (x,), x[0], mask=zeros(2, 1, 5, 5, dtype=bool)),
        ShapeError,
        "attention(2): expected a mask of booleans that broadcasts to (2, 5, 5), got bool (2, 1, 5, 5).",
    ),
    "attention, mask of fewer heads": (
        lambda: applied(grouped, (x,), x, mask=zeros(2, 2, 5, 5, dtype=bool)),
        ShapeError,
        "attention(4, head_size=3, num_kv_heads=2): expected a mask of booleans that broadcasts to (2, 4, "
        "5, 5), got bool (2, 2, 5, 5).",
    ),
    "attention, bias of integers": (
        lambda: applied(plain, (x,), x, bias=zeros(5, 5, dtype=int)),
        ShapeError,
        "attention(2): expected a bias of floats that broadcasts to (2, 2, 5, 5), got int32 (5, 5).",
    ),
    "attention, bias of another size": (
        lambda: applied(plain, (x,), x, bias=zeros(3, 5, 5)),
        ShapeError,
        "attention(2): expected a bias of floats that broadcasts to (2, 2, 5, 5), got float32 (3, 5, 5).",
    ),
    "attention, dropout without a key": (
        lambda: applied(nets.attention(2, drop_rate=0.1), (x,), x, train=True),
        NetError,
        "attention/drop = dropout(0.1): expected a key in training, got None. Pass key= to apply.",
    ),
    "attention, params missing": (
        lambda: without(plain, "k", x),
        ShapeError,
        "attention/k = projection(): expected parameters w [any, any, any], b [any, any], got nothing." + REMEDY,
    ),
    "attention, params of another structure": (
        lambda: plain.apply(zeros(3), x),
        NetError,
        "attention(2): expected params of the children ['q', 'k', 'v', 'out', 'drop'], got (3,)." + REMEDY,
    ),
    "attention, params with a bias": (
        lambda: nets.attention(2, bias=False).apply(params_of(plain, x), x),
        ShapeError,
        (
            "attention/q = projection(bias=False): expected parameters w [any, any, any], got {'b': (2, 3), "
            "'w': (6, 2, 3)}."
        )
        + REMEDY,
    ),
    "attention, params of another bias": (
        lambda: with_bias_of(plain, "v", (2, 4)),
        ShapeError,
        ("attention/v = projection(): expected parameters w [any, 2, 3], b [2, 3], got {'b': (2, 4), 'w': (6, 2, 3)}.")
        + REMEDY,
    ),
    "attention, params of other heads": (
        lambda: nets.attention(3).apply(params_of(plain, x), x),
        ShapeError,
        ("attention/q = projection(): expected parameters w [any, 3, 2], b [3, 2], got {'b': (2, 3), 'w': (6, 2, 3)}.")
        + REMEDY,
    ),
    "attention, params of other kv heads": (
        lambda: nets.attention(4, num_kv_heads=4, head_size=3).apply(params_of(grouped, x), x),
        ShapeError,
        ("attention/k = projection(): expected parameters w [any, 4, 3], b [4, 3], got {'b': (2, 3), 'w': (6, 2, 3)}.")
        + REMEDY,
    ),
    "attention, params of other outputs": (
        lambda: nets.attention(2, features=5).apply(params_of(plain, x), x),
        ShapeError,
        (
            "attention/out = projection(num_axes=2): expected parameters w [any, any, 5], b [5], got {'b': "
            "(6,), 'w': (2, 3, 6)}."
        )
        + REMEDY,
    ),
    "cache, not causal": (
        lambda: applied(plain, (x,), x, cache=8),
        NetError,
        "attention(2): expected a cache for causal attention only, got causal=False. Build it with causal=True.",
    ),
    "cache, zero": (
        lambda: applied(causal, (x,), x, cache=0),
        NetError,
        "attention(2, causal=True): expected cache to be a KVCache or a number of positions, got 0." + TO_JIT,
    ),
    "cache, a flag": (
        lambda: applied(causal, (x,), x, cache=True),
        NetError,
        "attention(2, causal=True): expected cache to be a KVCache or a number of positions, got True." + TO_JIT,
    ),
    "cache, a float": (
        lambda: applied(causal, (x,), x, cache=8.0),
        NetError,
        "attention(2, causal=True): expected cache to be a KVCache or a number of positions, got 8.0." + TO_JIT,
    ),
    "cache, a dict": (
        lambda: applied(causal, (x,), x, cache={"keys": x}),
        NetError,
        "attention(2, causal=True): expected cache to be a KVCache or a number of positions, got dict." + TO_JIT,
    ),
    "cache, traced": (
        lambda: in_jit(),
        NetError,
        ("attention(2, causal=True): expected cache to be a KVCache or a number of positions, got DynamicJaxprTracer.")
        + TO_JIT,
    ),
    "cache, too short": (
        lambda: applied(causal, (x,), x, cache=4),
        ShapeError,
        "attention(2, causal=True): expected at most 4 new positions, as many as the cache holds, got 5.",
    ),
    "cache, too short for a chunk": (
        lambda: applied(causal, (x,), x, cache=cache_of(2, 4, 2, 3)),
        ShapeError,
        "attention(2, causal=True): expected at most 4 new positions, as many as the cache holds, got 5.",
    ),
    "cache, other heads": (
        lambda: applied(causal, (x,), x, cache=cache_of(2, 8, 1, 3)),
        ShapeError,
        "attention(2, causal=True): expected a cache of float32 keys and values [2, max_length, 2, 3] and "
        "an integer length [], got float32, float32, int32 ((2, 8, 1, 3), (2, 8, 1, 3), ()).",
    ),
    "cache, other batch": (
        lambda: applied(causal, (x,), x, cache=cache_of(8, 2, 3)),
        ShapeError,
        "attention(2, causal=True): expected a cache of float32 keys and values [2, max_length, 2, 3] and "
        "an integer length [], got float32, float32, int32 ((8, 2, 3), (8, 2, 3), ()).",
    ),
    "cache, other dtype": (
        lambda: applied(causal, (x,), x, cache=cache_of(2, 8, 2, 3, dtype=np.float16)),
        ShapeError,
        "attention(2, causal=True): expected a cache of float32 keys and values [2, max_length, 2, 3] and "
        "an integer length [], got float16, float16, int32 ((2, 8, 2, 3), (2, 8, 2, 3), ()).",
    ),
    "cache, values of another shape": (
        lambda: applied(causal, (x,), x, cache=cache_of(2, 8, 2, 3, values=(2, 7, 2, 3))),
        ShapeError,
        "attention(2, causal=True): expected a cache of float32 keys and values [2, max_length, 2, 3] and "
        "an integer length [], got float32, float32, int32 ((2, 8, 2, 3), (2, 7, 2, 3), ()).",
    ),
    "cache, lengths": (
        lambda: applied(causal, (x,), x, cache=cache_of(2, 8, 2, 3, length=zeros(2, dtype=int))),
        ShapeError,
        "attention(2, causal=True): expected a cache of float32 keys and values [2, max_length, 2, 3] and "
        "an integer length [], got float32, float32, int64 ((2, 8, 2, 3), (2, 8, 2, 3), (2,)).",
    ),
    "cache, mask for the new positions alone": (
        lambda: applied(causal, (x,), x, cache=8, mask=zeros(5, 5, dtype=bool)),
        ShapeError,
        "attention(2, causal=True): expected a mask of booleans that broadcasts to (2, 2, 5, 8), got bool (5, 5).",
    ),
    "feed_forward, hidden_size": (
        lambda: nets.feed_forward(0),
        ValueError,
        "feed_forward: expected hidden_size to be an integer of at least 1, got 0",
    ),
    "feed_forward, drop_rate": (
        lambda: nets.feed_forward(drop_rate=-0.1),
        ValueError,
        "feed_forward: expected drop_rate, the share that is dropped, in [0, 1), got -0.1",
    ),
    "feed_forward, rank": (
        lambda: applied(nets.feed_forward(3), (x,), np.float32(1)),
        ShapeError,
        "feed_forward(hidden_size=3): expected an input [..., features], got ().",
    ),
    "feed_forward, size": (
        lambda: applied(nets.feed_forward(3), (x,), zeros(5)),
        ShapeError,
        "feed_forward/up = projection(): expected an input [..., 6], got (5,).",
    ),
    "feed_forward, params of another size": (
        lambda: nets.feed_forward(4).apply(params_of(nets.feed_forward(3), x), x),
        ShapeError,
        ("feed_forward/up = projection(): expected parameters w [any, 4], b [4], got {'b': (3,), 'w': (6, 3)}.")
        + REMEDY,
    ),
    "swiglu, hidden_size": (
        lambda: nets.swiglu(wrong),
        ValueError,
        "swiglu: expected hidden_size to be an integer of at least 1, got 4.5",
    ),
    "swiglu, drop_rate": (
        lambda: nets.swiglu(3, drop_rate=1.0),
        ValueError,
        "swiglu: expected drop_rate, the share that is dropped, in [0, 1), got 1.0",
    ),
    "swiglu, rank at init": (
        lambda: nets.swiglu(3).init(KEY, np.float32(1)),
        ShapeError,
        "swiglu(3): expected an input [..., features], got ().",
    ),
    "swiglu, size": (
        lambda: applied(nets.swiglu(3), (x,), zeros(5)),
        ShapeError,
        "swiglu/gate = projection(bias=False): expected an input [..., 6], got (5,).",
    ),
    "swiglu, params of a feed_forward": (
        lambda: nets.swiglu(24).apply(params_of(nets.feed_forward(), x), x),
        ShapeError,
        "swiglu/gate = projection(bias=False): expected parameters w [any, any], got nothing." + REMEDY,
    ),
    "transformer_block, num_heads": (
        lambda: nets.transformer_block(0),
        ValueError,
        "attention: expected num_heads to be an integer of at least 1, got 0",
    ),
    "transformer_block, rank": (
        lambda: applied(nets.transformer_block(2), (x,), zeros(6)),
        ShapeError,
        "transformer_block/attn = attention(2): expected an input [..., time, features], got (6,).",
    ),
    "transformer_block, size": (
        lambda: applied(nets.transformer_block(2), (x,), zeros(2, 5, 8)),
        ShapeError,
        "transformer_block/attn_norm = layer_norm(): expected an input [..., 6], got (2, 5, 8).",
    ),
    "transformer_block, mlp that is no network": (
        lambda: nets.transformer_block(2, mlp=wrong),
        TypeError,
        "transformer_block: expected mlp to be a network, got 4.5",
    ),
    "transformer_block, norm that is no network": (
        lambda: nets.transformer_block(2, norm=wrong),
        TypeError,
        "transformer_block: expected norm to be a network, got 4.5",
    ),
    "transformer_block, mlp that changes the size": (
        lambda: nets.transformer_block(2, mlp=nets.linear(5)).init(KEY, x),
        ShapeError,
        "transformer_block(2, mlp=linear(5)): expected an mlp from (2, 5, 6) to the same, got one to (2, 5, 5).",
    ),
    "transformer, vocab_size": (
        lambda: nets.transformer(0, 6, num_layers=2, num_heads=2),
        ValueError,
        "transformer: expected vocab_size to be an integer of at least 1, got 0",
    ),
    "transformer, features": (
        lambda: nets.transformer(7, 0, num_layers=2, num_heads=2),
        ValueError,
        "transformer: expected features to be an integer of at least 1, got 0",
    ),
    "transformer, num_layers": (
        lambda: nets.transformer(7, 6, num_layers=0, num_heads=2),
        ValueError,
        "transformer: expected num_layers to be an integer of at least 1, got 0",
    ),
    "transformer, max_length": (
        lambda: nets.transformer(7, 6, num_layers=1, num_heads=2, max_length=0),
        ValueError,
        "transformer: expected max_length to be an integer of at least 1, got 0",
    ),
    "transformer, drop_rate": (
        lambda: nets.transformer(7, 6, num_layers=1, num_heads=2, drop_rate=2),
        ValueError,
        "attention: expected drop_rate, the share that is dropped, in [0, 1), got 2",
    ),
    "transformer, features that heads do not divide": (
        lambda: nets.transformer(7, 6, num_layers=1, num_heads=4).init(KEY, ids),
        ShapeError,
        "transformer/blocks/attn = attention(4, causal=True): expected an input [..., time, features] with "
        "a multiple of 4 features, got (2, 5, 6). Give head_size= the features of a head.",
    ),
    "transformer, ids of floats": (
        lambda: gpt.init(KEY, x),
        ShapeError,
        "transformer(7, 6, num_layers=2, num_heads=2, max_length=8): expected ids [..., time] of integers, "
        "got float32 (2, 5, 6).",
    ),
    "transformer, one id": (
        lambda: gpt.init(KEY, np.int32(1)),
        ShapeError,
        "transformer(7, 6, num_layers=2, num_heads=2, max_length=8): expected ids [..., time] of integers, "
        "got int32 ().",
    ),
    "transformer, no ids": (
        lambda: of_ids(gpt, ids[:, :0]),
        ShapeError,
        "transformer(7, 6, num_layers=2, num_heads=2, max_length=8): expected ids [..., time] of integers, "
        "got int32 (2, 0).",
    ),
    "transformer, too many ids": (
        lambda: gpt.init(KEY, np.zeros(9, int)),
        ShapeError,
        "transformer(7, 6, num_layers=2, num_heads=2, max_length=8): expected ids [..., time] of at most 8 "
        "positions, got (9,).",
    ),
    "transformer, too long a cache": (
        lambda: of_ids(gpt, ids, cache=9),
        ShapeError,
        "transformer(7, 6, num_layers=2, num_heads=2, max_length=8): expected a cache of at most 8 "
        "positions, the learned ones, got 9.",
    ),
    "transformer, cache without causality": (
        lambda: of_ids(nets.transformer(7, 6, num_layers=2, num_heads=2, causal=False), ids, cache=9),
        NetError,
        "transformer/blocks/attn = attention(2): expected a cache for causal attention only, got "
        "causal=False. Build it with causal=True.",
    ),
    "transformer, mask of another size": (
        lambda: of_ids(gpt, ids, mask=zeros(2, 5, dtype=bool)),
        ShapeError,
        "transformer/blocks/attn = attention(2, causal=True): expected a mask of booleans that broadcasts "
        "to (2, 2, 5, 5), got bool (2, 5).",
    ),
    "transformer, caches of another depth": (
        lambda: of_ids(gpt, ids, cache=cache_of(3, 2, 8, 2, 3, length=np.zeros(3, int))),
        ShapeError,
        "transformer/blocks = repeat(transformer_block(2, causal=True), 2, per_block='cache'): expected "
        "cache with a leading axis of 2, one part for each block, got KVCache(keys=(3, 2, 8, 2, 3), "
        "values=(3, 2, 8, 2, 3), length=(3,)).",
    ),
    "transformer, params of another depth": (
        lambda: nets.transformer(7, 6, num_layers=3, num_heads=2).apply(made(free, ids), ids),
        NetError,
        (
            "transformer/blocks = repeat(transformer_block(2, causal=True), 3, per_block='cache'): expected "
            "parameters with a leading axis of 3, got {'attn': {'k': {'b': (2, 2, 3), 'w': (2, 6, 2, 3)}, "
            "'out': {'b': (2, 6), 'w': (2, 2, 3, 6)}, 'q': {'b': (2, 2, 3), 'w': (2, 6, 2, 3)}, 'v': {'b': (2, "
            "2, 3), 'w': (2, 6, 2, 3)}}, 'attn_norm': {'offset': (2, 6), 'scale': (2, 6)}, 'mlp': {'down': "
            "{'b': (2, 6), 'w': (2, 24, 6)}, 'up': {'b': (2, 24), 'w': (2, 6, 24)}}, 'mlp_norm': {'offset': (2,"
            " 6), 'scale': (2, 6)}}."
        )
        + REMEDY,
    ),
    "transformer, head that is no network": (
        lambda: nets.transformer(7, 6, num_layers=1, num_heads=2, head=wrong),
        TypeError,
        "transformer: expected head to be a network, got 4.5",
    ),
    "transformer, params with a head of its own": (
        lambda: free.apply(made(free, ids) | {"head": {"w": zeros(6, 7)}}, ids),
        NetError,
        "transformer/head = serial(): expected params of the children [], got ['w']." + REMEDY,
    ),
    "transformer, params with positions": (
        lambda: free.apply(made(gpt, ids), ids),
        NetError,
        "transformer/positions = serial(): expected params of the children [], got ['w']." + REMEDY,
    ),
    "generate, a network with state": (
        lambda: nets.generate(nets.batch_norm(), {}, ids, 3, key=KEY),
        TypeError,
        "generate: expected a network without state, got batch_norm()",
    ),
    "generate, no network": (
        lambda: nets.generate(wrong, {}, ids, 3, key=KEY),
        TypeError,
        "generate: expected a network without state, got 4.5",
    ),
    "generate, prompt of floats": (
        lambda: nets.generate(free, made(free, ids), x, 3, key=KEY),
        TypeError,
        "generate: expected a prompt [..., time] of integers, got float32 (2, 5, 6)",
    ),
    "generate, empty prompt": (
        lambda: nets.generate(free, made(free, ids), ids[:, :0], 3, key=KEY),
        TypeError,
        "generate: expected a prompt [..., time] of integers, got int32 (2, 0)",
    ),
    "generate, num_tokens": (
        lambda: tokens_with(num_tokens=0),
        ValueError,
        "generate: expected num_tokens to be an integer of at least 1, got 0",
    ),
    "generate, max_length": (
        lambda: tokens_with(max_length=0),
        ValueError,
        "generate: expected max_length to be an integer of at least 1, got 0",
    ),
    "generate, more than the cache holds": (
        lambda: tokens_with(max_length=6),
        ValueError,
        "generate: expected a prompt and new tokens but the last, which is not read, of at most 6 positions, which "
        "the cache has, got 5 + 2",
    ),
    "generate, more than there are positions": (
        lambda: nets.generate(gpt, made(gpt, ids), ids, 5, key=KEY),
        ShapeError,
        "transformer(7, 6, num_layers=2, num_heads=2, max_length=8): expected a cache of at most 8 "
        "positions, the learned ones, got 9.",
    ),
    "generate, temperature": (
        lambda: tokens_with(temperature=-1.0),
        ValueError,
        "generate: expected temperature of at least 0, got -1.0",
    ),
    "generate, top_k": (
        lambda: tokens_with(top_k=0),
        ValueError,
        "generate: expected top_k to be an integer of at least 1, got 0",
    ),
    "generate, top_p": (
        lambda: tokens_with(top_p=1.5),
        ValueError,
        "generate: expected top_p in (0, 1], got 1.5",
    ),
    "generate, top_p of NumPy": (
        lambda: tokens_with(top_p=np.float32(1.5)),
        ValueError,
        "generate: expected top_p in (0, 1], got np.float32(1.5)",
    ),
    "generate, temperature of NumPy": (
        lambda: tokens_with(temperature=np.float32(-1.0)),
        ValueError,
        "generate: expected temperature of at least 0, got np.float32(-1.0)",
    ),
    "generate, no temperature": (
        lambda: tokens_with(temperature=float("nan")),
        ValueError,
        "generate: expected temperature of at least 0, got nan",
    ),
    "generate, a number for a key": (
        lambda: tokens_with(key=0),
        TypeError,
        "generate: expected a JAX random key, got 0. Make one with jax.random.key(0).",
    ),
    "generate, several keys": (
        lambda: tokens_with(key=jax.random.split(KEY)),
        TypeError,
        "generate: expected a JAX random key, got key<fry>[2]. Make one with jax.random.key(0).",
    ),
    "generate, no key": (
        lambda: tokens_with(key=None),
        TypeError,
        "generate: expected a key to draw tokens with, got None. Pass key=, or temperature=0.",
    ),
}
