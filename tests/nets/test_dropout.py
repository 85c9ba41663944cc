"""Dropouts: shares, means and variances of draws with fixed keys, within five standard deviations."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

KEY = jax.random.key(0)


def drawn(net: nets.Net, x: jax.Array, key: jax.Array = KEY) -> np.ndarray:
    return np.asarray(jax.jit(lambda x: net(x, key=key, train=True))(x))


def assert_share(events: np.ndarray, probability: float) -> None:
    deviation = np.sqrt(probability * (1 - probability) / events.size)
    assert abs(events.mean() - probability) < 5 * deviation


@pytest.mark.parametrize("axes", [(), (-1,), (-3, -2), [-2]])
def test_dropout_draws_what_haiku_draws_along_broadcast_axes(axes: Any):
    x = jax.random.normal(KEY, (8, 5, 4, 16))
    ours = nets.dropout(0.3, broadcast_axes=axes)(x, key=KEY, train=True)
    np.testing.assert_allclose(ours, hk.dropout(KEY, 0.3, x, tuple(axes)), rtol=1e-6)


def test_dropout_drops_whole_channels_and_keeps_the_mean():
    y = drawn(nets.dropout(0.25, broadcast_axes=(-3, -2)), jnp.ones((500, 3, 2, 16)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    assert_share(y[:, 0, 0] == 0, 0.25)


@pytest.mark.parametrize("num_axes", [1, 2])
def test_drop_path_drops_whole_examples_and_keeps_the_mean(num_axes: int):
    y = drawn(nets.drop_path(0.2, num_axes=num_axes), jnp.ones((100, 50, 3)))
    examples = y.reshape(*y.shape[: 3 - num_axes], -1)
    np.testing.assert_array_equal(examples, np.broadcast_to(examples[..., :1], examples.shape))
    np.testing.assert_allclose(np.unique(y), [0, 1.25], rtol=1e-6)
    assert_share(examples[..., 0] == 0, 0.2)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_alpha_dropout_keeps_mean_and_variance_of_normal_values(rate: float):
    x = jax.random.normal(jax.random.key(1), (500, 1000))
    y = drawn(nets.alpha_dropout(rate), x).astype(np.float64)
    size = y.size
    assert abs(y.mean()) < 5 / np.sqrt(size)
    fourth = np.mean(y**4)
    assert abs(np.mean(y**2) - 1) < 5 * np.sqrt((fourth - 1) / size)
    numbers, counts = np.unique(y, return_counts=True)
    assert_share(y == numbers[counts.argmax()], rate)


def test_alpha_dropout_keeps_mean_and_variance_through_layers_of_selu():
    layers = [(nets.linear(256, bias=False), jax.nn.selu, nets.alpha_dropout(0.1)) for _ in range(6)]
    net = nets.serial(*(layer for block in layers for layer in block))
    x = jax.random.normal(jax.random.key(1), (512, 256))
    y = jax.jit(lambda params, x: net.apply(params, x, key=KEY, train=True))(net.init(KEY, x), x)
    assert abs(y.mean()) < 0.1
    assert abs(y.var() - 1) < 0.15


@pytest.mark.parametrize(
    "net", [nets.dropout(0.0, broadcast_axes=(-1,)), nets.drop_path(0.0, num_axes=1), nets.alpha_dropout(0.0)]
)
def test_a_rate_of_zero_changes_nothing_and_needs_no_key(net: nets.Net):
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(net(x, train=True), x)


@pytest.mark.parametrize("net", [nets.dropout(0.5), nets.drop_path(0.5, num_axes=1), nets.alpha_dropout(0.5)])
def test_gradients_are_zero_where_values_are_dropped(net: nets.Net):
    x = jnp.full((20, 3), 3.0)
    grads = jax.grad(lambda x: net(x, key=KEY, train=True).sum())(x)
    kept = np.asarray(net(x, key=KEY, train=True)) > 0
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(np.asarray(grads) != 0, kept)


def test_half_precision_and_integers_keep_their_kind():
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.ones((8, 8), dtype)
        for net in (nets.dropout(0.5), nets.drop_path(0.5, num_axes=1), nets.alpha_dropout(0.5)):
            assert net(x, key=KEY, train=True).dtype == dtype
    assert nets.alpha_dropout(0.5)(jnp.arange(3), train=False).dtype == jnp.float32


@pytest.mark.parametrize("net", [nets.dropout(0.5), nets.drop_path(0.5, num_axes=1), nets.alpha_dropout(0.5)], ids=str)
def test_integers_are_dropped_and_scaled_as_floats(net: nets.Net):
    x = np.arange(12).reshape(4, 3)
    for key in (None, jax.random.key(1)):
        y = net(x, key=key, train=key is not None)
        assert isinstance(y, jax.Array)
        np.testing.assert_array_equal(y, net(x.astype(np.float32), key=key, train=key is not None))
