"""Attention, and transformers."""

from typing import Any

import jax
import jax.numpy as jnp

from renga import nets

from ..kit import Case, floats, integers


@nets.layer
def in_chunks(*sizes: int) -> nets.Net:
    """Causal attention that reads its input in chunks, with a cache."""

    @nets.define
    def body(x: jax.Array, *, attn=nets.attention(2, causal=True, window=3, rope=nets.rotary())):
        before, *rest = jnp.split(x, sizes, -2)
        y, cache = attn(before, cache=x.shape[-2] + 1)
        ys = [y]
        for chunk in rest:
            y, cache = attn(chunk, cache=cache)
            ys.append(y)
        return jnp.concatenate(ys, -2)

    return body


def llama(**options: Any) -> nets.Net:
    options = {"rope": nets.rotary(), "norm": nets.rms_norm(), "mlp": nets.swiglu(6), "bias": False, **options}
    return nets.transformer(7, 8, num_layers=2, num_heads=4, num_kv_heads=2, **options)


MASK = {"mask": jax.ShapeDtypeStruct((2, 1, 5, 5), jnp.bool)}
GROUPED: Any = {"num_kv_heads": 2, "head_size": 2, "features": 3}

CASES = {
    "attention": Case(lambda: nets.attention(2), floats(2, 5, 6)),
    "attention with dropout": Case(lambda: nets.attention(2, drop_rate=0.5), floats(2, 5, 6), draws=True, long=True),
    "masked attention": Case(lambda: nets.attention(3), floats(2, 5, 6), keywords=MASK, long=True),
    "masked attention with dropout": Case(
        lambda: nets.attention(3, drop_rate=0.3), floats(2, 5, 6), keywords=MASK, draws=True, long=True
    ),
    "biased attention": Case(
        lambda: nets.attention(6), floats(2, 5, 6), keywords={"bias": floats(2, 6, 5, 5)[0]}, long=True
    ),
    "attention to a memory": Case(lambda: nets.attention(2, bias=False), floats(2, 3, 4) + floats(2, 5, 6), long=True),
    "grouped attention": Case(lambda: nets.attention(4, **GROUPED), floats(2, 5, 6), long=True),
    "grouped attention with dropout": Case(
        lambda: nets.attention(4, drop_rate=0.5, **GROUPED), floats(2, 5, 6), draws=True, long=True
    ),
    "causal attention": Case(lambda: nets.attention(2, causal=True, rope=nets.rotary()), floats(2, 5, 8), long=True),
    "local attention": Case(lambda: nets.attention(2, window=2), floats(2, 5, 8), long=True),
    "attention in chunks": Case(lambda: in_chunks(2, 3), floats(2, 6, 8), long=True),
    "feed_forward": Case(lambda: nets.feed_forward(), floats(4, 5)),
    "feed_forward with options": Case(
        lambda: nets.feed_forward(6, activation=jax.nn.tanh, bias=False, drop_rate=0.5),
        floats(4, 5),
        draws=True,
        long=True,
    ),
    "swiglu": Case(lambda: nets.swiglu(6), floats(4, 5)),
    "swiglu with options": Case(
        lambda: nets.swiglu(3, activation=jax.nn.tanh, bias=True, drop_rate=0.5), floats(4, 5), draws=True, long=True
    ),
    "transformer_block": Case(lambda: nets.transformer_block(2), floats(2, 5, 6)),
    "masked transformer_block": Case(
        lambda: nets.transformer_block(2, norm=nets.rms_norm(), mlp=nets.swiglu(5), drop_rate=0.2),
        floats(2, 5, 6),
        keywords=MASK,
        draws=True,
        long=True,
    ),
    "transformer": Case(
        lambda: nets.transformer(7, 8, num_layers=2, num_heads=2, max_length=6), integers(2, 5), long=True
    ),
    "transformer with dropout": Case(
        lambda: nets.transformer(7, 8, num_layers=3, num_heads=2, max_length=5, drop_rate=0.3, remat=True),
        integers(2, 5),
        draws=True,
        long=True,
    ),
    "grouped transformer": Case(lambda: llama(head=nets.linear(7, bias=False)), integers(2, 5), long=True),
    "masked encoder": Case(lambda: llama(causal=False, head=nets.serial()), integers(2, 5), keywords=MASK, long=True),
}

DERIVATIVES = {"attention in training": (nets.attention(2, drop_rate=0.5), (4, 6))}
