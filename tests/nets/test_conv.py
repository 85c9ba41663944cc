"""Convolutions: equal to Flax's and Haiku's, causal, equivariant, and adjoint to their transposes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from renga import nets

from .kit import floats, values

KEY = jax.random.key(0)


def made(net: nets.Net, x: jax.Array) -> Any:
    """Params of the network's own structure, none of them zero or one."""
    return jax.tree.map(lambda leaf: 0.5 + 0.5 * leaf, values(jax.eval_shape(net.init, KEY, x)))


def flax(params: dict) -> dict:
    return {"params": {{"w": "kernel", "b": "bias"}[name]: leaf for name, leaf in params.items()}}


def assert_equal(peer: Callable[[Any, jax.Array], Any], net: nets.Net, params: Any, x: jax.Array) -> None:
    """Outputs to 1e-5, and gradients of a weighted sum of outputs to 1e-4; `peer(params, x)` is another library's."""
    y = net.apply(params, x)
    (weights,) = values(floats(*y.shape))

    def grads(apply: Callable) -> tuple[jax.Array, Any]:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = apply(params, x)
            return jnp.sum(found * weights), found

        found, grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
        return found[1], grads

    (ours, our_grads), (theirs, their_grads) = grads(net.apply), grads(peer)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), our_grads, their_grads)


PADDED = {
    "causal": ((3,), {"padding": "causal"}, (2, 7, 3)),
    "causal, strided and dilated": ((4,), {"padding": "causal", "stride": 2, "dilation": 3}, (2, 11, 3)),
    "circular, one axis": ((4,), {"padding": "circular", "groups": 2}, (2, 7, 4)),
    "circular": ((3, 4), {"padding": "circular", "stride": (2, 1), "dilation": (1, 2)}, (2, 6, 7, 2)),
    "circular, three axes": ((2, 3, 2), {"padding": "circular", "stride": 2}, (2, 4, 4, 3, 2)),
    "reflect, one axis": ((5,), {"padding": "reflect", "dilation": 2}, (2, 7, 3)),
    "reflect": ((3, 2), {"padding": "reflect", "stride": 2}, (2, 6, 5, 2)),
    "reflect, three axes": ((3, 3, 2), {"padding": "reflect"}, (2, 4, 4, 3, 2)),
}


@pytest.mark.parametrize("case", PADDED)
def test_paddings_by_the_input_itself_and_causal_ones_equal_flax(case: str):
    kernel, options, shape = PADDED[case]
    net, (x,) = nets.conv(4, kernel, **options), values(floats(*shape))
    module = nn.Conv(
        4,
        kernel,
        strides=options.get("stride", 1),
        kernel_dilation=options.get("dilation", 1),
        padding=options["padding"].upper(),
        feature_group_count=options.get("groups", 1),
    )
    assert_equal(lambda params, x: module.apply(flax(params), x), net, made(net, x), x)


def test_causal_conv_equals_haiku_with_causal_padding():
    net, (x,) = nets.conv(4, (3,), padding="causal", dilation=2), values(floats(2, 9, 3))
    peer = hk.transform(lambda x: hk.Conv1D(4, 3, rate=2, padding=hk.pad.causal, name="peer")(x))
    assert_equal(lambda params, x: peer.apply({"peer": params}, None, x), net, made(net, x), x)


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_padding_by_the_input_itself_equals_a_numpy_loop(padding: Any):
    net, (x,) = nets.conv(1, (4,), padding=padding, dilation=2, bias=False), values(floats(5, 1))
    w = made(net, x)["w"]
    mode: Any = {"circular": "wrap", "reflect": "reflect"}[padding]
    wide = np.pad(np.asarray(x[:, 0]), (3, 3), mode)
    expected = [sum(w[i, 0, 0] * wide[at + 2 * i] for i in range(4)) for at in range(5)]
    np.testing.assert_allclose(net.apply({"w": w}, x)[:, 0], expected, rtol=1e-5)


def test_circular_conv_wraps_an_input_shorter_than_the_window_as_often_as_needed():
    net, (x,) = nets.conv(2, (9,), padding="circular"), values(floats(2, 3))
    params = made(net, x)
    repeated = jnp.tile(x, (5, 1))
    np.testing.assert_allclose(net.apply(params, x), net.apply(params, repeated)[6:8], rtol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        nets.conv(2, (3,), padding="causal", dilation=2),
        nets.conv(2, (4,), padding="causal"),
        nets.depthwise_conv((3,), padding="causal", dilation=3),
        nets.separable_conv(2, (2,), padding="causal"),
        nets.conv_local(2, (3,), padding="causal"),
    ],
)
def test_causal_convs_see_no_later_input(net: nets.Net):
    (x,) = values(floats(9, 2))
    jacobian = jax.jacobian(lambda x: net.apply(made(net, x), x))(x)
    seen = np.abs(jacobian).sum((1, 3))
    assert not np.triu(seen, 1).any()
    assert np.diag(seen).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_circular_conv_commutes_with_rolls(stride: int):
    net, (x,) = nets.conv(3, (3, 4), padding="circular", stride=stride, dilation=(2, 1)), values(floats(6, 8, 2))
    apply = jax.jit(lambda x: net.apply(made(net, x), x))
    rolled = apply(jnp.roll(x, (2 * stride, -stride), (0, 1)))
    np.testing.assert_allclose(rolled, jnp.roll(apply(x), (2, -1), (0, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "net", [nets.conv(3, 3), nets.depthwise_conv(3), nets.separable_conv(3, 3), nets.conv_transpose(3, 3)]
)
def test_convs_commute_with_shifts_away_from_the_edges(net: nets.Net):
    x = jnp.zeros((10, 10, 2)).at[3:6, 3:6].set(values(floats(3, 3, 2))[0])
    params = jax.tree.map_with_path(lambda path, leaf: leaf * (path[-1].key != "b"), made(net, x))
    apply = jax.jit(net.apply)
    shifted = apply(params, jnp.roll(x, (2, 1), (0, 1)))
    np.testing.assert_allclose(shifted, jnp.roll(apply(params, x), (2, 1), (0, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("num", "options"),
    [(1, {"stride": 2}), (2, {}), (2, {"stride": 2, "padding": "valid"}), (3, {}), (2, {"bias": False})],
)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_conv_equals_haiku_and_grouped_flax(num: int, options: dict, multiplier: int):
    kernel = (3, 2, 3)[:num]
    net, (x,) = nets.depthwise_conv(kernel, multiplier=multiplier, **options), values(floats(2, *(6, 5, 4)[:num], 2))
    stride, padding = options.get("stride", 1), options.get("padding", "same").upper()
    bias, params = options.get("bias", True), made(net, x)
    haiku: Any = (hk.DepthwiseConv1D, hk.DepthwiseConv2D, hk.DepthwiseConv3D)[num - 1]
    options = {"stride": stride, "padding": padding, "with_bias": bias}
    peer = hk.transform(lambda x: haiku(multiplier, kernel, **options, name="peer")(x))
    assert_equal(lambda params, x: peer.apply({"peer": params}, None, x), net, params, x)
    module = nn.Conv(2 * multiplier, kernel, stride, padding, feature_group_count=2, use_bias=bias)
    assert_equal(lambda params, x: module.apply(flax(params), x), net, params, x)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "multiplier": 3}, {"dilation": 2, "padding": "valid"}])
def test_separable_conv_equals_flax_convs_in_a_row(options: dict):
    net, (x,) = nets.separable_conv(4, 3, **options), values(floats(2, 6, 7, 2))
    channels = 2 * options.get("multiplier", 1)
    modules = nn.Sequential(
        [
            nn.Conv(
                channels,
                (3, 3),
                options.get("stride", 1),
                options.get("padding", "same").upper(),
                kernel_dilation=options.get("dilation", 1),
                feature_group_count=2,
                use_bias=False,
            ),
            nn.Conv(4, (1, 1)),
        ]
    )

    def peer(params: dict, x: jax.Array) -> Any:
        theirs = {"layers_0": flax(params["depthwise"])["params"], "layers_1": flax(params["pointwise"])["params"]}
        return modules.apply({"params": theirs}, x)

    assert_equal(peer, net, made(net, x), x)


def test_two_depthwise_convs_of_one_axis_each_equal_the_separable_conv_of_haiku():
    net = nets.serial(first=nets.depthwise_conv((3, 1), multiplier=2, bias=False), then=nets.depthwise_conv((1, 3)))
    (x,) = values(floats(2, 6, 5, 3))
    separable: Any = vars(hk)["SeparableDepthwiseConv2D"]
    peer = hk.transform(lambda x: separable(2, (3, 3), name="peer")(x))
    names = sorted(jax.eval_shape(peer.init, KEY, x))

    def theirs(params: dict, x: jax.Array) -> jax.Array:
        return peer.apply(dict(zip(names, (params["first"], params["then"]), strict=True)), None, x)

    assert_equal(theirs, net, made(net, x), x)


TRANSPOSED = {
    "one axis": ((3,), {}, (2, 5, 3)),
    "two axes": ((3, 4), {"stride": 2}, (2, 4, 5, 2)),
    "three axes": ((2, 3, 2), {"stride": (1, 2, 3)}, (2, 3, 2, 3, 2)),
    "stride beyond the window": ((2, 3), {"stride": (3, 5)}, (2, 3, 2, 2)),
    "valid": ((3, 4), {"stride": (2, 3), "padding": "valid"}, (2, 4, 3, 2)),
    "valid, stride beyond the window": ((2,), {"stride": 5, "padding": "valid"}, (2, 3, 2)),
    "dilated": ((3, 2), {"stride": 2, "dilation": (2, 3)}, (2, 4, 3, 2)),
    "dilated valid": ((3,), {"stride": 4, "dilation": 3, "padding": "valid"}, (2, 4, 2)),
    "without bias": ((3, 3), {"bias": False}, (2, 4, 3, 2)),
}


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose_equals_flax(case: str, transpose_kernel: bool):
    kernel, options, shape = TRANSPOSED[case]
    net = nets.conv_transpose(4, kernel, transpose_kernel=transpose_kernel, **options)
    (x,) = values(floats(*shape))
    module = nn.ConvTranspose(
        4,
        kernel,
        options.get("stride", 1),
        options.get("padding", "same").upper(),
        kernel_dilation=options.get("dilation", 1),
        use_bias=options.get("bias", True),
        transpose_kernel=transpose_kernel,
    )
    assert_equal(lambda params, x: module.apply(flax(params), x), net, made(net, x), x)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("num", [1, 2, 3])
def test_conv_transpose_in_jax_layout_with_channels_swapped_equals_haiku(num: int, padding: Any):
    kernel = (3, 2, 4)[:num]
    net = nets.conv_transpose(4, kernel, stride=2, padding=padding, transpose_kernel=False)
    (x,) = values(floats(2, *(3, 4, 2)[:num], 2))
    haiku: Any = (hk.Conv1DTranspose, hk.Conv2DTranspose, hk.Conv3DTranspose)[num - 1]
    peer = hk.transform(lambda x: haiku(4, kernel, 2, padding=padding.upper(), name="peer")(x))
    swapped = lambda params: {**params, "w": params["w"].swapaxes(-1, -2)}  # noqa: E731
    assert_equal(lambda params, x: peer.apply({"peer": swapped(params)}, None, x), net, made(net, x), x)


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_padding_in_pairs_cuts_what_lax_conv_transpose_is_told_to_pad(transpose_kernel: bool):
    net = nets.conv_transpose(
        4, (3, 4), stride=2, padding=((1, 0), (4, 2)), transpose_kernel=transpose_kernel, bias=False
    )
    (x,) = values(floats(2, 4, 5, 2))

    def peer(params: dict, x: jax.Array) -> jax.Array:
        pads = ((2 - 1, 2 - 0), (3 - 4, 3 - 2))
        return lax.conv_transpose(x, params["w"], (2, 2), pads, transpose_kernel=transpose_kernel)

    assert_equal(peer, net, made(net, x), x)


ADJOINT = [
    ((3,), {"stride": 2, "padding": 1}, (7,)),
    ((4,), {"stride": 3, "padding": ((2, 1),), "dilation": 2}, (16,)),
    ((3, 2), {"stride": (2, 1), "padding": 0, "groups": 2}, (5, 4)),
    ((3, 5), {"stride": 2}, (6, 4)),
    ((2, 3), {"stride": 3}, (6, 3)),
    ((3, 2), {"stride": (1, 3), "padding": "valid", "dilation": (2, 1)}, (6, 6)),
    ((2, 3, 2), {"stride": 2, "padding": 1, "groups": 2}, (4, 3, 4)),
]


@pytest.mark.parametrize(("kernel", "options", "sizes"), ADJOINT)
def test_conv_transpose_is_the_adjoint_of_the_conv_with_the_same_weights(kernel: tuple, options: dict, sizes: tuple):
    conv = nets.conv(6, kernel, bias=False, **options)
    transpose = nets.conv_transpose(4, kernel, bias=False, **options)
    (x,) = values(floats(2, *sizes, 4))
    params = made(conv, x)
    y, pull = jax.vjp(lambda x: conv.apply(params, x), x)
    (cotangent,) = values(floats(*y.shape))
    assert jax.eval_shape(transpose.init, KEY, y)["w"].shape == params["w"].shape
    np.testing.assert_allclose(transpose.apply(params, cotangent), pull(cotangent)[0], rtol=1e-5, atol=1e-5)
    back = jax.vjp(lambda y: transpose.apply(params, y), cotangent)[1](x)[0]
    np.testing.assert_allclose(back, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_output_padding_picks_the_size_that_the_conv_was_given(size: int):
    conv = nets.conv(3, (3,), stride=2, padding=1, bias=False)
    transpose = nets.conv_transpose(2, (3,), stride=2, padding=1, output_padding=size - 7, bias=False)
    (x,) = values(floats(size, 2))
    params = made(conv, x)
    y, pull = jax.vjp(lambda x: conv.apply(params, x), x)
    assert y.shape == (4, 3)
    np.testing.assert_allclose(transpose.apply(params, y), pull(y)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "fan_in", "channels"),
    [
        (nets.conv(512, 3, groups=4), 9 * 8, 32),
        (nets.depthwise_conv(3, multiplier=64), 9, 32),
        (nets.conv_transpose(512, 3, groups=4), 9 * 8, 32),
        (nets.conv_transpose(512, 3, transpose_kernel=False), 9 * 32, 32),
        (nets.conv_local(128, 3), 9 * 16, 16),
    ],
)
def test_initial_values_spread_by_the_number_of_terms_in_a_sum(net: nets.Net, fan_in: int, channels: int):
    w = net.init(KEY, jax.ShapeDtypeStruct((4, 4, channels), jnp.float32))["w"]
    np.testing.assert_allclose(w.std(), fan_in**-0.5, rtol=0.03)


LOCAL = {
    "one axis": ((3,), {}, (2, 6, 3)),
    "two axes": ((3, 2), {"padding": "valid"}, (2, 5, 4, 2)),
    "strided": ((3, 3), {"stride": (2, 1)}, (2, 5, 4, 2)),
    "dilated": ((2, 3), {"dilation": 2, "padding": "circular"}, (2, 5, 6, 2)),
    "padded": ((3,), {"padding": ((2, 1),), "bias": False}, (2, 5, 2)),
}


@pytest.mark.parametrize("case", LOCAL)
def test_conv_local_equals_flax(case: str):
    kernel, options, shape = LOCAL[case]
    net, (x,) = nets.conv_local(4, kernel, **options), values(floats(*shape))
    padding = options.get("padding", "same")
    module = nn.ConvLocal(
        4,
        kernel,
        options.get("stride", 1),
        padding.upper() if isinstance(padding, str) else padding,
        kernel_dilation=options.get("dilation", 1),
        use_bias=options.get("bias", True),
    )
    num = len(kernel)

    def peer(params: dict, x: jax.Array) -> Any:
        w = jnp.moveaxis(params["w"], -2, num)
        return module.apply(flax({**params, "w": w.reshape(*w.shape[:num], -1, 4)}), x)

    assert_equal(peer, net, made(net, x), x)


@pytest.mark.parametrize("padding", ["same", "valid", "circular", "reflect", 1])
def test_conv_local_with_the_same_weights_everywhere_is_conv(padding: Any):
    options = {"padding": padding, "stride": 2}
    conv, (x,) = nets.conv(3, 3, **options), values(floats(2, 6, 5, 2))
    local, params = nets.conv_local(3, 3, **options), made(conv, x)
    shared = jax.tree.map(
        lambda leaf, shape: jnp.broadcast_to(leaf, shape.shape), params, jax.eval_shape(local.init, KEY, x)
    )
    np.testing.assert_allclose(local.apply(shared, x), conv.apply(params, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.conv(1, (4096,), padding="circular", bias=False), (4096, 1)),
        (nets.depthwise_conv((4096,), padding="causal", bias=False), (4096, 1)),
        (nets.conv_local(1, (1,), bias=False), (1, 4096)),
        (nets.conv_transpose(1, (1,), bias=False), (1, 4096)),
    ],
)
def test_convs_in_half_precision_take_sums_in_single(net: nets.Net, shape: tuple[int, int]):
    x = jnp.ones(shape, jnp.bfloat16)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(net.init, KEY, x))
    y = net.apply(params, x)
    assert y.dtype == jnp.bfloat16
    assert y[-1].item() == 4096
