"""Norms equal Haiku's and Flax's, and are exact where those are not."""

import functools
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, outputs, values, variables
from .test_parity import haiku, init

KEY = jax.random.key(0)
FAR = {
    "layer_norm": (nets.layer_norm(), (-1,), (16, 512)),
    "layer_norm of two axes": (nets.layer_norm(num_axes=2), (-2, -1), (4, 16, 32)),
    "group_norm": (nets.group_norm(4), None, (2, 16, 16, 8)),
    "instance_norm": (nets.instance_norm(), (-3, -2), (2, 32, 32, 4)),
    "batch_norm": (nets.batch_norm(), (0, 1, 2), (8, 16, 16, 4)),
}


def flax(params: dict) -> dict:
    names = {"scale": "scale", "offset": "bias"}
    return {"params": {names[name]: leaf for name, leaf in params.items()}}


def assert_parity(net: nets.Net, peers: list[Any], x: jax.Array) -> None:
    """Outputs to 1e-5, gradients of a weighted sum of outputs to 1e-4; a peer is `(params, x) -> y`."""
    params = init(net, x)
    weights = jnp.flip(x)

    @functools.partial(jax.jit, static_argnums=0)
    def found(apply: Any, params: dict, x: jax.Array) -> Any:
        def loss(params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = apply(params, x)
            return (y * weights).sum(), y

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    grads, y = found(net.apply, params, x)
    for peer in peers:
        their_grads, their_y = found(peer, params, x)
        np.testing.assert_allclose(y, their_y, rtol=1e-5, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, their_grads)


@pytest.mark.parametrize("scale", [True, False])
def test_rms_norm_equals_haiku_and_flax(scale: bool):
    (x,) = values(floats(4, 3, 7))
    peers = [lambda p, x: nn.RMSNorm(epsilon=1e-3, use_scale=scale).apply(flax(p), x)]
    peers += [lambda p, x: haiku(lambda: hk.RMSNorm(-1, 1e-3, create_scale=scale, name="peer"), p, x)]
    assert_parity(nets.rms_norm(eps=1e-3, scale=scale), peers, x)


def test_layer_norm_of_two_axes_equals_flax():
    (x,) = values(floats(4, 3, 7))
    peer = nn.LayerNorm(epsilon=1e-5, reduction_axes=(-2, -1), feature_axes=(-2, -1))
    assert_parity(nets.layer_norm(num_axes=2), [lambda p, x: peer.apply(flax(p), x)], x)


@pytest.mark.parametrize(
    ("num_groups", "num_axes", "shape"),
    [(3, 1, (2, 5, 6)), (2, 2, (2, 4, 3, 6)), (6, 2, (2, 4, 3, 6)), (1, 3, (2, 2, 3, 2, 6))],
)
def test_group_norm_equals_haiku_and_flax(num_groups: int, num_axes: int, shape: tuple[int, ...]):
    (x,) = values(floats(*shape))
    peers = [lambda p, x: haiku(lambda: hk.GroupNorm(num_groups, eps=1e-5, name="peer"), p, x)]
    peers += [lambda p, x: nn.GroupNorm(num_groups, epsilon=1e-5).apply(flax(p), x)]
    assert_parity(nets.group_norm(num_groups, num_axes=num_axes), peers, x)


@pytest.mark.parametrize(("num_axes", "shape"), [(1, (2, 5, 3)), (2, (2, 4, 3, 3))])
def test_instance_norm_equals_haiku_and_flax(num_axes: int, shape: tuple[int, ...]):
    (x,) = values(floats(*shape))
    peers = [lambda p, x: haiku(lambda: hk.InstanceNorm(True, True, eps=1e-5, name="peer"), p, x)]
    peers += [lambda p, x: nn.InstanceNorm(epsilon=1e-5).apply(flax(p), x)]
    assert_parity(nets.instance_norm(num_axes=num_axes), peers, x)


def test_group_norms_of_all_channels_and_of_one_are_layer_and_instance_norms():
    (x,) = values(floats(2, 4, 3, 6))
    whole, single = nets.group_norm(1), nets.group_norm(6)
    params = init(whole, x)
    plain = nets.layer_norm(num_axes=3, scale=False, offset=False)(x)
    np.testing.assert_allclose(whole.apply(params, x), plain * params["scale"] + params["offset"], atol=1e-5)
    np.testing.assert_allclose(single.apply(params, x), nets.instance_norm().apply(params, x), atol=1e-6)


@pytest.mark.parametrize("case", FAR)
def test_norms_are_exact_far_from_zero(case: str):
    net, axes, shape = FAR[case]
    x = 1e4 + jax.random.normal(KEY, shape)
    y = jax.jit(lambda made, x: outputs(net, made, x, train=True))(variables(net, KEY, x), x)
    exact = np.asarray(x, np.float64)
    exact = exact.reshape(2, 16, 16, 4, 2) if axes is None else exact
    over = (1, 2, 4) if axes is None else axes
    exact = (exact - exact.mean(over, keepdims=True)) / np.sqrt(exact.var(over, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, exact.reshape(shape), atol=1e-4)


def test_rms_norm_is_exact_far_from_zero():
    x = 1e4 + jax.random.normal(KEY, (16, 512))
    exact = np.asarray(x, np.float64) / np.sqrt(np.square(np.asarray(x, np.float64)).mean(-1, keepdims=True))
    np.testing.assert_allclose(nets.rms_norm(scale=False)(x), exact, rtol=1e-6)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e3])
def test_layer_norm_is_exact_where_one_value_lies_far_from_the_others(spread: float):
    x = (1e4 + spread * jax.random.normal(KEY, (8, 512))).at[:, 0].add(1e3 * spread)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(nets.layer_norm(scale=False, offset=False)(x), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("net", [nets.rms_norm(), nets.group_norm(2, num_axes=1), nets.instance_norm(num_axes=1)])
def test_norms_in_half_precision_take_sums_in_single(net: nets.Net, dtype: Any):
    x = (40 + 20 * jax.random.normal(KEY, (2, 2048, 4))).astype(dtype)
    params = net.init(KEY, x)
    y = net.apply(params, x)
    assert y.dtype == dtype
    wide = net.apply(params, x.astype(jnp.float32))
    np.testing.assert_array_equal(y, wide.astype(dtype))
    assert jnp.isfinite(y).all()


@pytest.mark.parametrize(
    "net", [nets.rms_norm(), nets.group_norm(1), nets.instance_norm(), nets.layer_norm(num_axes=2)]
)
def test_norms_of_a_constant_have_finite_outputs_and_derivatives(net: nets.Net):
    for constant in (0.0, 7.0, 1e10):
        x = jnp.full((2, 3, 4), constant)
        params = net.init(KEY, x)
        assert jnp.isfinite(net.apply(params, x)).all()
        assert jnp.isfinite(jax.jit(jax.jacrev(net.apply, 1))(params, x)).all()


def test_second_derivatives_at_a_constant_are_those_of_the_formula():
    def formula(x: jax.Array) -> jax.Array:
        centred = x - x.mean()
        return centred / jnp.sqrt(jnp.square(centred).mean() + 1e-5)

    net, x = nets.layer_norm(scale=False, offset=False), jnp.full(3, 2.0)
    weights = jnp.array([1.0, -2.0, 0.5])
    ours, theirs = (jax.jit(jax.hessian(lambda x, f=f: jnp.sum(weights * f(x) ** 2)))(x) for f in (net, formula))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize(
    "net", [nets.layer_norm(), nets.layer_norm(num_axes=2), nets.group_norm(2), nets.instance_norm()]
)
def test_norms_do_not_see_the_scale_and_the_shift_of_their_input(net: nets.Net):
    (x,) = values(floats(2, 4, 5, 6))
    params = init(net, x)
    np.testing.assert_allclose(net.apply(params, 64 * x + 5), net.apply(params, 64 * x), atol=1e-3)
    np.testing.assert_allclose(net.apply(params, 64 * x), net.apply(params, 128 * x), atol=1e-3)


@pytest.mark.parametrize("net", [nets.group_norm(2), nets.instance_norm()])
def test_norms_over_space_move_with_their_input(net: nets.Net):
    (x,) = values(floats(2, 4, 5, 6))
    params = init(net, x)
    np.testing.assert_allclose(net.apply(params, jnp.roll(x, 2, -2)), jnp.roll(net.apply(params, x), 2, -2), atol=1e-5)


def test_batch_norm_with_a_mask_equals_that_of_what_counts():
    (x,), mask = values(floats(3, 4, 5)), jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    net, weights = nets.batch_norm(decay_rate=0.5), jnp.flip(x)
    params, state = init(net, x)[0], net.init(KEY, x)[1]
    counted = np.nonzero(mask)

    def packed(params: dict, x: jax.Array) -> tuple:
        y, after = net.apply(params, state, x[counted], train=True)
        return (y * weights[counted]).sum(), (y, after)

    def masked(params: dict, x: jax.Array) -> tuple:
        y, after = net.apply(params, state, x, mask=mask, train=True)
        return jnp.where(mask[..., None], y * weights, 0).sum(), (y[counted], after)

    def check(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    expected = jax.jit(jax.value_and_grad(packed, (0, 1), has_aux=True))(params, x)
    graded = jax.jit(jax.value_and_grad(masked, (0, 1), has_aux=True))
    jax.tree.map(check, graded(params, x), expected)
    (_, found), grads = graded(params, jnp.where(mask[..., None], x, jnp.nan))
    jax.tree.map(check, (found, grads), (expected[0][1], expected[1]))


def test_batch_norm_with_a_mask_equals_flax():
    (x,), mask = values(floats(6, 4, 3)), jnp.arange(6)[:, None] < 4
    net = nets.batch_norm()
    params, state = init(net, x)
    peer = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    theirs, after = peer.apply({**flax(params), "batch_stats": state}, x, mask=mask[..., None], mutable=["batch_stats"])
    y, state = net.apply(params, state, x, mask=mask, train=True)
    np.testing.assert_allclose(y[:4], theirs[:4], rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, dict(after["batch_stats"]))


def test_batch_norm_with_a_mask_over_a_mapped_axis_equals_that_over_the_batch():
    (x,), mask = values(floats(3, 4, 5)), jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    whole, mapped = nets.batch_norm(), nets.batch_norm(axis_name="shards")
    params, state = whole.init(KEY, x)
    apply = jax.vmap(
        lambda x, mask: mapped.apply(params, state, x, mask=mask, train=True), out_axes=(0, None), axis_name="shards"
    )
    expected = whole.apply(params, state, x, mask=mask, train=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), jax.jit(apply)(x, mask), expected)


@pytest.mark.parametrize("axis_name", [None, "shards"])
def test_a_batch_in_which_nothing_counts_leaves_the_statistics_of_batch_norm(axis_name: str | None):
    net, (x,) = nets.batch_norm(axis_name=axis_name), values(floats(2, 4, 3))
    params, state = net.init(KEY, x)
    state = {"mean": state["mean"] + 2, "var": state["var"] + 2}

    def after(x: jax.Array, mask: jax.Array | None) -> Any:
        y, new = net.apply(params, state, x, mask=mask, train=True)
        assert axis_name is not None or np.isfinite(y).all()
        return new

    apply = jax.vmap(after, axis_name=axis_name, out_axes=None) if axis_name else after
    for given in ((x, jnp.zeros((2, 4), bool)), (x[:, :0], jnp.zeros((2, 0), bool)), (x[:, :0], None)):
        jax.tree.map(np.testing.assert_array_equal, apply(*given), state)


def test_integers_are_normalised_in_the_dtype_of_the_parameters():
    with jax.enable_x64(True):
        x = jnp.arange(2 * 4 * 4 * 6).reshape(2, 4, 4, 6)
        for net in (nets.layer_norm(), nets.rms_norm(), nets.group_norm(2), nets.instance_norm(), nets.batch_norm()):
            made = net.init(KEY, x)
            made = made if isinstance(net, nets.StatefulNet) else (made,)
            assert outputs(net, made, x, train=True).dtype == jnp.float32
            assert outputs(net, made, x, train=False).dtype == jnp.float32
