"""Weights normalised before use: at first the same network, then what the papers say."""

from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, values
from .test_parity import init

KEY = jax.random.key(0)


@nets.define
def branches(x, *, layers=[nets.linear(5), nets.linear(5)], norm=nets.layer_norm(), head={"out": nets.conv(3, (3,))}):
    for child in layers:
        x = norm(jnp.tanh(child(x)))
    return head["out"](x)


@pytest.mark.parametrize(
    ("net", "num_stacked"),
    [
        (nets.linear(3), 0),
        (nets.serial(nets.linear(4), jnp.tanh, nets.linear(2)), 0),
        (branches, 0),
        (nets.repeat(nets.mlp(3, 5), 3), 1),
    ],
)
def test_a_network_under_weight_norm_is_at_first_the_one_that_it_wraps(net: nets.Net, num_stacked: int):
    (x,) = values(floats(2, 4, 5))
    normed = nets.weight_norm(net, num_stacked=num_stacked)
    params = normed.init(KEY, x)
    np.testing.assert_allclose(normed.apply(params, x), net.apply(net.init(KEY, x), x), rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, params["net"], net.init(KEY, x))


def test_only_the_direction_of_v_and_the_length_g_matter():
    net, (x,) = nets.weight_norm(nets.linear(3, bias=False)), jnp.eye(4)[None]
    params = {"net": {"w": values(floats(4, 3))[0] + 2}, "g": {"w": jnp.array([[1.0, -2.0, 0.5]])}}
    w = net.apply(params, x)
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=0), [1, 2, 0.5], rtol=1e-6)
    longer = {"net": {"w": 7 * params["net"]["w"]}, "g": params["g"]}
    np.testing.assert_allclose(net.apply(longer, x), w, rtol=1e-6)


@pytest.mark.parametrize("make", [nets.weight_norm, nets.spectral_norm])
def test_stacked_weights_are_normalised_one_by_one(make: Any):
    (x,) = values(floats(4, 5))
    inside, outside = nets.repeat(make(nets.linear(5)), 3), make(nets.repeat(nets.linear(5), 3), num_stacked=1)
    made = inside.init(KEY, x)
    theirs = outside.init(KEY, x)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, theirs)
    made = made if isinstance(inside, nets.StatefulNet) else (made,)
    found, expected = (net.apply(*made, x, train=True) for net in (outside, inside))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_a_weight_of_zeros_stays_zero_at_first_and_can_grow():
    net, (x,) = nets.weight_norm(nets.linear(3, w_init=nets.zeros)), values(floats(4, 5))
    params = net.init(KEY, x)
    np.testing.assert_array_equal(net.apply(params, x), np.zeros((4, 3)))
    grads = jax.grad(lambda params: jnp.sum(net.apply(params, x) - 1) ** 2)(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert (grads["g"]["w"] != 0).all()


def test_patterns_choose_which_weights_are_normalised():
    net, (x,) = nets.weight_norm(nets.serial(nets.linear(4), head=nets.linear(2)), "head/w"), values(floats(4, 5))
    assert jax.tree.map(jnp.shape, net.init(KEY, x)["g"]) == {"head": {"w": (1, 2)}}
    twice = nets.weight_norm(
        nets.weight_norm(nets.serial(nets.linear(4), head=nets.linear(2)), "head/w"), "net/linear/w"
    )
    params = twice.init(KEY, x)
    assert jax.tree.map(jnp.shape, params["g"]) == {"net": {"linear": {"w": (1, 4)}}}
    assert twice.apply(params, x).shape == (4, 2)


def test_weight_norm_equals_flax():
    net, (x,) = nets.weight_norm(nets.linear(3)), values(floats(4, 5))
    params = init(net, x)
    peer = nn.WeightNorm(nn.Dense(3))

    def theirs(params: Any, x: jax.Array) -> jax.Array:
        dense = {"kernel": params["net"]["w"], "bias": params["net"]["b"]}
        scale = {"layer_instance/kernel/scale": params["g"]["w"][0]}
        return jnp.asarray(peer.apply({"params": {"layer_instance": dense} | scale}, x))

    np.testing.assert_allclose(net.apply(params, x), theirs(params, x), rtol=1e-5, atol=1e-5)
    ours, peers = (jax.grad(lambda p, f=f: jnp.sum(f(p, x) ** 2))(params) for f in (net.apply, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, peers)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_spectral_norm_in_training_equals_haiku_and_flax(num_steps: int):
    net, (x,) = nets.spectral_norm(nets.linear(3), num_steps=num_steps), values(floats(4, 5))
    params, state = init(net, x)
    weights = jnp.flip(values(floats(4, 3))[0])

    def in_haiku(params: dict, x: jax.Array) -> tuple:
        peer = hk.transform_with_state(lambda w: hk.SpectralNorm(n_steps=num_steps, eps=1e-12, name="peer")(w))
        u = {"u0": state["vectors"]["w"]["u"][None], "sigma": jnp.ones(())}
        w, after = peer.apply({}, {"peer": u}, None, params["w"])
        return x @ w + params["b"], after["peer"]["u0"][0]

    def in_flax(params: dict, x: jax.Array) -> tuple:
        peer = nn.SpectralNorm(nn.Dense(3), n_steps=num_steps)
        dense = {"layer_instance": {"kernel": params["w"], "bias": params["b"]}}
        stats = {
            "layer_instance/kernel/u": state["vectors"]["w"]["u"][None],
            "layer_instance/kernel/sigma": jnp.ones(()),
        }
        found, after = peer.apply(
            {"params": dense, "batch_stats": stats}, x, update_stats=True, mutable=["batch_stats"]
        )
        return found, after["batch_stats"]["layer_instance/kernel/u"][0]

    def ours(params: dict, x: jax.Array) -> tuple:
        found, after = net.apply(params, state, x, train=True)
        return found, after["vectors"]["w"]["u"]

    def graded(apply: Any) -> Any:
        def loss(params: dict, x: jax.Array) -> tuple:
            found, u = apply(params, x)
            return (found * weights).sum(), (found, u)

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)

    expected = graded(ours)
    for peer in (in_haiku, in_flax):
        grads, found = graded(peer)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected[1])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, expected[0])


def test_spectral_norm_divides_by_the_largest_singular_value():
    net = nets.spectral_norm(nets.conv(4, 3, bias=False))
    (x,) = values(floats(2, 6, 6, 3))
    params, state = net.init(KEY, x)
    apply = jax.jit(net.apply, static_argnames="train")
    for _ in range(30):
        _, state = apply(params, state, x, train=True)
    y, state = apply(params, state, x, train=True)
    largest = np.linalg.svd(np.asarray(params["w"], np.float64).reshape(27, 4), compute_uv=False)[0]
    np.testing.assert_allclose(y, nets.conv(4, 3, bias=False).apply({"w": params["w"] / largest}, x), atol=1e-5)
    y, after = apply(params, state, x)
    np.testing.assert_allclose(y, nets.conv(4, 3, bias=False).apply({"w": params["w"] / largest}, x), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_spectral_norm_starts_close_to_the_singular_vectors():
    net = nets.spectral_norm(nets.linear(8, bias=False))
    params, state = net.init(KEY, jnp.eye(6))
    w, _ = net.apply(params, state, jnp.eye(6))
    assert abs(np.linalg.norm(w, 2) - 1) < 0.02


def test_spectral_norm_of_zeros_is_zero_with_finite_gradients():
    net, (x,) = nets.spectral_norm(nets.linear(3, w_init=nets.zeros)), values(floats(4, 5))
    params, state = net.init(KEY, x)
    y, state = net.apply(params, state, x, train=True)
    np.testing.assert_array_equal(y, np.zeros((4, 3)))
    grads = jax.grad(lambda params: net.apply(params, state, x, train=True)[0].sum())(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((state, grads)))


def test_state_and_keys_of_the_network_inside_go_through():
    net = nets.spectral_norm(nets.serial(nets.linear(3), nets.batch_norm(), nets.dropout(0.5)))
    (x,) = values(floats(8, 5))
    params, state = net.init(KEY, x)
    assert set(state) == {"vectors", "net"}
    y, after = net.apply(params, state, x, key=KEY, train=True)
    assert (np.asarray(y) == 0).any()
    assert (after["net"]["batch_norm"]["mean"] != state["net"]["batch_norm"]["mean"]).all()


def test_weights_of_several_output_axes_are_normalised_over_their_inputs():
    net, (x,) = nets.linear_general((2, 4), bias=False), values(floats(3, 5))
    params = nets.weight_norm(net, num_outputs=2).init(KEY, x)
    np.testing.assert_allclose(params["g"]["w"], jnp.linalg.norm(params["net"]["w"], axis=0, keepdims=True), rtol=1e-6)
    normed = nets.spectral_norm(net, num_outputs=2, num_steps=200)
    y, _ = normed.apply(*normed.init(KEY, x), jnp.eye(5), train=True)
    np.testing.assert_allclose(jnp.linalg.norm(y.reshape(5, 8), 2), 1, rtol=1e-4)


def test_transposed_kernels_are_normalised_over_their_inputs():
    (x,) = values(floats(2, 5, 5, 3))
    made = {}
    for transposed in (True, False):
        net = nets.conv_transpose(4, 3, bias=False, transpose_kernel=transposed)
        named = "w" if transposed else ()
        weight = nets.weight_norm(net, transposed=named)
        params = weight.init(KEY, x)
        np.testing.assert_allclose(weight.apply(params, x), net.apply(net.init(KEY, x), x), rtol=1e-5, atol=1e-6)
        spectral = nets.spectral_norm(net, num_steps=200, transposed=named)
        y, _ = spectral.apply(*spectral.init(KEY, x), x, train=True)
        made[transposed] = params["g"]["w"].ravel(), y
    for ours, theirs in zip(*made.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
