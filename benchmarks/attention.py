"""Causal self-attention, the whole layer of 256 features and 4 heads: forward and backward pass in every library.

    pip install -e '.[bench]'
    python benchmarks/attention.py attention-short   # 32 sequences of 64
    python benchmarks/attention.py attention-middle  # 8 of 256
    python benchmarks/attention.py attention-long    # one of 2,048
    python benchmarks/attention.py attention-cudnn   # 8 of 4,096 in bfloat16, on a GPU

Torch's is a fused kernel that keeps no scores either, as is cuDNN's.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from runner import Promise, Round, Work, apart, comparison, installed, main
from steps import passes

from renga import nets, training

WIDTH, HEADS = 256, 4
SIZES = {"short": (32, 64), "middle": (8, 256), "long": (1, 2048)}  # sequences, tokens of each
NUM_PASSES = {"short": 5, "middle": 3, "long": 1}


def renga(
    x: jax.Array, num: int, options: Mapping[str, Any] | None = None, implementation: Literal["cudnn"] | None = None
) -> Round:
    """`nets.attention`, in the dtype of its input."""
    net = nets.cast(nets.attention(HEADS, causal=True, implementation=implementation), params=x.dtype)
    return passes(lambda params: net.apply(params, x), net.init(jax.random.key(0), x), num, options)


def plain(x: jax.Array, num: int, implementation: Literal["cudnn"] | None = None) -> Round:
    """By hand, around `jax.nn.dot_product_attention`."""
    shape = (WIDTH, HEADS, WIDTH // HEADS)
    keys = jax.random.split(jax.random.key(0), 4)
    draws = [jax.random.normal(key, shape, x.dtype) / WIDTH**0.5 for key in keys]

    def apply(params: dict) -> jax.Array:
        q, k, v = (jnp.einsum("btf,fhd->bthd", x, params[name]) for name in "qkv")
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=implementation)
        return jnp.einsum("bthd,fhd->btf", y, params["o"])

    return passes(apply, dict(zip("qkvo", draws, strict=True)), num)


def flax(x: jax.Array, num: int) -> Round:
    """Flax linen."""
    from flax import linen

    net, mask = linen.MultiHeadDotProductAttention(HEADS), linen.make_causal_mask(x[..., 0])
    return passes(lambda params: net.apply(params, x, mask=mask), net.init(jax.random.key(0), x), num)


def haiku(x: jax.Array, num: int) -> Round:
    """Haiku."""
    import haiku as hk

    mask = jnp.tril(jnp.ones((1, 1, x.shape[1], x.shape[1]), bool))
    w_init = hk.initializers.VarianceScaling(1.0)
    body = lambda x: hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init=w_init)(x, x, x, mask)  # noqa: E731
    net = hk.without_apply_rng(hk.transform(body))
    return passes(lambda params: net.apply(params, x), net.init(jax.random.key(0), x), num)


def equinox(x: jax.Array, num: int) -> Round:
    """Equinox: one sequence under `vmap`."""
    import equinox as eqx

    mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    bias = dict.fromkeys(("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True)
    layer = eqx.nn.MultiheadAttention(HEADS, WIDTH, **bias, key=jax.random.key(0))
    params, static = eqx.partition(layer, eqx.is_array)

    def apply(params: Any) -> jax.Array:
        layer = eqx.combine(params, static)
        return jax.vmap(lambda x: layer(x, x, x, mask))(x)

    return passes(apply, params, num)


def torch(size: tuple[int, int], num: int) -> Round:
    """Torch's layer around its fused `scaled_dot_product_attention`."""
    import torch as th

    layer = th.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    x, mask = th.randn(*size, WIDTH), th.nn.Transformer.generate_square_subsequent_mask(size[1])

    def run() -> int:
        for _ in range(num):
            layer.zero_grad()
            y, _ = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
            y.square().mean().backward()
        return num

    return run


def cases(name: str) -> Mapping[str, Round]:
    """Every case whose library is installed."""
    size, num = SIZES[name], NUM_PASSES[name]
    x = jax.random.normal(jax.random.key(1), (*size, WIDTH))
    ours = {"renga": renga(x, num), "renga, compiler_options": renga(x, num, training.compiler_options())}
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {"Haiku": lambda: haiku(x, num)},
        "flax": {"Flax linen": lambda: flax(x, num)},
        "equinox": {"Equinox": lambda: equinox(x, num)},
        "torch": {"torch, eager": lambda: apart(torch, size, num)},
    }
    return ours | {"jax.nn.dot_product_attention": plain(x, num)} | installed(peers)


_JAX_PEERS = ("jax.nn.dot_product_attention", "Haiku", "Flax linen", "Equinox")

for _name, (_batch, _tokens) in SIZES.items():
    # Multiplications forward: four projections, and scores and means of the half that is seen.
    _forward = _batch * _tokens * (4 * WIDTH**2 + _tokens * WIDTH)
    comparison(
        f"attention-{_name}",
        f"causal self-attention, forward and backward: {_batch} of {_tokens} tokens",
        "renga",
        promises=[Promise("renga", _JAX_PEERS, 1), Promise("renga, compiler_options", "torch, eager", 1)],
        work=Work(flops=6 * _forward),
    )(functools.partial(cases, _name))

_BY_HAND = "jax.nn.dot_product_attention, cudnn"


@comparison(
    "attention-cudnn",
    "causal self-attention, forward and backward: 8 of 4,096 tokens in bfloat16",
    "renga",
    promises=[Promise("renga, cudnn", "renga", 1), Promise("renga, cudnn", _BY_HAND, 1.05)],
    backends=["gpu"],
)
def by_cudnn() -> Mapping[str, Round]:
    """XLA's code for attention, and cuDNN's fused kernel."""
    x = jax.random.normal(jax.random.key(1), (8, 4096, WIDTH), jnp.bfloat16)
    ours = {"renga": renga(x, 10), "renga, cudnn": renga(x, 10, implementation="cudnn")}
    return ours | {"jax.nn.dot_product_attention": plain(x, 10), _BY_HAND: plain(x, 10, "cudnn")}


if __name__ == "__main__":
    main()
