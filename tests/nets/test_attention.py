"""Attention: what it equals in other libraries, what it may look at, and what it carries."""

import functools
import itertools
import re
from typing import Any

import flax.linen as nn
import haiku as hk
import hypothesis
import hypothesis.strategies as st
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from renga import nets
from renga.nets import _attend

from .kit import KEY, floats, values

X, MEMORY = values(floats(2, 5, 6) + floats(2, 7, 4))
MASKS = {
    "none": None,
    "for all": jnp.tril(jnp.ones((5, 5), bool)),
    "for each example": values(jax.ShapeDtypeStruct((2, 1, 5, 5), bool)),
    "for each head": values(jax.ShapeDtypeStruct((2, 3, 5, 5), bool)),
}


def made_for(net: nets.Net, *inputs: Any) -> Any:
    """Params of the network's own structure, none of them zero."""
    return values(jax.eval_shape(net.init, KEY, *inputs))


def by_hand(params: Any, x: Any, memory: Any, allowed: Any) -> np.ndarray:
    """One example, in float64 and loops; `allowed(head, query, key)`."""
    params, x, memory = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, x, memory))
    q, k, v = (
        np.einsum("td,dhk->thk", given, params[name]["w"]) + params[name].get("b", 0)
        for name, given in (("q", x), ("k", memory), ("v", memory))
    )
    _, heads, size = q.shape
    y = np.zeros_like(q)
    for head in range(heads):
        of = head // (heads // k.shape[1])
        for t in range(len(x)):
            keys = [s for s in range(len(memory)) if allowed(head, t, s)]
            weights = np.exp([q[t, head] @ k[s, of] / np.sqrt(size) for s in keys])
            for weight, s in zip(weights, keys, strict=True):
                y[t, head] += weight / weights.sum() * v[s, of]
    return np.einsum("thk,hkd->td", y, params["out"]["w"]) + params["out"].get("b", 0)


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize(
    ("net", "allowed"),
    [
        (nets.attention(3), lambda head, t, s: True),
        (nets.attention(6, num_kv_heads=2, head_size=3, features=4, bias=False), lambda head, t, s: True),
        (nets.attention(2, num_kv_heads=1, causal=True), lambda head, t, s: s <= t),
        (nets.attention(2, window=2), lambda head, t, s: abs(s - t) < 2),
        (nets.attention(2, causal=True, window=3), lambda head, t, s: t - 3 < s <= t),
        (nets.attention(2, causal=True, window=1), lambda head, t, s: s == t),
        (nets.attention(2, window=9), lambda head, t, s: True),
    ],
)
def test_attention_equals_loops(net: nets.Net, allowed: Any):
    params = made_for(net, X)
    expected = [by_hand(params, x, x, allowed) for x in X]
    assert_close(net.apply(params, X), np.stack(expected))


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_is_met_together_with_causality_and_each_head_has_its_own(causal: bool):
    net, mask = nets.attention(3, causal=causal), MASKS["for each head"]
    params = made_for(net, X)

    def seen(example: int) -> Any:
        return lambda head, t, s: mask[example, head, t, s] and (s <= t or not causal)

    expected = [by_hand(params, x, x, seen(example)) for example, x in enumerate(X)]
    assert_close(net.apply(params, X, mask=mask), np.stack(expected))


def test_a_bias_is_added_to_the_scores():
    net, params = nets.attention(2), made_for(nets.attention(2), X)
    far = jnp.where(MASKS["for all"], 0.0, -1e9)
    assert_close(net.apply(params, X, bias=far), net.apply(params, X, mask=MASKS["for all"]))
    slopes = nets.alibi(2)(jnp.arange(5), jnp.arange(5))
    one_by_one = [net.apply(params, x, bias=slopes) for x in X]
    assert_close(net.apply(params, X, bias=slopes), jnp.stack(one_by_one))
    assert not jnp.allclose(one_by_one[0], net.apply(params, X[0]), atol=1e-3)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("cross", [False, True])
def test_attention_equals_flax_with_gradients(mask: str, cross: bool):
    net, seen = nets.attention(3), MASKS[mask]
    inputs = (X, MEMORY) if cross else (X,)
    if cross and seen is not None:
        seen = jnp.concatenate([seen, seen[..., :2]], -1)
    params = made_for(net, *inputs)
    linen = nn.MultiHeadDotProductAttention(3)
    module = nnx.MultiHeadAttention(3, 6, in_kv_features=4 if cross else 6, decode=False, rngs=nnx.Rngs(0))
    graph, _ = nnx.split(module)
    names = {"q": "query", "k": "key", "v": "value", "out": "out"}

    def of_linen(params: Any, *inputs: Any) -> Any:
        theirs = {names[name]: {"kernel": p["w"], "bias": p["b"]} for name, p in params.items()}
        return linen.apply({"params": theirs}, *inputs, mask=seen)

    def of_nnx(params: Any, *inputs: Any) -> Any:
        theirs = {names[name]: {"kernel": p["w"], "bias": p["b"]} for name, p in params.items()}
        state = jax.tree.map(nnx.Param, theirs)
        return nnx.merge(graph, nnx.State(state))(*inputs, mask=seen)

    def of_ours(params: Any, *inputs: Any) -> Any:
        return net.apply(params, *inputs, mask=seen)

    blind = False if seen is None else bool((~jnp.broadcast_to(seen, (2, 3, 5, seen.shape[-1])).any(-1)).any())
    assert not blind, "Flax gives the mean of values there"
    y, grads = value_and_grads(of_ours, params, *inputs)
    for peer in (of_linen, of_nnx):
        y_peer, grads_peer = value_and_grads(peer, params, *inputs)
        assert_close(y, y_peer)
        assert_close(grads, grads_peer, 1e-4)


def value_and_grads(apply: Any, params: Any, *inputs: Any) -> tuple[Any, Any]:
    """The output, and gradients of a weighted sum of it with respect to everything."""

    def loss(params: Any, *inputs: Any) -> Any:
        y = apply(params, *inputs)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)), y

    grads, y = jax.jit(jax.grad(loss, tuple(range(1 + len(inputs))), has_aux=True))(params, *inputs)
    return y, grads


@pytest.mark.parametrize("mask", MASKS)
def test_attention_equals_haiku_with_gradients(mask: str):
    net, seen = nets.attention(3, head_size=4, features=6), MASKS[mask]
    params = made_for(net, X, MEMORY[:, :5])

    def peer(x: Any, memory: Any) -> Any:
        module = hk.MultiHeadAttention(3, 4, model_size=6, w_init=hk.initializers.Constant(0), name="mha")
        return module(x, memory, memory, mask=None if seen is None else jnp.broadcast_to(seen, (2, 3, 5, 5)))

    names = {"q": "mha/query", "k": "mha/key", "v": "mha/value", "out": "mha/linear"}

    def of_haiku(params: Any, x: Any, memory: Any) -> Any:
        flat = {names[name]: dict(p) for name, p in params.items()}
        for name in ("q", "k", "v"):
            flat[names[name]] = {"w": params[name]["w"].reshape(-1, 12), "b": params[name]["b"].reshape(12)}
        flat["mha/linear"]["w"] = params["out"]["w"].reshape(12, 6)
        return hk.transform(peer).apply(flat, None, x, memory)

    ours = value_and_grads(lambda params, *inputs: net.apply(params, *inputs, mask=seen), params, X, MEMORY[:, :5])
    theirs = value_and_grads(of_haiku, params, X, MEMORY[:, :5])
    assert_close(ours[0], theirs[0])
    assert_close(ours[1], theirs[1], 1e-4)


@pytest.mark.parametrize("net", [nets.attention(3), nets.attention(3, drop_rate=0.2, num_kv_heads=1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_query_that_may_look_at_nothing_gives_zero_and_zero_finite_gradients(net: nets.Net, dtype: str):
    params, x = made_for(net, X), X.astype(dtype)
    mask = jnp.ones((5, 5), bool).at[2].set(False)

    def heads(x: jax.Array, query: int) -> jax.Array:
        bare = jax.tree.map(lambda leaf: leaf, params) | {"out": {"w": params["out"]["w"], "b": jnp.zeros(6)}}
        return net.apply(bare, x, mask=mask, key=KEY, train=True)[:, query]

    assert (heads(x, 2) == 0).all()
    grads = jax.grad(lambda x: heads(x, 2).sum())(x)
    assert (grads == 0).all()
    everything = jax.grad(lambda x: sum(heads(x, query).sum() for query in range(5)))(x)
    assert jnp.isfinite(everything).all()
    assert (jax.grad(lambda x: heads(x, 1).sum())(x) != 0).any()


def test_a_mask_of_nothing_gives_the_bias_of_the_output_and_no_gradient_elsewhere():
    net, params = nets.attention(2), made_for(nets.attention(2), X)
    y, grads = value_and_grads(lambda params, x: net.apply(params, x, mask=jnp.zeros((5, 5), bool)), params, X)
    assert (y == params["out"]["b"]).all()
    assert all((leaf == 0).all() for name in "qkv" for leaf in jax.tree.leaves(grads[0][name]))
    assert (grads[1] == 0).all()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("dtype", "digits"), [("bfloat16", 8), ("float16", 11)])
def test_half_precision_is_off_by_the_rounding_of_the_output_alone(dtype: str, digits: int, train: bool):
    heads = {name: jax.random.normal(jax.random.key(seed), (2, 256, 4, 32), dtype) for seed, name in enumerate("qkv")}
    net = nets.attention(4, head_size=32, features=128, bias=False, drop_rate=1e-9 * train)
    eye = jnp.eye(128).reshape(128, 4, 32)
    params = {"q": {"w": eye}, "k": {"w": eye}, "v": {"w": eye}, "out": {"w": jnp.eye(128).reshape(4, 32, 128)}}
    x = heads["q"].reshape(2, 256, 128)
    y = jax.jit(lambda x: net.apply(params, x, key=KEY, train=train))(x)
    with jax.enable_x64(True):
        wide = jnp.asarray(np.asarray(x, np.float64))
        exact = net.apply(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), wide)
    exact = np.asarray(exact)
    error = np.sqrt(np.mean((np.asarray(y, np.float64) - exact) ** 2))
    assert y.dtype == dtype
    assert error < 2 * np.sqrt(np.mean((exact * 2.0**-digits) ** 2))


def test_large_scores_in_half_precision_stay_finite():
    net, x = nets.attention(1), 200 * X.astype("bfloat16")
    params = made_for(net, x)
    assert jnp.isfinite(net.apply(params, x)).all()


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"rope": nets.rotary(), "num_kv_heads": 1, "head_size": 4}])
def test_causal_attention_is_causal_by_gradient(options: dict):
    net = nets.attention(2, causal=True, **options)
    params = made_for(net, X[0])
    slopes = jax.jacobian(lambda x: net.apply(params, x))(X[0])
    influence = jnp.abs(slopes).sum((1, 3))
    seen = jnp.tril(jnp.ones((5, 5), bool)) & (jnp.arange(5)[:, None] - jnp.arange(5) < options.get("window", 5))
    assert ((influence > 0) == seen).all()


def test_attention_without_positions_follows_a_permutation_and_ignores_one_of_the_memory():
    net = nets.attention(3)
    order, other = jax.random.permutation(KEY, 5), jax.random.permutation(KEY, 7)
    params = made_for(net, X)
    assert_close(net.apply(params, X[:, order]), net.apply(params, X)[:, order])
    params = made_for(net, X, MEMORY)
    assert_close(net.apply(params, X, MEMORY[:, other]), net.apply(params, X, MEMORY))


def test_rotary_attention_depends_on_distances_alone():
    net = nets.attention(2, head_size=4, causal=True, window=3, rope=nets.rotary())
    x = jnp.concatenate([X, X, X], -2)
    y = net.apply(made_for(net, x), x)
    assert_close(y[:, 5:10], y[:, 10:])


def test_masks_broadcast_over_heads_queries_and_batch():
    net, params = nets.attention(3), made_for(nets.attention(3), X)
    for shape in [(5,), (5, 1), (1, 1), (3, 1, 5), (2, 1, 1, 5), (1, 3, 5, 5)]:
        mask = values(jax.ShapeDtypeStruct(shape, bool))
        full = jnp.broadcast_to(mask, (2, 3, 5, 5))
        assert_close(net.apply(params, X, mask=mask), net.apply(params, X, mask=full), 1e-6)


def test_dropped_weights_are_other_ones_for_every_head_query_and_example_and_keep_the_mean():
    net = nets.attention(2, head_size=1, drop_rate=0.5, bias=False, features=2)
    x = jnp.ones((40, 50, 2))
    ones = {name: {"w": jnp.ones((2, 2, 1)) / 2} for name in "qkv"}
    params = {**ones, "out": {"w": jnp.eye(2).reshape(2, 1, 2)}}
    y = net.apply(params, x, key=KEY, train=True)
    assert abs(y.mean() - 1) < 0.01
    assert len(np.unique(np.round(np.asarray(y[:4]) * 25).astype(int))) > 5
    assert (y[0] != y[1]).any()
    assert (y[..., 0] != y[..., 1]).any()
    assert_close(net.apply(params, x), jnp.ones_like(x))


@hypothesis.settings(max_examples=15, derandomize=True, deadline=None, database=None)
@hypothesis.given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=4), window=st.sampled_from([None, 2, 5]))
@hypothesis.example(chunks=[1] * 16, window=None)
@hypothesis.example(chunks=[3, 13], window=5)
def test_chunks_through_a_cache_equal_the_whole(chunks: list[int], window: int | None):
    net = nets.attention(4, head_size=2, num_kv_heads=2, causal=True, window=window, rope=nets.rotary())
    (x,) = values(floats(2, 16, 6))
    params = made_for(net, x)
    ends = np.cumsum(chunks)
    cache: Any = 16
    for start, end in zip([0, *ends], ends, strict=False):
        y, cache = applied(net, params, x[:, start:end], cache) if start else started(net, params, x[:, :end])
        assert_close(y, applied(net, params, x)[:, start:end])
    assert cache.length == ends[-1]
    assert cache.keys.shape == (2, 16, 2, 2)


@functools.partial(jax.jit, static_argnums=0)
def applied(net: nets.Net, params: Any, x: Any, cache: Any = None) -> Any:
    return net.apply(params, x, cache=cache)


@functools.partial(jax.jit, static_argnums=0)
def started(net: nets.Net, params: Any, x: Any) -> Any:
    return net.apply(params, x, cache=16)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_a_cache_has_the_leading_axes_of_the_input(batch: tuple[int, ...]):
    net = nets.attention(2, causal=True)
    (x,) = values(floats(*batch, 5, 6))
    params = made_for(net, x)
    y, cache = net.apply(params, x[..., :4, :], cache=5)
    last, cache = net.apply(params, x[..., 4:, :], cache=cache)
    assert cache.values.shape == (*batch, 5, 2, 3)
    assert_close(jnp.concatenate([y, last], -2), net.apply(params, x))


def test_a_mask_with_a_cache_says_which_of_its_positions_are_seen():
    net = nets.attention(2, causal=True)
    params = made_for(net, X)
    padding = jnp.array([[True] * 5 + [False] * 3, [False] * 2 + [True] * 6])[:, None, None]
    y, cache = net.apply(params, X[:, :3], cache=8, mask=padding)
    rest, cache = net.apply(params, X[:, 3:], cache=cache, mask=padding)
    expected = net.apply(params, X, mask=padding[..., :5])
    assert_close(jnp.concatenate([y, rest], 1), expected)
    slopes = nets.alibi(2)(jnp.arange(3), jnp.arange(8)), nets.alibi(2)(jnp.arange(3, 5), jnp.arange(8))
    y, cache = net.apply(params, X[:, :3], cache=8, bias=slopes[0])
    rest, cache = net.apply(params, X[:, 3:], cache=cache, bias=slopes[1])
    expected = net.apply(params, X, bias=nets.alibi(2)(jnp.arange(5), jnp.arange(5)))
    assert_close(jnp.concatenate([y, rest], 1), expected)


def test_past_the_end_of_a_cache_outputs_are_nan_and_the_cache_keeps_what_it_had():
    net = nets.attention(2, causal=True)
    params = made_for(net, X)
    apply = jax.jit(lambda x, cache: net.apply(params, x, cache=cache))
    _, cache = net.apply(params, X[:, :3], cache=4)
    y, full = apply(X[:, 3:], cache)
    assert_close(y[:, :1], net.apply(params, X)[:, 3:4])
    assert jnp.isnan(y[:, 1:]).all()
    assert full.length == 4
    y, after = apply(X[:, :2], full)
    assert jnp.isnan(y).all()
    assert all((a == b).all() for a, b in zip(after, full, strict=True))
    assert (full.keys[:, :3] == cache.keys[:, :3]).all()


def test_gradients_go_through_a_cache():
    net = nets.attention(2, causal=True, rope=nets.rotary(), head_size=4)
    params = made_for(net, X)

    def in_chunks(params: Any, x: Any) -> Any:
        y, cache = net.apply(params, x[:, :2], cache=6)
        return jnp.concatenate([y, net.apply(params, x[:, 2:], cache=cache)[0]], 1)

    ours, whole = (value_and_grads(apply, params, X) for apply in (in_chunks, net.apply))
    assert_close(ours, whole, 1e-5)


def test_examples_with_caches_of_different_lengths_go_on_under_vmap():
    net = nets.attention(2, causal=True)
    params = made_for(net, X)
    starts = [net.apply(params, x[:length], cache=6)[1] for x, length in zip(X, (1, 4), strict=True)]
    caches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    new = jnp.stack([X[0, 1:2], X[1, 4:5]])
    y, _ = jax.vmap(lambda x, cache: net.apply(params, x, cache=cache))(new, caches)
    expected = net.apply(params, X)
    assert_close(y[:, 0], jnp.stack([expected[0, 1], expected[1, 4]]))


def test_the_initial_values_are_those_of_flat_linear_maps():
    (x,) = values(floats(2, 5, 64))
    net = nets.attention(4, head_size=32, features=16)
    params = net.init(KEY, x)
    for name, fan_in in (("q", 64), ("k", 64), ("v", 64), ("out", 128)):
        assert abs(params[name]["w"].std() * fan_in**0.5 - 1) < 0.05
        assert (params[name]["b"] == 0).all()


@pytest.mark.parametrize("low", [-np.inf, float(np.finfo("float32").min)])
def test_a_bias_of_minus_infinity_hides_keys_as_a_mask_does(low: float):
    net = nets.attention(2, causal=True)
    params = net.init(KEY, X)
    open_ = np.ones((5, 5), bool)
    open_[0, 0] = open_[3, 1] = False  # the first position then sees nothing
    bias = np.where(open_, np.linspace(-1, 1, 25, dtype="float32").reshape(5, 5), np.float32(low))

    def loss(params: Any, x: jax.Array, **keywords: Any) -> jax.Array:
        return jnp.square(net.apply(params, x, **keywords)).sum()

    found = jax.value_and_grad(loss, (0, 1))(params, X, bias=bias)
    assert_close(found, jax.value_and_grad(loss, (0, 1))(params, X, bias=np.maximum(bias, -1), mask=open_))
    np.testing.assert_array_equal(net.apply(params, X, bias=bias)[:, 0], jnp.broadcast_to(params["out"]["b"], (2, 6)))


REACHES = {"all": (None, None), "causal": (None, 0), "window": (2, 2), "causal window": (3, 0)}
PLACES = jnp.arange(11)
EXTRAS = {
    "nothing": (None, None),
    "mask": (values(jax.ShapeDtypeStruct((2, 4, 11, 11), bool)) | jnp.eye(11, dtype=bool), None),
    "mask for all queries": ((PLACES != 5)[None, None], None),
    "bias": (None, values(jax.ShapeDtypeStruct((2, 4, 11, 11), jnp.float32))),
}


LOOPS = {**{extra: (0, extra) for extra in EXTRAS}, "mask, no loops": (16, "mask")}
WAYS = list(itertools.product([4, 2], REACHES, LOOPS))  # every second one stands for the others, all of each among them


@pytest.mark.parametrize(
    ("kv_heads", "reach", "loops"),
    [pytest.param(*way, marks=() if i % 2 == 0 else pytest.mark.long) for i, way in enumerate(WAYS)],
)
def test_block_by_block_it_is_the_same_with_two_derivatives(kv_heads, reach, loops, monkeypatch):
    few, extra = LOOPS[loops]
    for name, size in {"_BLOCK": 2, "_FEW_BLOCKS": few, "_GROUP": 5}.items():
        monkeypatch.setattr(_attend, name, size)
    arrays, (mask, bias), (before, after) = qkv(4, kv_heads), EXTRAS[extra], REACHES[reach]
    apart = PLACES[:, None] - PLACES
    within = ((apart <= (11 if before is None else before)) & (-apart <= (11 if after is None else after)))[None]
    mask = _attend.both(mask, None if reach == "all" else within)

    def directed(form: Any, *arrays: jax.Array) -> jax.Array:
        slopes = jax.grad(lambda *arrays: jnp.sin(form(*arrays, mask, bias)).sum(), (0, 1, 2))(*arrays)
        return jnp.stack([jnp.sin(3 * slope).sum() for slope in slopes]).sum()

    def all_of(form: Any) -> Any:
        compiled = jax.jit(lambda *arrays: (form(*arrays, mask, bias), jax.grad(directed, (1, 2, 3))(form, *arrays)))
        return compiled(*arrays)

    found, expected = all_of(functools.partial(_attend._by_block, reach=(before, after))), all_of(_attend._plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), found, expected)


HALF = jnp.ones((2, 16, 32), jnp.bfloat16)
SEEN = {"mask": jnp.ones((2, 1, 1, 16), bool)}
CUDNN = {
    "all": ({}, {}, "fmhaSoftmax", "NO_MASK"),
    "causal": ({"causal": True}, {}, "fmhaSoftmax", "CAUSAL"),
    "causal window": ({"causal": True, "window": 3}, {}, "fmhaSoftmax", "CAUSAL"),
    "window": ({"window": 3}, {}, "fmhaScaleBiasSoftmax", "NO_MASK"),
    "fewer heads": ({"num_kv_heads": 2}, {}, "fmhaSoftmax", "NO_MASK"),
    "mask": ({"causal": True}, SEEN, "fmhaScaleBiasSoftmax", "CAUSAL"),
    "mask and causal window": ({"causal": True, "window": 3}, SEEN, "fmhaScaleBiasSoftmax", "CAUSAL"),
    "cache": ({"causal": True}, {"cache": 32}, "fmhaScaleBiasSoftmax", "NO_MASK"),
}


@pytest.mark.parametrize("name", CUDNN)
def test_cudnn_is_asked_for_its_fused_kernel_forward_and_backward(name: str, monkeypatch: Any):
    options, given, kernel, mask = CUDNN[name]
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91500)
    net = nets.attention(4, implementation="cudnn", **options)
    params = nets.attention(4, **options).init(KEY, HALF)

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jax.tree.leaves(net.apply(params, HALF, **given))[0].astype(jnp.float32))

    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    text = jax.jit(jax.grad(loss)).trace(halves).lower(lowering_platforms=("cuda",)).as_text()
    assert sorted(set(re.findall(r"__cudnn\$(\w+)", text))) == [kernel, f"{kernel}Backward"]
    assert set(re.findall(r"mask_type\W+(\w+?)\W", text.replace("\\22", '"'))) == {mask}
    length = {"causal window": "3"}.get(name, "0")
    assert set(re.findall(r"sliding_window_length\W+(\d+)", text.replace("\\22", '"'))) == {length}


def test_what_cudnn_refuses_is_said_with_its_reason_and_the_path(monkeypatch: Any):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91500)
    net = nets.serial(nets.attention(16, implementation="cudnn"))
    with pytest.raises(nets.NetError, match=r"got its refusal \(The head dim must be .*, but got 2\)\.") as caught:
        net.init(KEY, HALF)
    assert caught.value.path == ("attention",)


@pytest.mark.parametrize("compute", ["bfloat16", "float16", "float32"])
def test_a_transformer_by_cudnn_is_initialised_and_run_in_any_precision(compute: str, monkeypatch: Any):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91500)
    ids = jnp.zeros((2, 16), int)
    net = nets.cast(nets.transformer(11, 32, num_layers=2, num_heads=4, implementation="cudnn"), compute=compute)
    lowered = jax.jit(net.apply).trace(net.init(KEY, ids), ids).lower(lowering_platforms=("cuda",))
    (kernel,) = re.findall(r"custom_call @__cudnn.*?-> \(?tensor<([^>]+)>", lowered.as_text())
    assert kernel.endswith("f16" if compute == "float16" else "bf16")
    assert (lowered.out_info.shape, lowered.out_info.dtype) == ((2, 16, 11), compute)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN runs on GPUs of NVIDIA")
@pytest.mark.parametrize("name", CUDNN)
def test_cudnn_gives_what_the_plain_form_gives(name: str):
    options, given, *_ = CUDNN[name]
    x = jax.random.normal(KEY, HALF.shape, jnp.bfloat16)
    found, expected = [], []
    ways: Any = ((None, expected), ("cudnn", found))
    for implementation, into in ways:
        net = nets.cast(nets.attention(4, bias=False, implementation=implementation, **options), compute=jnp.bfloat16)
        params = net.init(KEY, x)

        def loss(params: Any, x: jax.Array, net: Any = net) -> jax.Array:
            return jnp.sum(jnp.sin(jax.tree.leaves(net.apply(params, x, **given))[0].astype(jnp.float32)))

        into += jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.float32(a), np.float32(b), atol=0.05 * float(np.abs(np.float32(b)).max()))


def qkv(heads: int, kv_heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    return values(floats(2, 11, heads, 3) + floats(2, 11, kv_heads, 3) + floats(2, 11, kv_heads, 3))


@pytest.mark.parametrize("causal", [True, False])
def test_a_long_sequence_has_the_outputs_of_a_short_one(causal):
    net = nets.attention(2, causal=causal, window=50, rope=nets.rotary())
    x = values(floats(3, 300, 8))[0]
    params = made_for(net, x)
    long = jax.jit(net.apply)(params, x)
    np.testing.assert_allclose(net.apply(params, x[:, 100:300])[:, 60:140], long[:, 160:240], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(net.apply, (None, 0))(params, x), long, rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(net.apply, params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_it_can_be_exported_with_a_symbol_for_time():
    net = nets.attention(2, causal=True)
    x = values(floats(2, 5, 4))[0]
    params, (batch, time) = made_for(net, x), jax.export.symbolic_shape("b, t")
    shape = jax.ShapeDtypeStruct((batch, time, 4), jnp.float32)
    found = jax.export.export(jax.jit(lambda x: net.apply(params, x)))(shape).call(x)
    np.testing.assert_allclose(found, net.apply(params, x), rtol=1e-5, atol=1e-6)
