"""Squeeze and excitation, mixtures of experts, quantisers and averages: known answers, and Haiku's."""

import functools
import math
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, floats, values


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


# Squeeze and excitation.


@pytest.mark.parametrize(("num_axes", "shape"), [(1, (2, 5, 8)), (2, (3, 4, 8)), (3, (2, 2, 3, 2, 8))])
def test_squeeze_excite_scales_channels_by_gates_of_their_means(num_axes: int, shape: tuple[int, ...]):
    net, (x,) = nets.squeeze_excite(4, num_axes=num_axes), values(floats(*shape))
    params = jax.tree.map(np.asarray, net.init(KEY, x))
    mean = np.asarray(x, np.float64).mean(tuple(range(-num_axes - 1, -1)), keepdims=True)
    hidden = np.maximum(mean @ params["squeeze"]["w"] + params["squeeze"]["b"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ params["excite"]["w"] + params["excite"]["b"])))
    assert params["squeeze"]["w"].shape == (8, 2)
    assert_close(net.apply(params, x), x * gate)


def test_squeeze_excite_has_at_least_one_feature_or_as_many_as_asked():
    x = jax.ShapeDtypeStruct((4, 4, 8), "float32")
    assert nets.squeeze_excite(16).init(KEY, x)["squeeze"]["w"].shape == (8, 1)
    assert nets.squeeze_excite(16, hidden=5).init(KEY, x)["excite"]["w"].shape == (5, 8)


def test_squeeze_excite_in_half_precision_takes_means_in_single():
    x = jnp.full((64, 64, 1), 0.1, "bfloat16")
    net = nets.squeeze_excite(1, gate=lambda x: x)
    params = {name: {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)} for name in ("squeeze", "excite")}
    np.testing.assert_allclose(np.asarray(net.apply(params, x), np.float32), 0.01, rtol=0.02)


# Mixtures of experts.


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def mixture(params: Any, x: Any, top_k: int, gates: str, room: int | None = None) -> tuple[np.ndarray, ...]:
    """Linear experts, token by token: outputs, load loss, z-loss, shares and dropped share."""
    params, x = jax.tree.map(np.asarray, params), np.asarray(x)
    logits = x @ params["router"]["w"]
    num_experts = logits.shape[-1]
    ranked = np.argsort(-logits, -1)[:, :top_k]
    counts, filled, dropped = np.zeros(num_experts), np.zeros(num_experts, int), 0
    y = np.zeros((len(x), params["experts"]["w"].shape[-1]))
    for rank in range(top_k):
        for token, chosen in enumerate(ranked):
            expert = chosen[rank]
            counts[expert] += 1
            if room is not None and filled[expert] == room:
                dropped += 1
                continue
            filled[expert] += 1
            over = logits[token, chosen] if gates == "chosen" else logits[token]
            gate = np.exp(logits[token, expert]) / np.exp(over).sum()
            y[token] += gate * (x[token] @ params["experts"]["w"][expert] + params["experts"]["b"][expert])
    share = counts / counts.sum()
    load_loss = num_experts * (share * softmax(logits).mean(0)).sum()
    z_loss = (np.log(np.exp(logits).sum(-1)) ** 2).mean()
    return y, load_loss, z_loss, share, np.array(dropped / counts.sum())


MIXTURES = {
    "two of four": {},
    "one of four": {"top_k": 1, "gates": "all"},
    "three, weighed against all": {"top_k": 3, "gates": "all"},
    "all": {"top_k": 4},
    "enough room": {"capacity_factor": 2.0},
    "little room": {"capacity_factor": 0.5},
    "little room for one": {"capacity_factor": 0.75, "top_k": 1, "gates": "all"},
}


@pytest.mark.parametrize("case", MIXTURES)
def test_a_mixture_of_experts_equals_a_loop_over_tokens(case: str):
    options: dict[str, Any] = MIXTURES[case]
    net, (x,) = nets.mixture_of_experts(nets.linear(3), 4, **options), values(floats(9, 5))
    params = jax.tree.map(lambda leaf: 2 * leaf, values(jax.eval_shape(net.init, KEY, x)))
    top_k, factor = options.get("top_k", 2), options.get("capacity_factor")
    room = None if factor is None else math.ceil(factor * top_k * 9 / 4)
    y, routing = jax.jit(net.apply)(params, x)
    expected, *of_routing = mixture(params, x, top_k, options.get("gates", "chosen"), room)
    assert_close(y, expected, 2e-5)
    assert_close(tuple(routing), tuple(of_routing))
    assert (routing.dropped > 0) == case.startswith("little")


@pytest.mark.parametrize("case", MIXTURES)
def test_gradients_of_a_mixture_of_experts_equal_finite_differences_of_the_loop(case: str):
    options: dict[str, Any] = MIXTURES[case]
    top_k, factor = options.get("top_k", 2), options.get("capacity_factor")
    room = None if factor is None else math.ceil(factor * top_k * 9 / 4)
    with jax.enable_x64(True):
        net = nets.mixture_of_experts(nets.linear(3), 4, **options)
        x = jnp.asarray(values(floats(9, 5))[0], "float64")
        params = jax.tree.map(lambda leaf: leaf.astype("float64"), values(jax.eval_shape(net.init, KEY, x)))

        def loss(params: Any) -> jax.Array:
            y, routing = net.apply(params, x)
            return jnp.sum(y**2) + routing.load_loss + routing.z_loss

        def slow(w: np.ndarray) -> float:
            y, load_loss, z_loss, *_ = mixture(
                {**params, "router": {"w": w}}, x, top_k, options.get("gates", "chosen"), room
            )
            return float((y**2).sum() + load_loss + z_loss)

        grads = jax.jit(jax.grad(loss))(params)["router"]["w"]
        w, found = np.asarray(params["router"]["w"]), np.zeros((5, 4))
        for place in np.ndindex(w.shape):
            step = np.zeros(w.shape)
            step[place] = 1e-6
            found[place] = (slow(w + step) - slow(w - step)) / 2e-6
        np.testing.assert_allclose(grads, found, rtol=1e-6, atol=1e-6)


def test_with_room_for_all_a_capacity_changes_nothing():
    (x,) = values(floats(2, 6, 5))
    dense = nets.mixture_of_experts(nets.mlp(6, 3), 4, top_k=2)
    params = dense.init(KEY, x)
    limited = nets.mixture_of_experts(nets.mlp(6, 3), 4, top_k=2, capacity_factor=4.0)
    assert_close(jax.jit(limited.apply)(params, x), jax.jit(dense.apply)(params, x))


def test_tokens_that_find_their_experts_full_pass_zero():
    net = nets.mixture_of_experts(nets.linear(3), 4, top_k=1, gates="all", capacity_factor=1.0)
    x = jnp.ones((8, 5))
    y, routing = jax.jit(net.apply)(net.init(KEY, x), x)
    assert routing.dropped == 0.75
    assert jnp.all(y[2:] == 0)
    assert jnp.all(y[:2] != 0)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_load_loss_is_1_where_experts_are_chosen_alike_and_their_number_where_one_gets_all(top_k: int):
    net = nets.mixture_of_experts(nets.linear(3), 4, top_k=top_k, gates="all")
    x = jnp.eye(4)
    params, apply = net.init(KEY, x), jax.jit(net.apply)
    shifts = sum((jnp.roll(jnp.eye(4), rank, 1) * 0.1 * (rank + 1) for rank in range(4)), jnp.zeros((4, 4)))
    alike = apply({**params, "router": {"w": shifts}}, x)[1]
    np.testing.assert_allclose(alike.load_loss, 1, rtol=1e-6)
    np.testing.assert_allclose(alike.share, 0.25, rtol=1e-6)
    one = apply({**params, "router": {"w": jnp.zeros((4, 4)).at[:, 2].set(50.0)}}, x)[1]
    np.testing.assert_allclose(one.load_loss, 4 / top_k, rtol=1e-5)


def test_the_gates_of_chosen_experts_add_up_to_1():
    net, (x,) = nets.mixture_of_experts(nets.linear(1), 4, top_k=3), values(floats(6, 5))
    params = net.init(KEY, x)
    ones = {"w": jnp.zeros((4, 5, 1)), "b": jnp.ones((4, 1))}
    np.testing.assert_allclose(jax.jit(net.apply)({**params, "experts": ones}, x)[0], 1, rtol=1e-6)


def test_a_mixture_of_experts_in_half_precision_chooses_and_weighs_in_single():
    net, x = nets.mixture_of_experts(nets.linear(3), 4), values(floats(9, 5))[0].astype("bfloat16")
    params = net.init(KEY, x)
    y, routing = net.apply(params, x)
    single, expected = net.apply(params, x.astype("float32"))
    assert y.dtype == "bfloat16"
    assert {leaf.dtype for leaf in routing} == {jnp.dtype("float32")}
    assert_close(routing, expected, 1e-6)
    assert_close(y.astype("float32"), single, 0.03)


def test_experts_that_carry_state_and_draw_noise_do_so_each_for_itself():
    expert = nets.serial(nets.batch_norm(), nets.dropout(0.5), nets.linear(3))
    net, (x,) = nets.mixture_of_experts(expert, 4), values(floats(6, 5))
    params, state = net.init(KEY, x)
    assert isinstance(net, nets.StatefulNet)
    assert state["experts"]["batch_norm"]["mean"].shape == (4, 5)
    (one, _), after = net.apply(params, state, x, key=jax.random.key(1), train=True)
    (two, _), _ = net.apply(params, state, x, key=jax.random.key(2), train=True)
    assert not np.allclose(one, two)
    assert_close(after["experts"]["batch_norm"]["mean"], np.broadcast_to(0.1 * x.mean(0), (4, 5)))


# Quantisers.


def haiku_quantiser(x: jax.Array, w: jax.Array, commitment: float) -> dict:
    peer = hk.transform(lambda x: hk.nets.VectorQuantizer(*w.T.shape, commitment)(x, True))
    return peer.apply({"vector_quantizer": {"embeddings": w.T}}, None, x)


@pytest.mark.parametrize("shape", [(3,), (8, 3), (2, 4, 5, 3)])
@pytest.mark.parametrize("commitment", [0.25, 1.0])
def test_vector_quantise_equals_haiku(shape: tuple[int, ...], commitment: float):
    net, (x, w) = nets.vector_quantise(6, commitment=commitment), values(floats(*shape) + floats(6, 3))
    weights = values(floats(*shape))[0]
    w = 0.5 * w[::-1]

    def ours(x: jax.Array, w: jax.Array) -> tuple[jax.Array, Any]:
        y, info = net.apply({"w": w}, x)
        return jnp.sum(weights * y) + info.loss.mean(), (y, info.loss.mean(), info.codes, info.perplexity)

    def theirs(x: jax.Array, w: jax.Array) -> tuple[jax.Array, Any]:
        info = haiku_quantiser(x, w, commitment)
        kept = [info[name] for name in ("quantize", "loss", "encoding_indices", "perplexity")]
        return jnp.sum(weights * info["quantize"]) + info["loss"], tuple(kept)

    (_, found), grads = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(x, w)
    (_, expected), their_grads = jax.jit(jax.value_and_grad(theirs, (0, 1), has_aux=True))(x, w)
    assert_close(found, expected)
    assert_close(grads, their_grads, 1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_vector_quantise_ema_equals_haiku_over_several_steps(decay: float):
    batches = [values(floats(40, 2))[0] * (1 + 0.2 * step) for step in range(4)]
    net = nets.vector_quantise_ema(3, decay=decay)
    peer = hk.transform_with_state(lambda x, train: hk.nets.VectorQuantizerEMA(2, 3, 0.25, decay)(x, train))

    @functools.partial(jax.jit, static_argnames="train")
    @functools.partial(jax.value_and_grad, has_aux=True)
    def ours(x: jax.Array, state: Any, train: bool) -> Any:
        (y, info), state = net.apply({}, state, x, train=train)
        return jnp.sum(y**2) + info.loss.mean(), ((y, info.loss.mean(), info.codes, info.perplexity), state)

    @functools.partial(jax.jit, static_argnames="train")
    @functools.partial(jax.value_and_grad, has_aux=True)
    def theirs(x: jax.Array, state: Any, train: bool) -> Any:
        info, state = peer.apply({}, state, None, x, train)
        kept = tuple(info[name] for name in ("quantize", "loss", "encoding_indices", "perplexity"))
        return jnp.sum(info["quantize"] ** 2) + info["loss"], (kept, state)

    w = jnp.array([[0.5, 0.5], [-0.5, 0.5], [0.0, -0.5]])
    state, their_state = net.init(KEY, batches[0])[1] | {"w": w}, peer.init(KEY, batches[0], True)[1]
    their_state["vector_quantizer_ema"]["embeddings"] = w.T
    for x in batches:
        for train in (False, True):
            (_, (found, state)), grads = ours(x, state, train=train)
            (_, (expected, their_state)), their_grads = theirs(x, their_state, train=train)
            assert_close(found, expected)
            assert_close(grads, their_grads, 1e-4)
            assert_close(state["w"], their_state["vector_quantizer_ema"]["embeddings"].T)
    assert jnp.all(state["number"] > 0)


def test_a_code_that_no_vector_became_stays_where_haiku_turns_it_to_zero():
    net, x = nets.vector_quantise_ema(2), jnp.ones((4, 2))
    _, state = net.init(KEY, x)
    state["w"] = jnp.array([[1.0, 1.0], [9.0, 9.0]])
    for _ in range(3):
        _, state = net.apply({}, state, x, train=True)
    assert_close(state["w"], np.array([[1.0, 1.0], [9.0, 9.0]]), 1e-4)
    peer = hk.transform_with_state(lambda x: hk.nets.VectorQuantizerEMA(2, 2, 0.25, 0.99)(x, True))
    _, theirs = peer.init(KEY, x)
    theirs["vector_quantizer_ema"]["embeddings"] = jnp.array([[1.0, 9.0], [1.0, 9.0]])
    _, theirs = peer.apply({}, theirs, None, x)
    assert np.all(theirs["vector_quantizer_ema"]["embeddings"][:, 1] == 0)


def test_vector_quantise_ema_over_a_mapped_axis_equals_one_batch():
    net, (x,) = nets.vector_quantise_ema(3, axis_name="batch"), values(floats(4, 6, 2))
    _, state = net.init(KEY, x)
    mapped = jax.vmap(lambda x: net.apply({}, state, x, train=True), axis_name="batch")
    (y, info), after = mapped(x)
    (expected, expected_info), expected_after = nets.vector_quantise_ema(3).apply({}, state, x, train=True)
    assert_close((y, info.loss, info.codes), (expected, expected_info.loss, expected_info.codes))
    assert_close(info.perplexity, np.full(4, expected_info.perplexity))
    assert_close(jax.tree.map(lambda leaf: leaf[1], after), expected_after)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_nearest_code_is_found_far_from_zero(scale: float):
    w, x = (1e4 + scale * v for v in values(floats(16, 4) + floats(200, 4)))
    distances = np.square(np.asarray(x, np.float64)[:, None] - np.asarray(w, np.float64)).sum(-1)
    _, info = nets.vector_quantise(16).apply({"w": w}, x)
    found = np.take_along_axis(distances, np.asarray(info.codes)[:, None], 1)[:, 0]
    np.testing.assert_allclose(found, distances.min(-1), rtol=1e-5)


def test_what_a_quantiser_returns_is_a_code_to_the_last_bit():
    net, (x, w) = nets.vector_quantise(6), values(floats(50, 3) + floats(6, 3))
    y, info = net.apply({"w": w}, 1e4 * x)
    np.testing.assert_array_equal(y, w[info.codes])


# Moving averages.


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_ema_equals_haiku(decay: float, debias: bool):
    net = nets.ema(decay, debias=debias)
    peer = hk.transform_with_state(lambda x: hk.ExponentialMovingAverage(decay, zero_debias=debias)(x))
    xs = values(floats(5, 2, 3))[0]
    _, state = net.init(KEY, xs[0])
    _, theirs = peer.init(KEY, xs[0])
    for x in xs:
        grad = jax.grad(lambda x, state=state: net.apply({}, state, x, train=True)[0].sum())(x)
        their_grad = jax.grad(lambda x, theirs=theirs: peer.apply({}, theirs, None, x)[0].sum())(x)
        y, state = net.apply({}, state, x, train=True)
        expected, theirs = peer.apply({}, theirs, None, x)
        assert_close((y, grad), (expected, their_grad))
        assert_close(net.apply({}, state, 0 * x)[0], expected)


def test_ema_outside_of_training_returns_the_average_and_leaves_the_state():
    net = nets.ema(0.9)
    _, state = net.init(KEY, 0.0)
    assert net.apply({}, state, 5.0)[0] == 0
    _, state = net.apply({}, state, 2.0, train=True)
    y, after = net.apply({}, state, 100.0)
    assert_close(y, 2.0)
    assert after is state


def test_the_average_of_a_constant_is_that_constant_from_the_first_step_on():
    net, x = nets.ema(0.9999), jnp.array([3.0, -1e4])
    _, state = net.init(KEY, x)
    for _ in range(3):
        y, state = net.apply({}, state, x, train=True)
        np.testing.assert_allclose(y, x, rtol=1e-6)


def test_ema_averages_trees_such_as_parameters():
    net, x = nets.ema(0.9), jnp.ones((2, 3))
    trees = [nets.mlp(4, 2).init(jax.random.key(seed), x) for seed in range(3)]
    _, state = net.init(KEY, trees[0])
    for params in trees:
        _, state = net.apply({}, state, params, train=True)
    average, _ = net.apply({}, state, trees[0])
    weights = np.array([0.81, 0.9, 1.0]) / 2.71
    expected = jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *trees)
    assert_close(average, expected)


def test_ema_in_half_precision_averages_in_single():
    net, x = nets.ema(0.999), jnp.ones((), "bfloat16")
    _, state = net.init(KEY, x)
    for _ in range(3):
        _, state = net.apply({}, state, x, train=True)
    assert net.apply({}, state, x)[0].dtype == "bfloat16"
    np.testing.assert_allclose(state["average"], 1 - 0.999**3, rtol=1e-4)


@nets.define
def exploding(x: jax.Array, *, gain=nets.param((4, 1), nets.ones)):
    """One number for each token; expert 1 makes infinity of what is above 80."""
    return jnp.exp(x[..., :1] * jnp.asarray(gain)[0])


@pytest.mark.parametrize("capacity_factor", [None, 1.0, 3.0])
def test_an_expert_that_overflows_reaches_only_the_tokens_sent_to_it(capacity_factor: float | None):
    net = nets.mixture_of_experts(exploding, 2, top_k=1, gates="all", capacity_factor=capacity_factor)
    # Expert 0 has a gain of 0.01, and is sent the tokens whose second feature is 1.
    x = jnp.array([[[100.0, 1, 0, 0], [90.0, 1, 0, 0], [1.0, 0, 1, 0], [1000.0, 0, 1, 0]]])
    params = {"experts": {"gain": jnp.ones((2, 4, 1)).at[0].set(0.01)}, "router": {"w": jnp.eye(4)[:, 1:3]}}
    y, routing = net.apply(params, x)
    gate = math.e / (1 + math.e)
    assert_close(y[0, :3, 0], gate * np.exp([1.0, 0.9, 1.0]))
    assert np.isinf(y[0, 3, 0])
    assert routing.dropped == 0
    grads = jax.grad(lambda params: net.apply(params, x[:, :3])[0].sum())(params)
    assert np.isfinite(grads["router"]["w"]).all()


def test_an_expert_may_make_anything_of_room_that_is_left_over():
    @nets.define
    def inverse(x: jax.Array):
        return 1 / x

    net, (x,) = nets.mixture_of_experts(inverse, 3, capacity_factor=3.0), values(floats(2, 4, 5))
    params = net.init(KEY, x)
    assert_close(net.apply(params, x)[0], 1 / x, 1e-4)


def test_the_routing_of_no_tokens_is_zero():
    for capacity_factor, shape in ((None, (0, 5)), (1.0, (0, 4, 5)), (1.0, (2, 0, 5))):
        net = nets.mixture_of_experts(nets.linear(3), 4, capacity_factor=capacity_factor)
        y, routing = net.apply(net.init(KEY, jnp.ones((2, 4, 5))), jnp.ones(shape))
        assert y.shape == (*shape[:-1], 3)
        jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), routing)


def test_a_code_that_goes_unused_stays():
    net, codes = nets.vector_quantise_ema(2, decay=0.5), jnp.array([[1.0, 1.0], [9.0, 9.0]])
    _, state = net.init(KEY, codes)
    _, state = net.apply({}, state | {"w": codes}, codes, train=True)
    for _ in range(60):
        _, state = net.apply({}, state, codes[:1], train=True)
    assert_close(state["w"], codes, 1e-3)


def test_the_perplexity_of_no_codes_is_finite():
    net, x = nets.vector_quantise_ema(2), jnp.ones((0, 3))
    _, state = net.init(KEY, x)
    (_, info), after = net.apply({}, state, x, train=True)
    assert info.perplexity == 1
    np.testing.assert_array_equal(after["w"], state["w"])
    assert nets.vector_quantise(2).apply({"w": state["w"]}, x)[1].perplexity == 1
