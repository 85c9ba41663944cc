"""Layers equal Haiku's and Flax's for the same parameters."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, integers, values

CONVS = {
    "one axis": ((4, 3), {}, (2, 7, 3)),
    "two axes": ((3, 3), {}, (2, 6, 5, 2)),
    "three axes": ((2, 3, 2), {}, (2, 4, 4, 3, 2)),
    "valid": ((3, 2), {"padding": "valid"}, (2, 6, 5, 2)),
    "strided": ((3, 3), {"stride": (2, 1)}, (2, 6, 5, 2)),
    "strided valid": ((3,), {"stride": 3, "padding": "valid"}, (2, 11, 2)),
    "dilated": ((3, 3), {"dilation": 2}, (2, 7, 6, 2)),
    "grouped": ((3, 3), {"groups": 2}, (2, 6, 5, 4)),
    "padded": ((3, 3), {"padding": ((2, 0), (0, 1))}, (2, 6, 5, 2)),
    "without bias": ((3, 3), {"bias": False}, (2, 6, 5, 2)),
}
POOLS = {
    "one axis": ((2,), {}, (2, 6, 3)),
    "two axes": ((2, 2), {}, (2, 6, 4, 3)),
    "three axes": ((2, 2, 2), {}, (2, 4, 4, 4, 2)),
    "valid with a rest": ((2, 3), {}, (2, 5, 7, 3)),
    "overlapping": ((3, 3), {"stride": 2}, (2, 7, 7, 3)),
    "same": ((3, 3), {"stride": (1, 2), "padding": "same"}, (2, 5, 6, 3)),
}


def init(net: nets.Net, x: jax.Array) -> Any:
    """Params of the network's own structure, none of them zero or one."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: 0.5 + 0.5 * leaf, values(shapes))


def haiku(make: Callable[[], Any], params: Any, x: jax.Array) -> jax.Array:
    return hk.transform(lambda x: make()(x)).apply({"peer": params} if params else {}, None, x)


def assert_equal(ours: Any, theirs: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_haiku_and_flax(bias: bool):
    net, (x,) = nets.linear(3, bias=bias), values(floats(4, 2, 5))
    params = init(net, x)
    y = net.apply(params, x)
    assert_equal(y, haiku(lambda: hk.Linear(3, with_bias=bias, name="peer"), params, x))
    assert_equal(y, nn.Dense(3, use_bias=bias).apply({"params": _flax(params)}, x))


@pytest.mark.parametrize("case", CONVS)
def test_conv_equals_haiku_and_flax(case: str):
    kernel, options, shape = CONVS[case]
    net, (x,) = nets.conv(4, kernel, **options), values(floats(*shape))
    params = init(net, x)
    y = net.apply(params, x)
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    groups, bias, padding = options.get("groups", 1), options.get("bias", True), options.get("padding", "same")
    padding = padding.upper() if isinstance(padding, str) else padding

    def peer() -> hk.ConvND:
        return hk.ConvND(
            len(kernel),
            4,
            kernel,
            stride=stride,
            rate=dilation,
            padding=padding,
            with_bias=bias,
            feature_group_count=groups,
            name="peer",
        )

    assert_equal(y, haiku(peer, params, x))
    module = nn.Conv(
        4,
        kernel,
        strides=stride,
        kernel_dilation=dilation,
        padding=padding,
        feature_group_count=groups,
        use_bias=bias,
    )
    assert_equal(y, module.apply({"params": _flax(params)}, x))


@pytest.mark.parametrize("case", POOLS)
def test_pools_equal_haiku_and_flax(case: str):
    window, options, shape = POOLS[case]
    (x,) = values(floats(*shape))
    padding, stride = options.get("padding", "valid").upper(), options.get("stride", window)
    strides = (stride,) * len(window) if isinstance(stride, int) else stride

    y = nets.max_pool(window, **options)(x)
    assert_equal(y, hk.max_pool(x, (*window, 1), (*strides, 1), padding))
    assert_equal(y, nn.max_pool(x, window, strides, padding))
    y = nets.avg_pool(window, **options)(x)
    assert_equal(y, hk.avg_pool(x, (*window, 1), (*strides, 1), padding))
    assert_equal(y, nn.avg_pool(x, window, strides, padding, count_include_pad=False))


@pytest.mark.parametrize(("scale", "offset"), [(True, True), (True, False), (False, True), (False, False)])
def test_layer_norm_equals_haiku_and_flax(scale: bool, offset: bool):
    net, (x,) = nets.layer_norm(scale=scale, offset=offset), values(floats(4, 3, 7))
    params = init(net, x)
    y = net.apply(params, x)
    assert_equal(y, haiku(lambda: hk.LayerNorm(-1, scale, offset, name="peer"), params, x))
    module = nn.LayerNorm(epsilon=1e-5, use_scale=scale, use_bias=offset)
    assert_equal(y, module.apply({"params": _flax(params)}, x))


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 4, 2)])
def test_batch_norm_equals_haiku_and_flax_and_keeps_statistics_as_flax(shape: tuple[int, ...]):
    net, (x,) = nets.batch_norm(decay_rate=0.7), values(floats(*shape))
    params, state = net.init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: 0.5 + 0.5 * leaf, values(params))
    module = nn.BatchNorm(momentum=0.7, epsilon=1e-5)
    theirs = {"params": _flax(params), "batch_stats": dict(state)}
    peer = hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.7, name="peer")(x, is_training=True))
    in_haiku_shape = jax.tree.map(lambda leaf: leaf.reshape((1,) * (x.ndim - 1) + (-1,)), params)
    in_haiku, _ = peer.apply({"peer": in_haiku_shape}, peer.init(None, x)[1], None, x)
    assert_equal(net.apply(params, state, x, train=True)[0], in_haiku)
    for step in range(3):
        y, state = net.apply(params, state, x + step, train=True)
        expected, moved = module.apply(theirs, x + step, use_running_average=False, mutable=["batch_stats"])
        theirs = {**theirs, **moved}
        assert_equal(y, expected)
        assert_equal(state, theirs["batch_stats"])
    y, kept = net.apply(params, state, x)
    assert_equal(y, module.apply(theirs, x, use_running_average=True))
    assert kept is state


def test_embed_equals_haiku_and_flax():
    net, (ids,) = nets.embed(5, 4), values(integers(3, 7))
    params = init(net, ids)
    y = net.apply(params, ids)
    assert_equal(y, haiku(lambda: hk.Embed(5, 4, name="peer"), {"embeddings": params["w"]}, ids))
    assert_equal(y, nn.Embed(5, 4).apply({"params": {"embedding": params["w"]}}, ids))


@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.gelu])
def test_mlp_equals_haiku_and_flax(activation: Callable[[jax.Array], jax.Array]):
    net, (x,) = nets.mlp(6, 5, 2, activation=activation), values(floats(4, 3))
    params = init(net, x)
    y = net.apply(params, x)
    peer = hk.transform(lambda x: hk.nets.MLP([6, 5, 2], activation=activation, name="peer")(x))
    assert_equal(y, peer.apply({f"peer/~/linear_{i}": layer for i, layer in enumerate(params["layers"])}, None, x))
    layers = [nn.Dense(6), activation, nn.Dense(5), activation, nn.Dense(2)]
    theirs = {f"layers_{2 * i}": _flax(layer) for i, layer in enumerate(params["layers"])}
    assert_equal(y, nn.Sequential(layers).apply({"params": theirs}, x))


def test_dropout_keeps_the_share_and_the_scale_that_haiku_and_flax_keep():
    x = jnp.full((200, 500), 2.0)
    ours = nets.dropout(0.3)(x, key=jax.random.key(0), train=True)
    in_flax = nn.Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": jax.random.key(1)})
    for y in map(np.asarray, (ours, in_flax, hk.dropout(jax.random.key(2), 0.3, x))):
        np.testing.assert_allclose(np.unique(y), [0, 2 / 0.7], rtol=1e-6)
        # The share of 100,000 draws stands within five standard deviations of 0.7.
        assert abs(np.mean(y != 0) - 0.7) < 5 * np.sqrt(0.3 * 0.7 / y.size)


def test_initial_values_spread_as_those_of_flax():
    x = jnp.ones((1, 64))
    ours = nets.linear(512).init(jax.random.key(0), x)["w"]
    in_flax = jnp.asarray(nn.Dense(512).init(jax.random.key(1), x)["params"]["kernel"])
    np.testing.assert_allclose([ours.std(), in_flax.std()], 1 / 8, rtol=0.02)


def _flax(params: dict) -> dict:
    names = {"w": "kernel", "b": "bias", "scale": "scale", "offset": "bias"}
    return {names[name]: leaf for name, leaf in params.items()}
