"""Private training: noise, sensitivity, Poisson batches and the accountant."""

import itertools
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training

from ..optim.trees import assert_close, assert_same

KEY = jax.random.key(3)
NET = nets.mlp(6, 3)
X = jax.random.normal(KEY, (16, 4))
DATA = {"x": X, "y": jnp.arange(16) % 3}
PARAMS = NET.init(KEY, X)


def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
    return training.cross_entropy(NET.apply(params, batch["x"]), batch["y"])


def private(loss: Any = loss_fn, max_norm: Any = 0.5, **options: Any) -> Any:
    return training.private(
        loss, max_norm, **{"noise_multiplier": 1.0, "expected_batch_size": 16, "mask": None} | options
    )


def grad(loss: Any) -> Any:
    """The gradient alone."""
    return lambda *args: jax.grad(loss, has_aux=True)(*args)[0]


def norm(tree: Any) -> float:
    return float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))))


def test_the_noise_is_there_with_its_standard_deviation():
    loss = private(noise_multiplier=3.0)
    quiet = grad(private(noise_multiplier=0.0))(PARAMS, DATA, KEY)
    draw = jax.jit(jax.vmap(grad(loss), in_axes=(None, None, 0)))
    noisy = draw(PARAMS, DATA, jax.random.split(KEY, 400))
    noise = jax.tree.map(lambda a, b: (a - b).reshape(400, -1), noisy, quiet)
    together = jnp.concatenate(jax.tree.leaves(noise), 1)
    expected, num = 3.0 * 0.5 / 16, together.size
    np.testing.assert_allclose(together.std(), expected, 4 / np.sqrt(2 * num))
    np.testing.assert_allclose(together.std(0), expected, 0.2)
    np.testing.assert_allclose(together.mean(), 0, atol=4 * expected / np.sqrt(num))
    correlation = np.corrcoef(np.asarray(together).T) - np.eye(together.shape[1])
    assert np.abs(correlation).max() < 0.3


def test_without_noise_it_is_the_clipped_sum_over_the_expected_size():
    quiet = private(noise_multiplier=0.0, expected_batch_size=10)
    (value, metrics), grads = jax.jit(jax.value_and_grad(quiet, has_aux=True))(PARAMS, DATA, KEY)
    sums = training.clipped_sum(loss_fn, 0.5)(PARAMS, DATA)
    assert_close(grads, jax.tree.map(lambda leaf: leaf / 10, sums.grads))
    assert_close(metrics["exact_loss"], loss_fn(PARAMS, DATA, None))
    assert value == 0


@pytest.mark.parametrize("per_leaf", [False, True])
@pytest.mark.parametrize("examples_at_once", [None, 3])
def test_an_example_more_or_less_moves_the_sum_by_the_bound_at_most(per_leaf, examples_at_once):
    bound = 0.3
    sums = jax.jit(training.clipped_sum(loss_fn, bound, per_leaf=per_leaf, examples_at_once=examples_at_once))
    loud = DATA | {"x": X.at[2].mul(100).at[5].mul(0)}
    full = sums(PARAMS, loud, None, jnp.ones(16, bool))
    furthest = 0.0
    for left_out in range(16):
        without = sums(PARAMS, loud, None, jnp.arange(16) != left_out)
        moved = norm(jax.tree.map(jnp.subtract, full.grads, without.grads))
        assert moved <= bound * (1 + 1e-5)
        furthest = max(furthest, moved)
        other = sums(PARAMS, loud | {"x": loud["x"].at[left_out].set(7.0)}, None, jnp.ones(16, bool))
        assert norm(jax.tree.map(jnp.subtract, full.grads, other.grads)) <= 2 * bound * (1 + 1e-5)
    assert furthest > 0.99 * bound


def test_the_bound_holds_for_sums_accumulated_over_padded_batches():
    bound = 0.3
    sums = jax.jit(training.clipped_sum(loss_fn, bound))

    def accumulated(mask: jax.Array) -> Any:
        total = jax.tree.map(jnp.zeros_like, PARAMS)
        for start in range(0, 16, 4):
            part = jax.tree.map(lambda leaf: leaf[start : start + 4], DATA)  # noqa: B023
            found = sums(PARAMS, part, None, mask[start : start + 4])
            total = jax.tree.map(jnp.add, total, found.grads)
        return total

    mask = jnp.arange(16) < 13
    whole = sums(PARAMS, DATA, None, mask).grads
    assert_close(accumulated(mask), whole)
    assert norm(jax.tree.map(jnp.subtract, accumulated(mask), accumulated(mask.at[4].set(False)))) <= bound * (1 + 1e-5)


def test_the_bound_holds_where_positions_of_an_example_nearly_cancel():
    keys = jax.random.split(KEY, 2)
    x, delta = (jax.random.normal(key, (64, 1, 16)) for key in keys)
    batch = {"x": jnp.concatenate([x, 1.0003 * x], 1), "delta": 1e4 * jnp.concatenate([delta, -delta], 1)}
    product = lambda w, batch, key: jnp.sum((batch["x"] @ w) * batch["delta"])  # noqa: E731
    sums = jax.jit(training.clipped_sum(product, 1.0))
    for number in range(64):
        found = sums(jnp.zeros((16, 16)), jax.tree.map(lambda leaf: leaf[number : number + 1], batch))  # noqa: B023
        assert 0 < norm(found.grads) <= 1 + 1e-5
    rows = {"ids": jnp.zeros((8, 2), int), "delta": 1e4 * jnp.concatenate([delta, -1.0003 * delta], 1)[:8]}
    looked_up = lambda w, batch, key: jnp.sum(w[batch["ids"]] * batch["delta"])  # noqa: E731
    found = training.clipped_sum(looked_up, 1e-3)(jnp.zeros((40, 16)), rows)
    assert norm(found.grads) <= 8e-3 * (1 + 1e-5)


def test_the_bound_holds_where_squares_would_vanish_or_overflow():
    product = lambda w, batch, key: jnp.sum((batch["x"] @ w) * batch["delta"])  # noqa: E731
    for x, delta in ((2e18, 1e-20), (1e-20, 2e18)):
        batch = {"x": jnp.full((1, 64), x), "delta": jnp.full((1, 512), delta)}
        found = training.clipped_sum(product, 1.0)(jnp.zeros((64, 512)), batch)
        np.testing.assert_allclose(found.norms, x * delta * np.sqrt(64 * 512), rtol=1e-4)
        assert norm(found.grads) <= 1 + 1e-5


def test_a_second_question_in_one_step_has_other_noise():
    linear = lambda w, batch, key: jnp.mean(batch @ w)  # noqa: E731
    loss = grad(private(linear, noise_multiplier=5.0))
    batch = jnp.array([[0.3, 0.4]])
    first, again, elsewhere = (loss(w, batch, KEY) for w in (jnp.zeros(2), jnp.zeros(2), jnp.array([0.0, 1e-6])))
    np.testing.assert_array_equal(first, again)
    assert jnp.all(first != elsewhere)


def test_no_chain_is_shown_the_exact_loss():
    far = lambda w, batch, key: jnp.mean((w - batch["x"]) ** 2)  # noqa: E731
    tx = optim.reduce_on_plateau()
    loss = private(far, max_norm=1e-6, noise_multiplier=0.0, expected_batch_size=1)
    seen = []
    for x in (1.0, 1000.0):
        state = training.init(jnp.array(0.0), tx, key=KEY)
        state, metrics = training.step(loss, tx, has_aux=True)(state, {"x": jnp.array([x])})
        seen.append(state.opt_state)
        assert metrics["exact_loss"] == pytest.approx(x**2)
    assert_same(*seen)


def test_noise_on_complex_numbers_has_the_deviation_in_both_parts():
    found = training.noised(jnp.zeros(100_000, jnp.complex64), 2.0, key=KEY)
    assert found.real.std() == pytest.approx(2, rel=0.02)
    assert found.imag.std() == pytest.approx(2, rel=0.02)


def test_sums_in_half_precision_are_refused():
    half = jnp.zeros(3, jnp.bfloat16)
    message = "expected params of at least float32, got bfloat16 at ''. Sums over examples would be rounded to that"
    with pytest.raises(TypeError, match=f"^clipped_sum: {message}"):
        training.clipped_sum(lambda w, batch, key: jnp.sum(w * batch), 1.0)(half, jnp.ones((2, 3)))
    with pytest.raises(TypeError, match=f"^gradient_noise_scale: {message}"):
        training.gradient_noise_scale(lambda w, batch, key: jnp.sum(w * batch))(half, jnp.ones((2, 3)))


def test_rows_that_were_not_drawn_are_zero():
    feed = training.poisson_batches({"x": np.arange(1.0, 101.0), "y": jnp.arange(100) + 1}, 0.05, key=KEY)
    batch = next(iter(feed))
    assert (batch["x"] == 0).sum() == (~batch["mask"]).sum() > 0
    assert jnp.all((batch["y"] == 0) == ~batch["mask"])


def test_the_mask_is_taken_out_of_the_batch_and_padding_counts_for_nothing():
    def strict(params: Any, batch: Any, key: Any) -> jax.Array:
        assert set(batch) == {"x", "y"}
        return loss_fn(params, batch, key)

    mask = jnp.arange(16) < 11
    loss = private(strict, mask="real", noise_multiplier=0.0)
    found = jax.value_and_grad(loss, has_aux=True)(PARAMS, DATA | {"real": mask}, KEY)
    alone = jax.tree.map(lambda leaf: leaf[:11], DATA)
    expected = jax.value_and_grad(private(noise_multiplier=0.0), has_aux=True)(PARAMS, alone, KEY)
    assert_close(found, expected)
    nobody = private(mask="real")
    (_, metrics), noise = jax.value_and_grad(nobody, has_aux=True)(PARAMS, DATA | {"real": mask & False}, KEY)
    assert metrics["exact_loss"] == 0
    assert norm(noise) > 0


def test_a_run_is_decided_by_its_key_and_draws_new_noise_at_every_step():
    tx = optim.sgd(1.0)
    step = jax.jit(training.step(private(noise_multiplier=5.0), tx, has_aux=True))
    state = training.init(PARAMS, tx, key=KEY)
    first, _ = step(state, DATA)
    again, _ = step(state, DATA)
    assert_same(first.params, again.params)
    second, _ = step(first._replace(params=PARAMS), DATA)
    assert norm(jax.tree.map(jnp.subtract, first.params, second.params)) > 0.1


def test_dropout_draws_another_mask_for_each_example_and_no_noise_from_its_key():
    net = nets.serial(nets.linear(8), nets.dropout(0.5), nets.linear(3))

    def dropped(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        return training.cross_entropy(net.apply(params, batch["x"], key=key, train=True), batch["y"])

    same_x = {"x": jnp.ones((16, 4)), "y": jnp.zeros(16, int)}
    norms = training.per_example_norms(dropped)(net.init(KEY, X), same_x, KEY)
    assert len(np.unique(norms)) > 8


def test_it_learns_under_any_chain():
    feed = training.poisson_batches(DATA, 0.5, key=KEY)
    loss = private(max_norm=1.0, noise_multiplier=0.01, expected_batch_size=feed.expected_size, mask="mask")
    tx = optim.chain(optim.clip_by_global_norm(10.0), optim.adam(0.05))
    state = training.init(PARAMS, tx, key=KEY)
    state, _ = training.fit(training.step(loss, tx, has_aux=True), state, feed, num_steps=150, progress=False)
    assert loss_fn(state.params, DATA, None) < 0.5 * loss_fn(PARAMS, DATA, None)


def test_it_prints_compares_and_pickles_as_its_call():
    assert private() == private()
    assert hash(private()) == hash(private())
    assert private() != private(noise_multiplier=2.0)
    assert repr(private()) == "private(loss_fn, 0.5, noise_multiplier=1.0, expected_batch_size=16, mask=None)"
    assert pickle.loads(pickle.dumps(private())) == private()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: private(max_norm=0), "private: expected max_norm to be a number above 0, got 0"),
        (lambda: private(max_norm=-1.0), "private: expected max_norm to be a number above 0, got -1.0"),
        (
            lambda: private(max_norm=np.float32(-1.0)),
            "private: expected max_norm to be a number above 0, got np.float32(-1.0)",
        ),
        (
            lambda: private(noise_multiplier=jnp.array(-2.0)),
            "private: expected noise_multiplier to be a number of at least 0, got Array(-2., ",
        ),
        (
            lambda: private(noise_multiplier=-0.1),
            "private: expected noise_multiplier to be a number of at least 0, got -0.1",
        ),
        (
            lambda: private(expected_batch_size=0),
            "private: expected expected_batch_size to be a number above 0, got 0",
        ),
        (lambda: training.noised(X, -1.0, key=KEY), "noised: expected stddev to be a number of at least 0, got -1.0"),
        (
            lambda: private()(PARAMS, DATA, None),
            "private: expected a key for the noise, got None. Give training.init a key.",
        ),
        (
            lambda: private(mask="mask")(PARAMS, DATA, KEY),
            "private: expected batch to be a dict with the mask 'mask', got ['x', 'y']. Give mask=None if all examples "
            "of a batch are real.",
        ),
        (
            lambda: private(mask="mask")(PARAMS, (X, X), KEY),
            "private: expected batch to be a dict with the mask 'mask', got tuple",
        ),
    ],
)
def test_private_refuses_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make()


def test_each_example_is_drawn_with_its_rate_and_by_itself():
    num, rate, steps = 50, 0.1, 300
    feed = training.poisson_batches({"i": np.arange(num)}, rate, key=KEY)
    drawn = np.zeros((steps, num))
    for step, batch in enumerate(itertools.islice(feed, steps)):
        assert batch["i"].shape == batch["mask"].shape == (feed.max_size,)
        drawn[step, batch["i"][batch["mask"]]] = 1
    assert abs(drawn.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / drawn.size)
    sizes = drawn.sum(1)
    assert 0.7 < sizes.var() / (num * rate * (1 - rate)) < 1.4
    assert feed.expected_size == pytest.approx(5)


def test_poisson_batches_go_on_where_they_stopped():
    feed = training.poisson_batches(DATA, 0.3, key=KEY, mask="real")
    later = next(feed.starting_at(7))
    assert_same(later, next(itertools.islice(feed, 7, None)))
    assert set(later) == {"x", "y", "real"}
    everyone = next(iter(training.poisson_batches(DATA, 1.0, key=KEY)))
    assert everyone["mask"].all()
    assert_close(everyone["x"], X)


@pytest.mark.parametrize(("num", "rate"), [(1000, 0.01), (60000, 0.004), (100, 0.5), (3, 0.9), (10, 1.0)])
def test_a_batch_is_as_large_as_hardly_any_draw(num, rate):
    stats = pytest.importorskip("scipy.stats")
    size = training.poisson_batches({"x": np.zeros(num)}, rate, key=KEY).max_size
    assert stats.binom.sf(size, num, rate) < 1e-9
    assert size == num or size < 2.5 * num * rate + 40


def test_more_examples_than_rows_are_refused_and_not_cut():
    feed = training.poisson_batches(DATA, 0.9, key=KEY, max_size=4)
    message = (
        r"^poisson_batches: expected at most 4 examples at step 0, got \d+. "
        "Give a larger max_size: leaving some out would not be what the accounting counts on.$"
    )
    with pytest.raises(ValueError, match=message):
        next(iter(feed))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (DATA, {"rate": 0.0}, "poisson_batches: expected rate to be a number in (0, 1], got 0.0"),
        (DATA, {"rate": 1.5}, "poisson_batches: expected rate to be a number in (0, 1], got 1.5"),
        (
            DATA,
            {"rate": 0.5, "max_size": 0},
            "poisson_batches: expected max_size to be an integer of at least 1, got 0",
        ),
        (
            DATA,
            {"rate": 0.5, "mask": "x"},
            "poisson_batches: expected data to be a dict without 'x', got ['x', 'y']",
        ),
        ([X], {"rate": 0.5}, "poisson_batches: expected data to be a dict without 'mask', got list"),
    ],
)
def test_poisson_batches_refuse_what_makes_no_sense(data, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.poisson_batches(data, key=KEY, **options)


def test_the_accountant_gives_the_known_values():
    assert training.epsilon(1.5, 0.04, 2250, delta=1e-5) == pytest.approx(7.32911117, abs=1e-8)  # Opacus, RDP
    assert training.noise_multiplier(8.0, 0.04, 2250, delta=1e-5) == pytest.approx(1.416, abs=1e-3)
    assert training.noise_multiplier(8.0, 0.04, 2000, delta=1e-5) == pytest.approx(1.3562, abs=1e-3)
    assert training.epsilon(1.5, 0.04, 0, delta=1e-5) == 0


def test_the_accountant_by_loss_distributions_gives_the_known_values():
    pytest.importorskip("dp_accounting")
    # Opacus's own computation errs by up to 0.01.
    assert training.epsilon(1.5, 0.04, 2249, delta=1e-5, accountant="pld") == pytest.approx(6.7773957, abs=0.012)
    found = training.noise_multiplier(8.0, 0.04, 2250, delta=1e-5, accountant="pld")
    assert found == pytest.approx(1.34765625, abs=2e-3)


@pytest.mark.parametrize("noise", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("rate", [1e-4, 0.05, 0.9])
def test_divergences_are_those_of_dp_accounting(noise, rate):
    dp = pytest.importorskip("dp_accounting")
    orders = [2, 3, 8, 32, 63, 256]
    event = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), 100)
    theirs = dp.rdp.RdpAccountant(orders).compose(event).get_epsilon(1e-6)
    # Theirs has fewer orders to choose from, of which the least epsilon is taken.
    assert training.epsilon(noise, rate, 100, delta=1e-6) <= theirs * (1 + 1e-7)


def test_epsilon_of_a_single_step_of_all_examples_is_that_of_the_gaussian_mechanism():
    stats = pytest.importorskip("scipy.stats")
    noise, delta = 4.0, 1e-5
    spent = training.epsilon(noise, 1.0, 1, delta=delta)
    # Balle, Wang 2018, theorem 8: the exact delta at this epsilon.
    exact = stats.norm.cdf(0.5 / noise - spent * noise) - np.exp(spent) * stats.norm.cdf(-0.5 / noise - spent * noise)
    assert exact <= delta
    assert exact > delta / 20


def test_more_noise_fewer_steps_and_rarer_draws_give_away_less():
    base = training.epsilon(1.0, 0.02, 500, delta=1e-5)
    assert training.epsilon(1.1, 0.02, 500, delta=1e-5) < base
    assert training.epsilon(1.0, 0.01, 500, delta=1e-5) < base
    assert training.epsilon(1.0, 0.02, 400, delta=1e-5) < base
    least = training.noise_multiplier(base, 0.02, 500, delta=1e-5)
    assert least == pytest.approx(1.0, abs=1e-3)
    assert training.epsilon(least, 0.02, 500, delta=1e-5) <= base


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: training.epsilon(0, 0.1, 10, delta=1e-5),
            "epsilon: expected noise_multiplier to be a number above 0, got 0",
        ),
        (
            lambda: training.epsilon(1.0, 0.0, 10, delta=1e-5),
            "epsilon: expected sample_rate to be a number in (0, 1], got 0.0",
        ),
        (
            lambda: training.epsilon(1.0, 0.1, -1, delta=1e-5),
            "epsilon: expected num_steps to be an integer of at least 0, got -1",
        ),
        (lambda: training.epsilon(1.0, 0.1, 1, delta=2.0), "epsilon: expected delta to be a number in (0, 1), got 2.0"),
        (
            lambda: training.epsilon(1.0, 0.1, 1, delta=1e-5, accountant="gdp"),  # pyright: ignore[reportArgumentType]
            "epsilon: expected accountant to be one of ['rdp', 'pld'], got 'gdp'",
        ),
        (
            lambda: training.noise_multiplier(0, 0.1, 1, delta=1e-5),
            "noise_multiplier: expected epsilon to be a number above 0, got 0",
        ),
        (
            lambda: training.noise_multiplier(1.0, 0.1, 0, delta=1e-5),
            "noise_multiplier: expected num_steps to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.noise_multiplier(1e-9, 0.5, 1000, delta=1e-12),
            "noise_multiplier: expected an epsilon that 'rdp' can show for some noise at delta 1e-12, got 1e-09. The "
            "accountant 'pld' is tighter.",
        ),
    ],
)
def test_the_accountant_refuses_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_without_the_library_its_accountant_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    message = "epsilon: expected dp-accounting for 'pld', got none. pip install 'renga[privacy]'"
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        training.epsilon(1.0, 0.1, 1, delta=1e-5, accountant="pld")
