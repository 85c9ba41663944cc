"""Linear maps of several axes, bilinear maps and tied weights: known answers, and Flax's for the same parameters."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, floats, values


def weights_like(net: nets.Net, *inputs: jax.Array) -> Any:
    """Params of the network's own structure, none of them zero or one."""
    shapes = jax.eval_shape(net.init, KEY, *inputs)
    return jax.tree.map(lambda leaf: 0.5 + 0.5 * leaf, values(shapes))


def assert_parity(ours: Callable[..., jax.Array], theirs: Callable[..., jax.Array], *given: Any) -> None:
    """Outputs to 1e-5, and gradients with respect to all that is given to 1e-4."""

    def both(function: Callable[..., jax.Array]) -> tuple[jax.Array, Any]:
        (weights,) = values(floats(*jax.eval_shape(function, *given).shape))
        loss = lambda *given: jnp.sum(function(*given) * weights)  # noqa: E731
        return function(*given), jax.grad(loss, tuple(range(len(given))))(*given)

    (y, grads), (their_y, their_grads) = jax.jit(both, static_argnums=0)(ours), jax.jit(both, static_argnums=0)(theirs)
    np.testing.assert_allclose(y, their_y, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, their_grads)


def flax(module: nn.Module) -> Callable[..., jax.Array]:
    def apply(params: dict, x: jax.Array) -> Any:
        return module.apply({"params": {{"w": "kernel", "b": "bias"}[k]: v for k, v in params.items()}}, x)

    return apply


@pytest.mark.parametrize(
    ("features", "num_axes", "bias"),
    [(3, 1, True), ((3, 2), 1, True), (4, 2, True), ((2, 3, 2), 3, True), ((3, 2), 2, False)],
)
def test_linear_general_equals_flax(features: Any, num_axes: int, bias: bool):
    net, (x,) = nets.linear_general(features, num_axes=num_axes, bias=bias), values(floats(2, 3, 2, 5))
    peer = nn.DenseGeneral(features, axis=tuple(range(-num_axes, 0)), use_bias=bias)
    assert_parity(net.apply, flax(peer), weights_like(net, x), x)


@pytest.mark.parametrize(
    ("equation", "bias_axes", "sizes", "shape"),
    [
        ("...d,dhk->...hk", "hk", {"h": 4, "k": 2}, (2, 3, 5)),
        ("...d,dhk->...hk", "", {"h": 4, "k": 2}, (5,)),
        ("...hk,hkd->...d", "d", {"d": 5}, (2, 3, 4, 2)),
        ("abc,cde->abde", "de", {"d": 2, "e": 3}, (2, 3, 4)),
        ("...gd,gdo->...go", "go", {"o": 3}, (2, 3, 4)),
        ("...td,ts->...sd", "s", {"s": 2}, (2, 3, 4)),
        ("b...d,dh->bh...", "h", {"h": 3}, (2, 3, 4, 5)),
        ("...d,d->...", "", {}, (2, 3)),
    ],
)
def test_einsum_equals_flax(equation: str, bias_axes: str, sizes: dict[str, Any], shape: tuple[int, ...]):
    net, (x,) = nets.einsum(equation, bias_axes=bias_axes, **sizes), values(floats(*shape))
    params = weights_like(net, x)
    peer = nn.Einsum(params["w"].shape, equation, use_bias=bool(bias_axes), kernel_init=nn.initializers.ones)
    assert_parity(net.apply, flax(peer), params, x)


def test_einsum_equals_linear_and_linear_general():
    (x,) = values(floats(2, 3, 4))
    for net, other in [
        (nets.einsum("...d,dh->...h", bias_axes="h", h=5), nets.linear(5)),
        (nets.einsum("...cd,cdhk->...hk", bias_axes="hk", h=2, k=3), nets.linear_general((2, 3), num_axes=2)),
    ]:
        params = net.init(KEY, x)
        np.testing.assert_array_equal(params["w"], other.init(KEY, x)["w"])
        np.testing.assert_allclose(net.apply(params, x), other.apply(params, x), rtol=1e-6)


@pytest.mark.parametrize(
    ("net", "shapes", "terms"),
    [
        (nets.linear_general((100, 20), num_axes=2), [(10, 30)], 300),
        (nets.einsum("...hk,hkd->...d", d=1000), [(10, 30)], 300),
        (nets.einsum("...gd,ogd->...go", o=1000), [(4, 200)], 200),
        (nets.bilinear(1000), [(10,), (30,)], 300),
    ],
)
def test_initial_weights_have_the_variance_of_the_number_of_terms_in_a_sum(net: nets.Net, shapes: Any, terms: int):
    w = net.init(KEY, *(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))["w"]
    np.testing.assert_allclose(np.var(w), 1 / terms, rtol=0.02)


def test_an_axis_of_an_einsum_that_all_share_has_initial_maps_of_its_own():
    w = nets.einsum("...gd,dgo->...go", w_init=nets.orthogonal(), o=4).init(KEY, *floats(3, 4))["w"]
    assert w.shape == (4, 3, 4)
    for group in range(3):
        np.testing.assert_allclose(w[:, group].T @ w[:, group], np.eye(4), atol=1e-5)
    assert not np.allclose(w[:, 0], w[:, 1])


def test_bilinear_equals_a_loop():
    net, (x1, x2) = nets.bilinear(3), values(floats(4, 5) + floats(4, 2))
    params = weights_like(net, x1, x2)
    rows = [
        [one @ np.asarray(params["w"])[:, :, o] @ two + params["b"][o] for o in range(3)]
        for one, two in zip(np.asarray(x1), np.asarray(x2), strict=True)
    ]
    np.testing.assert_allclose(net.apply(params, x1, x2), np.array(rows), rtol=1e-5, atol=1e-5)


def test_bilinear_takes_the_wider_dtype_of_its_inputs():
    net, (x1, x2) = nets.bilinear(3), values(floats(4, 5) + floats(4, 2))
    params = net.init(KEY, x1, x2)
    assert net.apply(params, x1.astype("bfloat16"), x2).dtype == "float32"
    assert net.apply(params, jnp.arange(20).reshape(4, 5), x2.astype("bfloat16")).dtype == "bfloat16"


def test_attend_equals_flax():
    w, x = values(floats(7, 4) + floats(2, 3, 4))

    def theirs(w: jax.Array, x: jax.Array) -> Any:
        return nn.Embed(7, 4).apply({"params": {"embedding": w}}, x, method="attend")

    assert_parity(lambda w, x: nets.attend({"w": w}, x), theirs, w, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_attend_in_half_precision_sums_in_single(dtype: str):
    x = jnp.ones(4096, dtype).at[0].set(1024)
    w = jnp.full((2, 4096), 0.25)
    (y, _) = nets.attend({"w": w}, x)
    assert y.dtype == dtype
    np.testing.assert_allclose(float(y), 256 + 4095 / 4, rtol=2.0**-8)


def test_weights_that_are_tied_get_the_gradients_of_both_uses():
    @nets.define
    def model(ids, *, tokens=nets.embed(5, 4)):
        h = tokens(ids)
        return nets.attend(tokens.params, h)  # pyright: ignore[reportAttributeAccessIssue]

    ids = jnp.array([0, 1, 1])
    params = model.init(KEY, ids)
    w = params["tokens"]["w"]
    grads = jax.grad(lambda params: model.apply(params, ids).sum())(params)["tokens"]["w"]
    used = np.array([1, 2, 0, 0, 0])[:, None]
    np.testing.assert_allclose(grads, used * w.sum(0) + w[ids].sum(0), rtol=1e-5, atol=1e-6)
