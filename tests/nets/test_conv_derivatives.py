"""The derivative of convolutions: that of `lax`'s, in a form that XLA's CPU backend is fast at inside of loops too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from renga import nets
from renga.nets._conv import convolution
from renga.training._convolutions import convolves, is_slow_in_loops

from .kit import floats, values

CASES: dict[str, tuple[tuple, tuple, dict[str, Any]]] = {
    "one axis": ((2, 7, 3), (3, 3, 4), {"window_strides": (1,), "padding": "SAME"}),
    "strides": ((2, 6, 7, 3), (3, 2, 3, 4), {"window_strides": (2, 3), "padding": "VALID"}),
    "dilations": ((2, 8, 7, 2), (3, 2, 2, 1), {"window_strides": (1, 2), "padding": "SAME", "rhs_dilation": (2, 3)}),
    "uneven padding": ((3, 5, 4, 1), (2, 3, 1, 2), {"window_strides": (2, 1), "padding": ((0, 3), (2, 1))}),
    "transposed": (
        *((2, 4, 3, 2), (3, 2, 2, 3)),
        {"window_strides": (1, 1), "padding": ((2, 1), (0, 1)), "lhs_dilation": (2, 3), "rhs_dilation": (2, 1)},
    ),
    "three axes": ((2, 4, 3, 5, 2), (2, 2, 3, 2, 3), {"window_strides": (1, 2, 1), "padding": "SAME"}),
}


def plain(rows: jax.Array, w: jax.Array, options: tuple) -> jax.Array:
    spatial = "HWD"[: rows.ndim - 2]
    image = f"N{spatial}C"
    return lax.conv_general_dilated(rows, w, dimension_numbers=(image, f"{spatial}IO", image), **dict(options))


def along(function: Any, rows: jax.Array, w: jax.Array, options: tuple) -> list[Any]:
    """Derivatives backward, forward, forward over backward, backward over backward, and of a batch of kernels."""

    def loss(rows: jax.Array, w: jax.Array) -> jax.Array:
        y = function(rows, w, options)
        return jnp.sum(jnp.sin(jnp.arange(y.size).reshape(y.shape)) * y**3)

    grad = jax.grad(loss, (0, 1))
    tangents = jnp.cos(rows), jnp.cos(2 * w)
    doubled = jax.grad(lambda *given: sum(jnp.vdot(a, b) for a, b in zip(grad(*given), tangents, strict=True)), (0, 1))
    stacked = jax.vmap(jax.grad(loss, 1), (None, 0))(rows, jnp.stack([w, 2 * w]))
    return [
        grad(rows, w),
        jax.jvp(loss, (rows, w), tangents)[1],
        jax.jvp(grad, (rows, w), tangents)[1],
        doubled(rows, w),
        stacked,
        jax.vmap(jax.grad(lambda row: loss(row[None], w)))(rows),
    ]


@pytest.mark.parametrize("case", CASES)
def test_derivatives_of_both_orders_and_under_vmap_are_those_of_lax(case: str):
    of_rows, of_w, options = CASES[case]
    with jax.enable_x64(True):
        rows, w = jax.tree.map(lambda x: x.astype(jnp.float64), values(floats(*of_rows) + floats(*of_w)))
        given = tuple(options.items())
        found, expected = (jax.jit(along, static_argnums=(0, 3))(each, rows, w, given) for each in (convolution, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), found, expected)


@pytest.mark.parametrize(
    "net",
    [
        nets.conv(4, 3, stride=2),
        nets.conv(3, (3,), padding="causal", dilation=2),
        nets.conv(2, (2, 3, 2), padding="reflect"),
        nets.conv_transpose(3, 3, stride=2),
        nets.serial(nets.conv(3, 3), jax.nn.relu, nets.max_pool(2), nets.conv(2, 1)),
    ],
    ids=repr,
)
def test_gradients_have_a_form_that_is_fast_in_loops(net: nets.Net):
    num = {"causal": 1, "reflect": 3}.get(next((word for word in ("causal", "reflect") if word in repr(net)), ""), 2)
    (x,) = values(floats(2, *(8, 6, 4)[:num], 3))
    params = net.init(jax.random.key(0), x)
    program = jax.make_jaxpr(jax.grad(lambda params, x: jnp.sum(net.apply(params, x) ** 2), (0, 1)))(params, x).jaxpr
    assert convolves(program)
    assert not is_slow_in_loops(program)


def test_only_what_changes_is_convolved():
    net, (x,) = nets.conv(4, 3), values(floats(2, 5, 5, 3))
    params = net.init(jax.random.key(0), x)
    program = str(jax.make_jaxpr(jax.grad(lambda params: jnp.sum(net.apply(params, x) ** 2)))(params))
    assert program.count("= conv_general_dilated") == 2  # the layer, and the gradient of its kernel


def test_gradients_of_lax_and_of_groups_are_slow_in_loops():
    (x,) = values(floats(2, 5, 5, 4))
    for net in (nets.conv(4, 3, groups=2), nets.depthwise_conv(3)):
        params = net.init(jax.random.key(0), x)
        loss = lambda params, net=net: jnp.sum(net.apply(params, x) ** 2)  # noqa: E731
        assert is_slow_in_loops(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
    options = (("window_strides", (1, 1)), ("padding", "SAME"))
    of_lax = jax.grad(lambda w: jnp.sum(plain(x, w, options) ** 2))
    assert is_slow_in_loops(jax.make_jaxpr(of_lax)(jnp.ones((3, 3, 4, 2))).jaxpr)
