"""Numbers: far from zero, in half precision, and at the edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, values, variables
from .made import Made, cast, distance
from .registry import NETS

KEY = jax.random.key(0)


def normalised(x: Any, axis: int) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)


@pytest.fixture(scope="module")
def rows() -> jax.Array:
    """Features of mean 1e4 and standard deviation 1."""
    return 1e4 + jax.random.normal(jax.random.key(1), (16, 512))


@pytest.fixture(scope="module")
def batch() -> jax.Array:
    """Examples of mean 1e4 and standard deviation 1."""
    return 1e4 + jax.random.normal(jax.random.key(2), (4096, 8))


NORMS = [name for name, case in NETS.items() if case.normalises]


@pytest.mark.parametrize("made", NORMS, indirect=True)
def test_every_norm_is_exact_far_from_zero(made: Made):
    def far(x: jax.Array) -> jax.Array:
        return 1e4 + jax.random.normal(KEY, x.shape)

    inputs = jax.tree.map(far, made.inputs)
    found, (grads, _) = made.graded(made.variables, inputs, made.arrays, train=True)
    with jax.enable_x64(True):
        given = cast((made.variables, inputs, made.arrays), "float64")
        exact, (exact_grads, _) = jax.device_get(made.graded(*given, train=True))
    np.testing.assert_allclose(found[0], exact[0], atol=1e-2)
    assert distance(grads, exact_grads) < 1e-2


def test_layer_norm_is_exact_far_from_zero(rows: jax.Array):
    net = nets.layer_norm()
    y = jax.jit(net.apply)(*variables(net, KEY, rows), rows)
    np.testing.assert_allclose(y, normalised(rows, -1), atol=1e-4)


def test_batch_norm_is_exact_far_from_zero_and_so_are_its_statistics(batch: jax.Array):
    net = nets.batch_norm(decay_rate=0.0)
    params, state = variables(net, KEY, batch)
    y, state = jax.jit(net.apply, static_argnames="train")(params, state, batch, train=True)
    np.testing.assert_allclose(y, normalised(batch, 0), atol=1e-4)
    exact = np.asarray(batch, np.float64)
    np.testing.assert_allclose(state["mean"], exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(state["var"], exact.var(0), rtol=1e-4)
    # The running mean is a float32 at 1e4, so what is left after it is taken away is good to a few 1e-3.
    np.testing.assert_allclose(net.apply(params, state, batch)[0], normalised(batch, 0), atol=5e-3)


def test_gradients_of_norms_are_exact_far_from_zero(rows: jax.Array):
    weights = values(floats(*rows.shape))[0]
    net = nets.layer_norm()
    params = net.init(KEY, rows)
    grads = jax.jit(jax.grad(lambda x: jnp.sum(weights * net.apply(params, x))))
    # Shifted by a power of two, the same numbers lie near zero, and the derivative is the same.
    np.testing.assert_allclose(grads(rows), grads(rows - 8192), atol=1e-4)


@pytest.mark.parametrize("net", [nets.layer_norm(), nets.batch_norm()])
def test_norms_in_half_precision_take_sums_in_single(net: nets.Net, batch: jax.Array):
    x = (3 + batch - 1e4).astype(jnp.bfloat16)
    found = net.apply(*variables(net, KEY, x), x, train=True)
    y, axis = (found[0], 0) if isinstance(net, nets.StatefulNet) else (found, -1)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), normalised(x.astype(jnp.float32), axis), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("net", [nets.layer_norm(), nets.batch_norm()])
def test_norms_of_a_constant_are_zero_with_finite_gradients(net: nets.Net):
    made, x = variables(net, KEY, jnp.ones((4, 3))), jnp.full((4, 3), 7.0)

    def output(x: jax.Array) -> jax.Array:
        found = net.apply(*made, x, train=True)
        return found[0] if isinstance(net, nets.StatefulNet) else found

    np.testing.assert_array_equal(output(x), np.zeros((4, 3)))
    assert jnp.isfinite(jax.jacrev(output)(x)).all()


def test_batch_norm_over_a_mapped_axis_equals_that_over_the_batch():
    x, weights = values(floats(4, 3, 5))[0] ** 2, values(floats(12, 5))[0]
    whole, mapped = nets.batch_norm(), nets.batch_norm(axis_name="shards")
    params, state = whole.init(KEY, x)

    def over_batch(x: jax.Array) -> tuple:
        return whole.apply(params, state, x.reshape(12, 5), train=True)

    def over_shards(x: jax.Array) -> tuple:
        apply = jax.vmap(lambda x: mapped.apply(params, state, x, train=True), out_axes=(0, None), axis_name="shards")
        y, after = apply(x)
        return y.reshape(12, 5), after

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        jax.jit(over_batch)(x),
        jax.jit(over_shards)(x),
    )
    grads = [jax.jit(jax.grad(lambda x, f=f: jnp.sum(weights * f(x)[0])))(x) for f in (over_batch, over_shards)]
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_batch_norm_over_a_mapped_axis_takes_single_examples():
    x = values(floats(6, 5))[0]
    whole, mapped = nets.batch_norm(), nets.batch_norm(axis_name="batch")
    params, state = mapped.init(KEY, x[0])
    apply = jax.vmap(lambda x: mapped.apply(params, state, x, train=True), out_axes=(0, None), axis_name="batch")
    expected = whole.apply(params, state, x, train=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), apply(x), expected)


def test_matmuls_and_means_in_half_precision_take_sums_in_single():
    x = jnp.ones((1, 4096), jnp.bfloat16)
    y = nets.linear(1, bias=False).apply({"w": jnp.ones((4096, 1))}, x)
    assert y.item() == 4096
    image = jnp.ones((64, 64, 1), jnp.bfloat16)
    assert nets.avg_pool(64)(image).item() == 1
    assert nets.conv(1, 64, padding="valid", bias=False).apply({"w": jnp.ones((64, 64, 1, 1))}, image).item() == 4096


def test_integers_are_taken_as_floats_where_they_are_multiplied_and_kept_where_they_are_chosen():
    pixels = jnp.arange(32, dtype=jnp.uint8).reshape(4, 4, 2)
    as_floats = pixels.astype(jnp.float32)
    for net in (nets.linear(3), nets.conv(3, 3), nets.layer_norm(), nets.avg_pool(2)):
        params = net.init(KEY, pixels)
        y = net.apply(params, pixels)
        assert y.dtype == jnp.float32
        np.testing.assert_array_equal(y, net.apply(params, as_floats))
    largest = nets.max_pool(2)(pixels)
    assert largest.dtype == jnp.uint8
    np.testing.assert_array_equal(largest, nets.max_pool(2)(as_floats))
    np.testing.assert_array_equal(nets.max_pool(2)(pixels > 9), nets.max_pool(2)(pixels) > 9)


def test_padding_never_wins_and_is_never_counted():
    x = -1 - jnp.arange(9.0).reshape(3, 3, 1)
    np.testing.assert_array_equal(
        nets.max_pool(3, stride=1, padding="same")(x)[..., 0], [[-1, -1, -2], [-1, -1, -2], [-4, -4, -5]]
    )
    np.testing.assert_array_equal(nets.avg_pool(3, stride=3, padding=2)(x)[..., 0], [[-1, -2.5], [-5.5, -7]])
    ints = x.astype(jnp.int8)
    np.testing.assert_array_equal(nets.max_pool(3, stride=2, padding=1)(ints), nets.max_pool(3, stride=2, padding=1)(x))


def test_an_id_out_of_range_gives_nan_and_no_gradient():
    net, ids = nets.embed(3, 2), jnp.array([0, -1, 2, 3, -4])
    params = net.init(KEY, ids)
    y = jax.jit(net.apply)(params, ids)
    assert jnp.isnan(y).all(-1).tolist() == [False, True, False, True, True]
    np.testing.assert_array_equal(y[jnp.array([0, 2])], params["w"][jnp.array([0, 2])])
    grads = jax.grad(lambda params: jnp.nansum(net.apply(params, ids)))(params)
    np.testing.assert_array_equal(grads["w"], [[1, 1], [0, 0], [1, 1]])
    small = ids.astype(jnp.int8)
    np.testing.assert_array_equal(net.apply(params, small), y)


def test_dropout_keeps_the_mean_and_the_dtype():
    x = jnp.full((100, 1000), 3, jnp.bfloat16)
    y = nets.dropout(0.25)(x, key=KEY, train=True)
    assert y.dtype == jnp.bfloat16
    assert set(np.unique(y.astype(jnp.float32)).tolist()) == {0.0, 4.0}
    # Five standard deviations of the mean of 100,000 draws.
    assert abs(y.astype(jnp.float32).mean() - 3) < 5 * 4 * np.sqrt(0.25 * 0.75 / y.size)
    np.testing.assert_array_equal(nets.dropout(0.0)(x, train=True), x)
