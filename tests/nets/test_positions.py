"""Positions: known answers, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, values

KEY = jax.random.key(0)


def turned(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """Neighbours as complex numbers, multiplied by `exp(i * angle)`."""
    size = x.shape[-1]
    numbers = x[..., ::2].astype(np.complex128) + 1j * x[..., 1::2]
    for pair in range(size // 2):
        numbers[..., pair] *= np.exp(1j * positions * theta ** (-2 * pair / size))[..., None]
    return np.stack([numbers.real, numbers.imag], -1).reshape(x.shape)


@pytest.mark.parametrize("theta", [10_000.0, 50.0])
def test_rotary_of_pairs_multiplies_complex_numbers(theta: float):
    (x,), positions = values(floats(2, 5, 3, 6)), jnp.array([[0, 1, 2, 3, 4], [7, 7, 100, 2, 0]])
    y = nets.rotary(theta=theta, layout="pairs")(x, positions)
    np.testing.assert_allclose(y, turned(np.asarray(x), np.asarray(positions), theta), atol=1e-5)


def test_rotary_of_halves_is_that_of_pairs_with_the_features_in_another_order():
    (x,) = values(floats(2, 5, 3, 6))
    order = np.array([0, 2, 4, 1, 3, 5])
    in_pairs = nets.rotary(layout="pairs")(x)
    np.testing.assert_allclose(nets.rotary()(x[..., order]), in_pairs[..., order], atol=1e-6)


def test_partial_rotary_turns_the_leading_features_as_a_head_of_their_own_and_leaves_the_others():
    (x,) = values(floats(5, 3, 7))
    y = nets.rotary(num_features=4)(x)
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(y[..., :4], nets.rotary()(x[..., :4]))


def test_rotary_with_another_theta_gives_another_output_also_after_the_first():
    (x,) = values(floats(5, 1, 8))
    fast, slow, again = (nets.rotary(theta=theta)(x) for theta in (1e4, 1e6, 1e4))
    assert jnp.abs(fast - slow).max() > 0.1
    np.testing.assert_array_equal(fast, again)


@pytest.mark.parametrize("layout", ["halves", "pairs"])
def test_products_of_turned_queries_and_keys_depend_on_the_difference_of_positions_alone(layout):
    q, k = values(floats(1, 1, 8) * 2)
    k = k[..., ::-1]
    rotary = nets.rotary(layout=layout)

    def product(query_position: int, key_position: int) -> jax.Array:
        at = [rotary(x, jnp.array([place])) for x, place in ((q, query_position), (k, key_position))]
        return jnp.sum(at[0] * at[1])

    np.testing.assert_allclose(product(5, 2), product(1003, 1000), rtol=1e-4)
    np.testing.assert_allclose(product(0, 40), product(460, 500), rtol=1e-4)
    assert abs(product(5, 2) - product(5, 3)) > 1e-2


def test_rotary_of_one_step_at_its_position_is_that_step_of_the_whole():
    (x,) = values(floats(2, 5, 3, 4))
    one = nets.rotary()(x[:, 3:4], positions=jnp.array([3]))
    np.testing.assert_allclose(one, nets.rotary()(x)[:, 3:4], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_rotary_in_half_precision_takes_angles_in_single(dtype):
    x = values(floats(4, 2, 8))[0].astype(dtype)
    positions = np.array([3, 257, 4099, 30_001])
    y = nets.rotary(layout="pairs")(x, jnp.asarray(positions))
    assert y.dtype == dtype
    exact = turned(np.asarray(x, np.float64), positions, 1e4)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=2 * float(jnp.finfo(dtype).eps))


def test_rotary_in_double_precision_takes_angles_in_double():
    with jax.enable_x64(True):
        x = jnp.asarray(values(floats(3, 2, 8))[0], jnp.float64)
        positions = np.array([3, 4099, 300_001])
        y = nets.rotary(layout="pairs")(x, jnp.asarray(positions))
        np.testing.assert_allclose(y, turned(np.asarray(x), positions, 1e4), atol=1e-10)


@pytest.mark.parametrize(
    ("num_heads", "slopes"),
    [
        (1, [2**-8]),
        (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]),
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (12, [*(2.0**-i for i in range(1, 9)), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_alibi_falls_with_distance_by_the_slopes_of_the_paper(num_heads: int, slopes: list[float]):
    queries, keys = jnp.array([[3, 9]]), jnp.array([[0, 3, 11]])
    distance = np.array([[3, 0, 8], [9, 6, 2]])
    bias = nets.alibi(num_heads)(queries, keys)
    np.testing.assert_allclose(bias[0], -np.array(slopes)[:, None, None] * distance, rtol=1e-6)
    assert bias.dtype == jnp.float32


def test_alibi_takes_unsigned_positions():
    small = jnp.array([0, 5, 255], jnp.uint8)
    np.testing.assert_array_equal(nets.alibi(2)(small, small), nets.alibi(2)(*[small.astype(jnp.int32)] * 2))


def test_learned_positions_adds_rows_in_order_or_those_of_the_positions():
    net, (x,) = nets.learned_positions(6, w_init=nets.normal(1.0)), values(floats(2, 4, 3))
    params = net.init(KEY, x)
    np.testing.assert_array_equal(net.apply(params, x), x + params["w"][:4])
    positions = jnp.array([[5, 0, 1, 2], [3, 3, 3, 3]])
    np.testing.assert_array_equal(net.apply(params, x, positions=positions), x + params["w"][positions])
    np.testing.assert_array_equal(net.apply(params, x, positions=positions[0]), x + params["w"][positions[0]])


def test_learned_positions_take_more_steps_than_they_have_rows_where_positions_are_given():
    net, (x,) = nets.learned_positions(3), values(floats(5, 2))
    positions = jnp.array([0, 1, 2, 0, 1])
    params = net.init(KEY, x, positions=positions)
    assert params["w"].shape == (3, 2)
    assert jnp.isfinite(net.apply(params, x, positions=positions)).all()


def test_a_learned_position_out_of_range_gives_nan_and_no_gradient():
    net, (x,) = nets.learned_positions(3), values(floats(4, 2))
    params = net.init(KEY, x[:3])
    positions = jnp.array([0, 3, 2, -1])
    apply = jax.jit(lambda params, positions: net.apply(params, x, positions=positions))
    assert jnp.isnan(apply(params, positions)).all(-1).tolist() == [False, True, False, True]
    grads = jax.grad(lambda params: jnp.nansum(apply(params, positions)))(params)
    np.testing.assert_array_equal(grads["w"], [[1, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize("features", [6, 5, 1])
def test_sinusoidal_positions_are_those_of_the_paper(features: int):
    (x,), positions = values(floats(2, 4, features)), np.array([[0, 1, 2, 3], [9, 200, 4, 4]])
    expected = np.array(x, np.float64)
    for row, step, feature in np.ndindex(*x.shape):
        angle = positions[row, step] / 10_000 ** (2 * (feature // 2) / features)
        expected[row, step, feature] += np.cos(angle) if feature % 2 else np.sin(angle)
    net = nets.sinusoidal_positions()
    np.testing.assert_allclose(net(x, positions=jnp.asarray(positions)), expected, atol=2e-5)
    np.testing.assert_allclose(net(x[0]), expected[0], atol=2e-5)


def test_positions_compose_with_other_networks():
    net = nets.serial(nets.embed(5, 4), nets.learned_positions(3), nets.sinusoidal_positions(), nets.linear(2))
    ids = jnp.array([[0, 1, 2], [4, 3, 2]])
    assert net.apply(net.init(KEY, ids), ids).shape == (2, 3, 2)
