"""Pools: exact to the last bit against XLA's windows, derivatives of every order too, and by closed forms."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from renga import nets

from .kit import floats, values

NAN, INF = np.nan, np.inf
TILED = {
    "one axis": ((3,), (2, 9, 3)),
    "two axes": ((2, 2), (2, 6, 4, 3)),
    "a rest": ((2, 3), (2, 5, 8, 3)),
    "three axes": ((1, 2, 3), (2, 2, 5, 6, 2)),
    "sixteen": ((4, 4), (1, 8, 5, 2)),
}


def by_windows(window: tuple[int, ...], x: jax.Array, reduce: Callable = lax.max) -> jax.Array:
    """XLA's own reduction over windows."""
    sizes = (1, *window, 1)
    start = np.array(-INF if reduce is lax.max else INF, x.dtype)
    return lax.reduce_window(x, start, reduce, sizes, sizes, "VALID")


def pulled_back(pool: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Outputs, and the gradient of a weighted sum of them."""
    y, pull = jax.vjp(pool, x)
    return y, pull(values(floats(*y.shape))[0].astype(y.dtype))[0]


def special(*shape: int) -> jax.Array:
    """Few values, so that many are equal; infinities and NaNs among them."""
    some = np.array([1, -INF, 0, 2, 1, NAN, -1, 2, INF, 0, 2, -INF, 1], np.float32)
    return jnp.asarray(some[np.arange(np.prod(shape)) * 7 % 13].reshape(shape))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("case", TILED)
def test_max_and_min_over_tiles_and_their_gradients_equal_those_over_windows_to_the_bit(case: str, dtype: str):
    window, shape = TILED[case]
    with jax.enable_x64(dtype == "float64"):
        for x in (values(floats(*shape))[0], special(*shape)):
            x = x.astype(dtype)
            for net, reduce in ((nets.max_pool(window), lax.max), (nets.min_pool(window), lax.min)):
                ours = jax.jit(lambda x, net=net: pulled_back(net, x))(x)
                theirs = jax.jit(lambda x, reduce=reduce: pulled_back(lambda x: by_windows(window, x, reduce), x))(x)
                for a, b in zip(ours, theirs, strict=True):
                    np.testing.assert_array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64))
                assert [leaf.dtype for leaf in ours] == [leaf.dtype for leaf in theirs]


def test_the_gradient_goes_to_the_first_of_equals_row_by_row():
    x = jnp.array([[0.0, 1, 3, 3], [1, 1, 3, 3]])[..., None]
    first = [[0, 1, 1, 0], [0, 0, 0, 0]]
    grad = jax.grad(lambda x: nets.max_pool(2)(x).sum())
    np.testing.assert_array_equal(grad(x)[..., 0], first)
    np.testing.assert_array_equal(jax.grad(lambda x: nets.min_pool(2)(-x).sum())(x)[..., 0], np.negative(first))
    np.testing.assert_array_equal(jax.jacfwd(lambda x: nets.max_pool(2)(x).sum())(x)[..., 0], first)
    for pool in (nets.adaptive_max_pool((1, 2)), nets.max_pool((2, 2), padding="same"), nets.max_pool(2, padding=0)):
        np.testing.assert_array_equal(jax.grad(lambda x, pool=pool: pool(x).sum())(x)[..., 0], first)
    everywhere = jax.grad(lambda x: nets.global_max_pool()(x).sum())(x)
    np.testing.assert_array_equal(everywhere[..., 0], [[0, 0, 1, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_tangent_of_max_pool_keeps_every_digit(dtype: str):
    (x,) = values(floats(2, 6, 4, 3))
    x, tangent = x.astype(dtype), (1 + x[::-1]).astype(dtype)
    y, moved = jax.jvp(nets.max_pool(2), (x,), (tangent,))
    np.testing.assert_array_equal(y, by_windows((2, 2), x))
    split = (2, 3, 2, 2, 2, 3)
    tiles, tangents = (
        np.asarray(a).reshape(split).transpose(0, 1, 3, 5, 2, 4).reshape(2, 3, 2, 3, 4) for a in (x, tangent)
    )
    np.testing.assert_array_equal(moved, np.take_along_axis(tangents, tiles.argmax(-1)[..., None], -1)[..., 0])


@pytest.mark.parametrize(
    "net",
    [
        nets.max_pool(2),
        nets.min_pool(2),
        nets.avg_pool(2),
        nets.adaptive_max_pool((3, 2)),
        nets.adaptive_avg_pool((3, 2)),
        nets.global_max_pool(),
        nets.global_avg_pool(),
        nets.upsample(2),
        nets.upsample(2, method="linear"),
    ],
)
def test_derivatives_forward_and_backward_to_third_order_equal_finite_differences(net: nets.Net):
    with jax.enable_x64(True):
        x = jnp.linspace(0, 2, 32).reshape(1, 4, 4, 2) + jnp.asarray(values(floats(1, 4, 4, 2))[0], jnp.float64)
        check_grads(jax.jit(lambda x: jnp.sum(jnp.tanh(net(x)) ** 2)), (x,), order=2, modes=("fwd", "rev"))
        third = jax.jit(jax.grad(lambda x: jax.grad(lambda x: jnp.sum(jnp.sin(net(x))))(x).sum()))
        check_grads(third, (x,), order=1, modes=("fwd", "rev"))


def test_max_pool_works_inside_vmap_scan_and_remat():
    (x,) = values(floats(3, 2, 4, 4, 2))
    pool = nets.max_pool(2)
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))(x)
    mapped = jax.vmap(jax.grad(lambda x: jnp.sum(jnp.sin(pool(x)))), 1, 1)(x)
    np.testing.assert_array_equal(mapped, expected)

    def scanned(x: jax.Array) -> Any:
        return lax.scan(lambda total, x: (total + jnp.sum(jnp.sin(jax.checkpoint(pool)(x))), None), 0.0, x)[0]

    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), expected, rtol=1e-6)


def test_flags_are_joined_and_integers_kept():
    flags = jnp.zeros((4, 6, 1), bool).at[1, 2].set(True)
    for pool in (nets.max_pool(2), nets.max_pool(2, padding=1), nets.adaptive_max_pool(2), nets.global_max_pool()):
        y = pool(flags)
        assert y.dtype == bool
        assert y.sum() == 1
    for padding in ("valid", 1):
        assert not nets.min_pool(2, padding=padding)(~flags).all()
        assert nets.min_pool(2, padding=padding)(~flags).sum() == nets.min_pool(2, padding=padding)(flags).size - 1
    for dtype in (jnp.uint8, jnp.int32):
        x = jnp.array([[0, 3], [1, 2]], dtype)[..., None]
        for pool, value in (
            (nets.max_pool(2), 3),
            (nets.min_pool(2), 0),
            (nets.global_max_pool(), 3),
            (nets.adaptive_max_pool(1), 3),
        ):
            assert pool(x).dtype == dtype
            assert pool(x).item() == value


@pytest.mark.parametrize("padding", ["same", ((1, 2), (0, 1))])
def test_avg_pool_that_counts_padding_and_min_pool_equal_flax(padding: Any):
    (x,) = values(floats(2, 5, 6, 3))
    options = {"stride": (2, 1), "padding": padding}
    theirs = padding.upper() if isinstance(padding, str) else padding
    y = nets.avg_pool(3, count_padding=True, **options)(x)
    np.testing.assert_allclose(y, nn.avg_pool(x, (3, 3), (2, 1), theirs, count_include_pad=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(nets.min_pool(3, **options)(x), -nn.max_pool(-x, (3, 3), (2, 1), theirs))


@pytest.mark.parametrize(
    ("net", "steps"),
    [
        (nets.max_pool(2), 2),
        (nets.max_pool(3, stride=2), 2),
        (nets.min_pool(3, stride=1), 1),
        (nets.avg_pool(2), 2),
        (nets.avg_pool(3, stride=1), 1),
    ],
)
def test_pools_commute_with_shifts_by_whole_steps(net: nets.Net, steps: int):
    (x,) = values(floats(2, 13, 13, 2))
    shifted = net(x[:, steps:, 2 * steps :])
    np.testing.assert_allclose(shifted, net(x)[:, 1:, 2:][:, : shifted.shape[1], : shifted.shape[2]], rtol=1e-6)


@pytest.mark.parametrize("net", [nets.global_avg_pool(), nets.global_max_pool(), nets.adaptive_avg_pool(1)])
def test_global_pools_see_no_order(net: nets.Net):
    (x,) = values(floats(4, 5, 3))
    np.testing.assert_allclose(net(x[::-1]), net(x), rtol=1e-6)
    np.testing.assert_allclose(net(jnp.roll(x, (2, 3), (0, 1))), net(x), rtol=1e-5, atol=1e-7)


def test_bins_that_divide_the_input_are_windows():
    (x,) = values(floats(2, 6, 8, 3))
    np.testing.assert_allclose(nets.adaptive_avg_pool((3, 2))(x), nets.avg_pool((2, 4))(x), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(nets.adaptive_max_pool((3, 2))(x), nets.max_pool((2, 4))(x))


def test_bins_that_do_not_divide_the_input_share_positions():
    x = jnp.arange(7.0)[:, None]
    bins = [(0, 3), (2, 5), (4, 7)]
    np.testing.assert_allclose(nets.adaptive_avg_pool((3,))(x)[:, 0], [np.mean(x[a:b]) for a, b in bins])
    np.testing.assert_array_equal(nets.adaptive_max_pool((3,))(x)[:, 0], [2, 4, 6])
    np.testing.assert_array_equal(nets.adaptive_avg_pool((4,))(x[:2])[:, 0], [0, 0, 1, 1])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_stays_in_its_bin(value: float):
    x = jnp.arange(7.0)[:, None].at[0].set(value)
    for net in (nets.adaptive_avg_pool((3,)), nets.adaptive_max_pool((3,))):
        assert jnp.isfinite(net(x)[1:]).all()
    np.testing.assert_array_equal(nets.adaptive_avg_pool((3,))(x)[0], [value])
    np.testing.assert_array_equal(nets.adaptive_max_pool((3,))(x)[0], [2 if value == -INF else value])
    np.testing.assert_array_equal(nets.global_max_pool(1)(x), [6 if value == -INF else value])
    lowest = jnp.full((3, 1), -INF)
    np.testing.assert_array_equal(nets.adaptive_max_pool((2,))(lowest), lowest[:2])


def test_means_in_half_precision_take_sums_in_single():
    image = jnp.ones((64, 96, 1), jnp.bfloat16)
    for net in (nets.global_avg_pool(), nets.adaptive_avg_pool(1), nets.avg_pool((64, 96), count_padding=True)):
        y = net(image)
        assert y.dtype == jnp.bfloat16
        assert y.item() == 1


def test_upsample_undoes_what_pools_do_to_blocks():
    (x,) = values(floats(2, 3, 4, 2))
    large = nets.upsample((2, 3))(x)
    np.testing.assert_array_equal(large, np.repeat(np.repeat(x, 2, 1), 3, 2))
    np.testing.assert_array_equal(nets.max_pool((2, 3))(large), x)
    np.testing.assert_allclose(nets.avg_pool((2, 3))(large), x, rtol=1e-6)


def test_linear_upsample_keeps_ramps_inside_and_constants_everywhere():
    ramp = jnp.arange(5.0)[:, None]
    y = nets.upsample((4,), method="linear")(ramp)[:, 0]
    np.testing.assert_allclose(y[2:-2], (np.arange(2, 18) + 0.5) / 4 - 0.5, rtol=1e-5, atol=1e-6)
    half = nets.upsample(3, method="linear")(jnp.full((4, 5, 2), 7, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, np.full((12, 15, 2), 7))


def test_adaptive_avg_pool_needs_no_promotion_of_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        assert nets.adaptive_avg_pool((2,))(jnp.array([[1.0], [2.0], [6.0]])).tolist() == [[1.5], [4.0]]


def test_the_mean_of_a_window_of_nothing_but_padding_is_zero():
    assert nets.avg_pool((2,), padding=1)(jnp.ones((0, 3))).tolist() == [[0, 0, 0]]
