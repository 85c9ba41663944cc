"""States in fewer bits: what they take, how they round, and that training does not see it."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim
from renga.optim import Blocks
from renga.optim._low_bit import Halves, _decoded, _encoded, _to_bfloat16

from .trees import assert_close, assert_same, types

PARAMS = {"w": jax.random.normal(jax.random.key(0), (96, 64)), "b": jnp.ones(64)}
GRADS = jax.tree.map(lambda leaf: 0.1 * leaf, PARAMS)
LINKS: dict[str, Callable[[], Any]] = {
    "adam": lambda: optim.adam(0.01),
    "momentum": lambda: optim.sgd(0.01, momentum=0.9),
    "optimistic_gradient": lambda: optim.optimistic_gradient(0.01),
    "noisy_sgd": lambda: optim.noisy_sgd(0.01, key=3),
    "sam": lambda: optim.chain(optim.sam(0.05), optim.adam(0.01)),
    "adam with moments in half precision": lambda: optim.adam(0.01, mu_dtype="bfloat16"),
    "masked": lambda: optim.masked(optim.adam(0.01), {"b": False, "w": True}),
    "ema_params": lambda: optim.chain(optim.adam(0.01), optim.ema_params(0.9)),
}


def slope(params: Any) -> Any:
    return jax.tree.map(jnp.sin, params)


def words(seed: Any) -> jax.Array:
    return jax.random.bits(jax.random.key(seed), (2,), jnp.uint32)


def first_state(tx: Any, params: Any = PARAMS) -> Any:
    return tx.init(params)


def num_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


@pytest.mark.parametrize(("bits", "most"), [(8, 2.2), (16, 4.01)])
def test_adams_state_takes_few_bytes_a_parameter(bits: int, most: float):
    params = {"w": jnp.zeros((512, 512)), "head": jnp.zeros((512, 100)), "b": jnp.zeros(512)}
    state: Any = optim.low_bit(optim.adam(1e-3), bits, key=0).init(params)
    assert num_bytes(state) / sum(leaf.size for leaf in jax.tree.leaves(params)) < most


def test_small_arrays_stay_as_they_are():
    moments = first_state(optim.low_bit(optim.adam(1e-3), key=0)).inner[0].mu
    assert isinstance(moments["w"], Blocks)
    assert moments["b"].dtype == jnp.float32


def levels(*, one_sign: bool) -> np.ndarray:
    """All that a block whose largest number is 1 may hold, without the sign."""
    codes = jnp.arange(256 if one_sign else 128).astype(jnp.uint8).astype(jnp.int8)[None]
    return np.asarray(_decoded(Blocks(codes, jnp.array([-1.0 if one_sign else 1.0]), codes.shape))[0])


@pytest.mark.parametrize(("one_sign", "smallest"), [(False, 4e-9), (True, 6e-20)])
def test_levels_are_dense_where_numbers_are_large_and_reach_far_down(one_sign: bool, smallest: float):
    found = levels(one_sign=one_sign)
    assert found[0] == 0
    assert 0 < found[1] < smallest
    assert found[-1] == 1
    ratios = found[2:] / found[1:-1]
    assert 1.03 < ratios[len(ratios) // 2 :].min() < ratios[len(ratios) // 2 :].max() < 1.065


@pytest.mark.parametrize("size", [256, 1000])
@pytest.mark.parametrize("one_sign", [False, True])
def test_eight_bits_are_right_on_average_and_never_off_by_more_than_a_level(size: int, one_sign: bool):
    x = jnp.exp(jax.random.uniform(jax.random.key(1), (size,), minval=-12.0))
    x = x if one_sign else x * jnp.where(jnp.arange(size) % 2, 1, -1)
    found = jax.vmap(lambda word: _decoded(_encoded(x, 256, word)))(jax.vmap(words)(jnp.arange(4000)))
    rows = jnp.abs(jnp.pad(x, (0, -size % 256))).reshape(-1, 256)
    share, held = np.asarray(rows / rows.max(-1, keepdims=True)), levels(one_sign=one_sign)
    above = np.clip(np.searchsorted(held, share), 1, len(held) - 1)
    gap = ((held[above] - held[above - 1]) * np.asarray(rows.max(-1, keepdims=True))).reshape(-1)[:size]
    assert jnp.all(jnp.abs(found - x) <= 1.001 * gap)
    assert jnp.all(jnp.abs(found.mean(0) - x) <= 5 * gap / 2 / math.sqrt(4000))  # a coin's deviation is half a gap
    assert abs(float(jnp.mean(found / x)) - 1) < 2e-4


def test_gradients_of_very_different_sizes_may_share_a_block():
    sizes = jnp.exp(jax.random.uniform(jax.random.key(0), (4096,), minval=-10.0, maxval=0.0))
    full, low = optim.adam(1.0), optim.low_bit(optim.adam(1.0), key=0)

    def step(states: Any, key: jax.Array) -> Any:
        grads = sizes * (0.3 + jax.random.normal(key, sizes.shape))
        moved, state = full.update(grads, states[0])
        found, packed = low.update(grads, states[1])
        return (state, packed), (moved, found)

    start = (full.init(sizes), low.init(sizes))
    _, (moved, found) = lax.scan(step, start, jax.random.split(jax.random.key(1), 200))
    assert jnp.linalg.norm(found - moved) < 0.25 * jnp.linalg.norm(moved)
    assert jnp.abs(found).max() < 2 * jnp.abs(moved).max()


def test_sixteen_bits_are_right_on_average_and_never_off_by_more_than_a_digit():
    x = jnp.exp(jax.random.uniform(jax.random.key(1), (512,), minval=-12.0)) * jnp.where(jnp.arange(512) % 2, 1, -1)
    found = jax.vmap(lambda word: _to_bfloat16(x, word))(jax.vmap(words)(jnp.arange(4000))).astype(jnp.float32)
    gap = jnp.abs(x) / 2**7
    assert jnp.all(jnp.abs(found - x) <= gap)
    assert jnp.all(jnp.abs(found.mean(0) - x) <= 5 * gap / 2 / math.sqrt(4000))
    assert abs(float(jnp.mean(found / x)) - 1) < 2e-5


def test_numbers_are_rounded_independently():
    x = jnp.full(4096, 0.7).at[::256].set(1.0)
    codes = jax.vmap(lambda word: _encoded(x, 256, word).codes)(jax.vmap(words)(jnp.arange(200)))
    equal = codes.reshape(200, -1)[:, jnp.arange(4096) % 256 != 0]  # all but the largest of each block
    up = equal > equal.min()
    chance = up.mean()
    assert 0.05 < chance < 0.95
    for other in (jnp.roll(up, 1, axis=1), jnp.roll(up, 1, axis=0), jnp.roll(up, 64, axis=1)):
        agree = jnp.mean(up == other)
        np.testing.assert_allclose(agree, chance**2 + (1 - chance) ** 2, atol=5e-3)


def test_zeros_the_largest_of_a_block_and_a_block_of_zeros_stay_exact():
    x = jnp.concatenate([jnp.zeros(256), jnp.array([3.0, 0.0, -3.0]), jnp.zeros(100)])
    np.testing.assert_array_equal(_decoded(_encoded(x, 256, words(0))), x)
    tiny = jnp.full(256, 1e-40)
    assert jnp.all(jnp.isfinite(_decoded(_encoded(tiny, 256, words(0)))))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_what_is_not_finite_is_seen_in_its_block_and_no_other(value: float):
    x = jnp.ones(512).at[3].set(value)
    found = _decoded(_encoded(x, 256, words(0)))
    assert not jnp.isfinite(found[3])
    np.testing.assert_array_equal(found[256:], 1)
    assert not jnp.isfinite(_to_bfloat16(x, words(0))[3])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", LINKS)
def test_any_link_keeps_the_types_of_its_state(name: str, bits: int):
    tx: Any = optim.low_bit(LINKS[name](), bits, key=0)
    before: Any = tx.init(PARAMS)
    step = functools.partial(tx.update, grad_fn=slope)
    after = lax.scan(lambda state, _: step(GRADS, state, PARAMS)[::-1], before, None, 2)[0]
    assert types(after) == types(before)
    perhaps = jax.jit(lambda flag, state: lax.cond(flag, lambda: step(GRADS, state, PARAMS)[1], lambda: state))
    assert types(perhaps(True, before)) == types(before)
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), before, before)
    assert jax.tree.structure(jax.vmap(lambda state: step(GRADS, state, PARAMS)[1])(many)) == types(before)[0]
    mapped = optax.tree.map_params(tx, lambda leaf: leaf + 1, before)
    assert types(mapped) == types(before)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", LINKS)
def test_keys_integers_and_small_arrays_are_the_chains_own(name: str, bits: int):
    tx: Any = optim.low_bit(LINKS[name](), bits, key=0, min_size=10**6)
    state, own = tx.init(PARAMS), LINKS[name]().init(PARAMS)
    updates = expected = None
    for _ in range(2):
        updates, state = tx.update(GRADS, state, PARAMS, grad_fn=slope)
        expected, own = LINKS[name]().update(GRADS, own, PARAMS, grad_fn=slope)
    assert_same((updates, state.inner), (expected, own))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_first_step_is_that_of_the_chain(bits: int):
    tx: Any = optim.low_bit(optim.adam(0.01), bits, key=0)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert_close(updates, optim.adam(0.01).update(GRADS, optim.adam(0.01).init(PARAMS))[0])


@pytest.mark.parametrize(("bits", "most"), [(8, 0.02), (16, 1e-3)])
def test_a_slow_average_arrives(bits: int, most: float):
    tx: Any = optim.low_bit(optax.ema(0.999, debias=False), bits, key=0)
    grads = jnp.ones(4096)
    state, _ = lax.scan(lambda state, _: tx.update(grads, state)[::-1], tx.init(grads), None, 3000)
    leaf = state.inner.ema
    mean = (_decoded(leaf) if bits == 8 else leaf.values.astype(jnp.float32)).mean()
    np.testing.assert_allclose(mean, 1 - 0.999**3000, rtol=most)


def test_halves_are_bfloat16_of_the_same_shape():
    moments = first_state(optim.low_bit(optim.adam(1e-3), 16, key=0)).inner[0].nu
    assert isinstance(moments["w"], Halves)
    assert moments["w"].values.shape == PARAMS["w"].shape
    assert moments["w"].values.dtype == jnp.bfloat16


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "wraps",
    [
        lambda base: optim.lookahead(base, 2),
        lambda base: optim.chain(base, optim.ema_params(0.5)),
        lambda base: optim.schedule_free(base, 0.01),
        optim.past_extragradient,
    ],
)
def test_parameters_that_a_state_keeps_are_not_rounded(bits: int, wraps: Any):
    def after(tx: Any) -> Any:
        params, state = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            updates, state = tx.update(GRADS, state, params)
            params = optax.apply_updates(params, updates)
        return params, optim.eval_params(state, params)

    assert_close(after(optim.low_bit(wraps(optim.sgd(0.01)), bits, key=0)), after(wraps(optim.sgd(0.01))))


def test_an_anchor_is_not_rounded():
    tx: Any = optim.low_bit(optim.anchored(optim.sgd(0.01, momentum=0.9)), key=0)
    state = first_state(tx).inner
    assert not isinstance(state.anchor["w"], Blocks)
    assert isinstance(state.base[0].trace["w"], Blocks)


def test_the_key_decides():
    def second(key: Any) -> Any:
        tx = optim.low_bit(optim.adam(0.01), key=key)
        state: Any = tx.init(PARAMS)
        _, state = tx.update(GRADS, state, PARAMS)
        return tx.update(GRADS, state, PARAMS)[0]

    assert_same(second(0), second(jax.random.key(0)))
    assert jnp.any(second(0)["w"] != second(1)["w"])


def test_what_low_bit_refuses_says_why():
    with pytest.raises(ValueError, match="expected bits to be 8 or 16, got 4"):
        optim.low_bit(optim.adam(0.1), 4, key=0)
    with pytest.raises(ValueError, match="block to be an integer of at least 1, got 0"):
        optim.low_bit(optim.adam(0.1), key=0, block=0)
    with pytest.raises(TypeError, match=re.escape("to be a link such as adam(1e-3), got 3")):
        optim.low_bit(3, key=0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_digits_are_learnt_as_in_full_precision(bits: int):
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = jnp.asarray(images, jnp.float32) / 16, jnp.asarray(labels)

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = jax.nn.relu(x @ params["in"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def accuracy(tx: Any) -> float:
        keys = jax.random.split(jax.random.key(0), 3)
        params = {
            "in": jax.random.normal(keys[0], (64, 128)) / 8,
            "out": jax.random.normal(keys[1], (128, 10)) / 128**0.5,
        }

        def step(carry: Any, key: jax.Array) -> Any:
            batch = jax.random.randint(key, (64,), 0, 1297)
            updates, state = tx.update(jax.grad(loss_fn)(carry[0], x[batch], y[batch]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        params, _ = jax.jit(functools.partial(lax.scan, step))(
            (params, tx.init(params)), jax.random.split(keys[2], 800)
        )[0]
        found = jnp.argmax(jax.nn.relu(x[1297:] @ params["in"]) @ params["out"], -1)
        return float(jnp.mean(found == y[1297:]))

    full = accuracy(optim.adam(2e-3))
    assert full > 0.93
    low = accuracy(optim.low_bit(optim.adam(2e-3), bits, key=0, min_size=1024))
    assert abs(low - full) <= 0.005, (low, full)
