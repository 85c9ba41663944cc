"""Returns against loops over every step, closed forms, and one another."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga.training import rl

NUM_STEPS, NUM_ENVS = 9, 7
DRAW = np.random.default_rng(0)
SHAPE = (NUM_STEPS, NUM_ENVS)
REWARDS, VALUES, NEXT_VALUES, LOG_RATIOS = DRAW.normal(size=(4, *SHAPE))
TERMINATED, TRUNCATED = DRAW.uniform(size=(2, *SHAPE)) < 0.15
TERMINATED[:, 0] = TRUNCATED[:, 0] = False  # one trajectory without an end, one of ends alone
TERMINATED[:, 1], TRUNCATED[-1, 2], TERMINATED[-1, 3] = True, True, True
TERMINATED[4, 4] = TRUNCATED[4, 4] = True  # both at once: a termination
ENDED = TERMINATED | TRUNCATED
VALUES[1:] = np.where(ENDED[:-1], VALUES[1:], NEXT_VALUES[:-1])  # the next observation of a step is that of the next
FLAGS = {"terminated": TERMINATED, "truncated": TRUNCATED}
NEVER = {"terminated": np.zeros(5, bool), "truncated": np.zeros(5, bool)}
DISCOUNTS, DECAYS = DRAW.uniform(0.5, 1, size=(2, *SHAPE))


@pytest.fixture(autouse=True)
def _in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def by_hand(env: int, value: Callable[[int, int], float]) -> list[float]:
    """`value(first, end)` of every step, where `end` is the last step that the first one has anything of."""
    ends = [next((u for u in range(t, NUM_STEPS) if ENDED[u, env]), NUM_STEPS - 1) for t in range(NUM_STEPS)]
    return [value(t, end) for t, end in enumerate(ends)]


def product(rates: np.ndarray, env: int, start: int, stop: int) -> float:
    return float(np.prod(rates[start:stop, env]))


def n_step(env: int, t: int, n: int, discounts: np.ndarray) -> float:
    """The n-step return as a sum, cut off at `t + n` steps."""
    total = sum(product(discounts, env, t, u) * REWARDS[u, env] for u in range(t, t + n))
    after = 0.0 if TERMINATED[t + n - 1, env] else NEXT_VALUES[t + n - 1, env]
    return total + product(discounts, env, t, t + n) * after


def lambda_mean(env: int, t: int, end: int, discounts: np.ndarray, decays: np.ndarray) -> float:
    """The mean of n-step returns of all lengths, as TD(λ) is defined."""
    total = 0.0
    for n in range(1, end - t + 2):
        reached = product(decays, env, t, t + n - 1)
        share = 1.0 if t + n - 1 == end else 1 - decays[t + n - 1, env]
        total += reached * share * n_step(env, t, n, discounts)
    return total


def error(env: int, t: int, discounts: np.ndarray, values: np.ndarray = VALUES) -> float:
    after = 0.0 if TERMINATED[t, env] else NEXT_VALUES[t, env]
    return REWARDS[t, env] + discounts[t, env] * after - values[t, env]


def table(of_env: Callable[[int], list[float]]) -> np.ndarray:
    return np.stack([of_env(env) for env in range(NUM_ENVS)], 1)


CASES: dict[str, tuple[Any, Any]] = {
    "numbers": (0.9, 0.7),
    "a number for each step": (DISCOUNTS, DECAYS),
    "no discount": (1.0, 1.0),
    "nothing of the future": (0.0, 0.0),
}


def full(rate: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(rate, float), SHAPE)


@pytest.mark.parametrize(("discount", "decay"), CASES.values(), ids=CASES.keys())
def test_returns_are_their_definitions_as_sums(discount: Any, decay: Any):
    discounts, decays = full(discount), full(decay)

    def all_the_way(env: int) -> list[float]:
        return by_hand(env, lambda t, end: n_step(env, t, end - t + 1, discounts))

    def of_two(env: int) -> list[float]:
        return by_hand(env, lambda t, end: n_step(env, t, min(2, end - t + 1), discounts))

    def of_lambda(env: int) -> list[float]:
        return by_hand(env, lambda t, end: lambda_mean(env, t, end, discounts, decays))

    found = jax.jit(rl.discounted_returns)(REWARDS, **FLAGS, discount=discount, next_values=NEXT_VALUES)
    np.testing.assert_allclose(found, table(all_the_way), rtol=1e-12, atol=1e-12)
    found = rl.n_step_returns(REWARDS, NEXT_VALUES, num_steps=2, **FLAGS, discount=discount)
    np.testing.assert_allclose(found, table(of_two), rtol=1e-12, atol=1e-12)
    found = jax.jit(rl.lambda_returns)(REWARDS, NEXT_VALUES, **FLAGS, discount=discount, decay=decay)
    np.testing.assert_allclose(found, table(of_lambda), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("discount", "decay"), CASES.values(), ids=CASES.keys())
def test_advantages_are_sums_of_errors(discount: Any, decay: Any):
    discounts, decays = full(discount), full(decay)

    def summed(env: int) -> list[float]:
        def value(t: int, end: int) -> float:
            weight = [product(discounts * decays, env, t, u) for u in range(t, end + 1)]
            return sum(w * error(env, u, discounts) for w, u in zip(weight, range(t, end + 1), strict=True))

        return by_hand(env, value)

    found = jax.jit(rl.gae)(REWARDS, VALUES, NEXT_VALUES, **FLAGS, discount=discount, decay=decay)
    np.testing.assert_allclose(found.advantages, table(summed), rtol=1e-12, atol=1e-12)
    returns = rl.lambda_returns(REWARDS, NEXT_VALUES, **FLAGS, discount=discount, decay=decay)
    np.testing.assert_allclose(found.targets, returns, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (2.0, 0.8), (np.inf, np.inf)])
@pytest.mark.parametrize(("discount", "decay"), CASES.values(), ids=CASES.keys())
def test_vtrace_is_its_equation_1_as_a_sum(discount: Any, decay: Any, rho_bar: float, c_bar: float):
    discounts, decays = full(discount), full(decay)
    rho, c = np.minimum(rho_bar, np.exp(LOG_RATIOS)), decays * np.minimum(c_bar, np.exp(LOG_RATIOS))

    def targets(env: int) -> list[float]:
        def value(t: int, end: int) -> float:
            return VALUES[t, env] + sum(
                product(discounts * c, env, t, u) * rho[u, env] * error(env, u, discounts) for u in range(t, end + 1)
            )

        return by_hand(env, value)

    expected = table(targets)

    def advantages(env: int) -> list[float]:
        def value(t: int, end: int) -> float:
            ahead = NEXT_VALUES[t, env] if t == end else expected[t + 1, env]
            ahead = 0.0 if TERMINATED[t, env] else ahead
            return rho[t, env] * (REWARDS[t, env] + discounts[t, env] * ahead - VALUES[t, env])

        return by_hand(env, value)

    found = jax.jit(functools.partial(rl.vtrace, rho_bar=rho_bar, c_bar=c_bar))(
        REWARDS, VALUES, NEXT_VALUES, log_ratios=LOG_RATIOS, **FLAGS, discount=discount, decay=decay
    )
    np.testing.assert_allclose(found.targets, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.advantages, table(advantages), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("discount", "decay"), CASES.values(), ids=CASES.keys())
def test_retrace_is_its_equation_3_as_a_sum(discount: Any, decay: Any):
    discounts, c = full(discount), full(decay) * np.minimum(1, np.exp(LOG_RATIOS))
    actions = DRAW.normal(size=SHAPE)  # values of actions, which are not the means over them

    def targets(env: int) -> list[float]:
        def value(t: int, end: int) -> float:
            return actions[t, env] + sum(
                product(discounts, env, t, u) * product(c, env, t + 1, u + 1) * error(env, u, discounts, actions)
                for u in range(t, end + 1)
            )

        return by_hand(env, value)

    found = jax.jit(rl.retrace)(
        REWARDS, actions, NEXT_VALUES, log_ratios=LOG_RATIOS, **FLAGS, discount=discount, decay=decay
    )
    np.testing.assert_allclose(found, table(targets), rtol=1e-12, atol=1e-12)


def test_all_of_them_coincide_where_theory_says_so():
    found = functools.partial(rl.lambda_returns, REWARDS, NEXT_VALUES, **FLAGS, discount=0.9)
    n_steps = functools.partial(rl.n_step_returns, REWARDS, NEXT_VALUES, **FLAGS, discount=0.9)
    everything = rl.discounted_returns(REWARDS, **FLAGS, discount=0.9, next_values=NEXT_VALUES)
    zero = np.zeros(SHAPE)
    off_policy = {"log_ratios": zero, **FLAGS, "discount": 0.9}
    same = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    same(n_steps(num_steps=1), found(decay=0.0))
    same(n_steps(num_steps=NUM_STEPS), everything)
    same(n_steps(num_steps=10 * NUM_STEPS), everything)
    same(found(decay=1.0), everything)
    same(rl.gae(REWARDS, VALUES, NEXT_VALUES, **FLAGS, discount=0.9, decay=1.0).targets, everything)
    same(rl.vtrace(REWARDS, VALUES, NEXT_VALUES, **off_policy).targets, everything)
    same(rl.vtrace(REWARDS, VALUES, NEXT_VALUES, **off_policy, decay=0.7).targets, found(decay=0.7))
    same(rl.retrace(REWARDS, VALUES, NEXT_VALUES, **off_policy, decay=0.7), found(decay=0.7))
    far = {**off_policy, "log_ratios": np.full(SHAPE, -np.inf)}  # what would never be done now teaches nothing
    same(rl.vtrace(REWARDS, VALUES, NEXT_VALUES, **far).targets, VALUES)
    same(rl.retrace(REWARDS, VALUES, NEXT_VALUES, **far), found(decay=0.0))


def test_a_constant_reward_has_the_return_of_a_geometric_series():
    flags = {"terminated": np.zeros(50, bool), "truncated": np.zeros(50, bool)}
    series = (1 - 0.9 ** np.arange(50, 0, -1)) / (1 - 0.9)
    np.testing.assert_allclose(rl.discounted_returns(np.ones(50), **flags, discount=0.9), series, rtol=1e-12)
    forever = np.full(50, 10.0)  # the value of 1 each step without an end, which no return may change
    for decay in (0.0, 0.3, 1.0):
        found = rl.lambda_returns(np.ones(50), forever, **flags, discount=0.9, decay=decay)
        np.testing.assert_allclose(found, forever, rtol=1e-12)
        found = rl.gae(np.ones(50), forever, forever, **flags, discount=0.9, decay=decay)
        np.testing.assert_allclose(found.advantages, 0, atol=1e-12)


def everything(arrays: Any, rates: Any) -> list[Any]:
    (rewards, values, next_values, log_ratios), (discount, decay) = arrays, rates
    flags = FLAGS if np.shape(rewards) == SHAPE else {name: flag[:, 4] for name, flag in FLAGS.items()}
    off_policy = {**flags, "log_ratios": log_ratios, "discount": discount, "decay": decay}
    return [
        rl.discounted_returns(rewards, **flags, discount=discount, next_values=next_values),
        rl.lambda_returns(rewards, next_values, **flags, discount=discount, decay=decay),
        rl.n_step_returns(rewards, next_values, num_steps=3, **flags, discount=discount),
        rl.gae(rewards, values, next_values, **flags, discount=discount, decay=decay),
        rl.vtrace(rewards, values, next_values, **off_policy, rho_bar=1.5),
        rl.retrace(rewards, values, next_values, **off_policy),
    ]


INPUTS = (REWARDS, VALUES, NEXT_VALUES, LOG_RATIOS)


def test_derivatives_are_those_of_finite_differences():
    arrays = tuple(array[:, 4] for array in INPUTS)
    weights = DRAW.normal(size=(8, NUM_STEPS))
    at = np.concatenate([*arrays, [0.9, 0.7]])

    @jax.jit
    def total(at: jax.Array) -> jax.Array:
        outputs = jax.tree.leaves(everything(jnp.split(at[:-2], 4), at[-2:]))
        return jnp.sum(jnp.stack(outputs) * weights)

    slopes, step = jax.jit(jax.grad(total))(at), 1e-6
    found = [(total(at + step * unit) - total(at - step * unit)) / (2 * step) for unit in np.eye(len(at))]
    np.testing.assert_allclose(slopes, found, rtol=1e-6, atol=1e-7)


def test_the_derivative_by_the_decay_is_right_at_1():
    def total(decay: Any) -> jax.Array:
        return rl.lambda_returns(REWARDS, NEXT_VALUES, **FLAGS, discount=0.9, decay=decay).sum()

    np.testing.assert_allclose(jax.grad(total)(1.0), (total(jnp.array(1.0)) - total(1 - 1e-6)) / 1e-6, rtol=1e-4)


def test_one_trajectory_many_and_more_axes_give_the_same():
    together = jax.jit(everything)(INPUTS, (0.9, 0.7))
    column = everything([array[:, 4] for array in INPUTS], (0.9, 0.7))
    jax.tree.map(lambda one, all: np.testing.assert_allclose(one, all[:, 4], rtol=1e-12), column, together)
    rates = jnp.array([0.9, 0.5]), jnp.array([0.7, 0.2])
    mapped = jax.vmap(everything, (None, 0))(INPUTS, rates)  # over hyper-parameters
    jax.tree.map(lambda all, each: np.testing.assert_allclose(all, each[0], rtol=1e-12), together, mapped)
    folded = {name: flag[..., None] for name, flag in FLAGS.items()}
    rewards, values, next_values = (array[..., None] for array in INPUTS[:3])
    found = rl.gae(rewards, values, next_values, **folded, discount=0.9, decay=0.7)
    np.testing.assert_allclose(found.advantages[..., 0], together[3].advantages, rtol=1e-12)


def test_what_stands_after_an_end_does_not_leak_back_were_it_nan():
    clean = tuple(jnp.asarray(array[:, 4]) for array in INPUTS[:3])
    rewards, values, next_values = clean
    nan = jnp.nan  # environment 4 terminates at step 4
    dirty = rewards.at[5:].set(nan), values.at[5:].set(nan), next_values.at[4:].set(nan)
    flags = {name: flag[:, 4] for name, flag in FLAGS.items()}

    def of(rewards: Any, values: Any, next_values: Any) -> jax.Array:
        return rl.gae(rewards, values, next_values, **flags, discount=0.9, decay=0.7).advantages[:5]

    np.testing.assert_allclose(of(*dirty), of(*clean), rtol=1e-12)
    slopes = jax.grad(lambda *arrays: of(*arrays).sum(), (0, 1, 2))(*dirty)
    assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)


def test_half_precision_is_summed_in_single_precision():
    rewards = jnp.ones(400, jnp.bfloat16)
    never = {"terminated": np.zeros(400, bool), "truncated": np.zeros(400, bool)}
    found = rl.discounted_returns(rewards, **never, discount=1.0)
    assert found.dtype == jnp.float32
    assert found.tolist() == list(range(400, 0, -1))


def test_dtypes_are_those_of_the_arrays():
    arrays = tuple(jnp.asarray(array, jnp.float32) for array in INPUTS)
    found = jax.tree.leaves(everything(arrays, (np.float64(0.9), np.float64(0.7))))
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}
    for single, double in zip(found, jax.tree.leaves(everything(INPUTS, (0.9, 0.7))), strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)
    with jax.enable_x64(False):
        found = rl.discounted_returns(jnp.ones(5, jnp.int32), **NEVER, discount=0.5)
        assert found.dtype == jnp.float32
        assert found.tolist() == [1.9375, 1.875, 1.75, 1.5, 1.0]


REFUSED: dict[str, tuple[type[Exception], Callable[[], Any], str]] = {
    "no time": (
        ValueError,
        lambda: rl.discounted_returns(1.0, **NEVER, discount=0.9),
        "discounted_returns: expected rewards [time, ...] of at least one step, got shape ().",
    ),
    "no step": (
        ValueError,
        lambda: rl.discounted_returns(np.zeros((0, 2)), **NEVER, discount=0.9),
        "discounted_returns: expected rewards [time, ...] of at least one step, got shape (0, 2).",
    ),
    "values of one step more": (
        ValueError,
        lambda: rl.gae(np.ones(5), np.ones(6), np.ones(5), **NEVER, discount=0.9, decay=0.9),
        "gae: expected values of the shape of rewards, (5,), got (6,). Give one for each reward, time first.",
    ),
    "flags of another shape": (
        ValueError,
        lambda: rl.lambda_returns(np.ones((5, 2)), np.ones((5, 2)), **NEVER, discount=0.9, decay=0.9),
        "lambda_returns: expected terminated of the shape of rewards, (5, 2), got (5,). Give one for each reward, time "
        "first.",
    ),
    "flags as numbers": (
        TypeError,
        lambda: rl.retrace(*np.ones((3, 5)), log_ratios=np.ones(5), **(NEVER | {"truncated": np.ones(5)}), discount=1),
        "retrace: expected truncated as Booleans, got float64. Give array.astype(bool).",
    ),
    "a discount above 1": (
        ValueError,
        lambda: rl.n_step_returns(np.ones(5), np.ones(5), num_steps=1, **NEVER, discount=1.5),
        "n_step_returns: expected discount in [0, 1], got 1.5.",
    ),
    "a decay of another shape": (
        ValueError,
        lambda: rl.gae(*np.ones((3, 5)), **NEVER, discount=0.9, decay=np.ones(4)),
        "gae: expected decay with a shape of () or (5,), got (4,). Give one number, or one for each reward.",
    ),
    "no steps": (
        ValueError,
        lambda: rl.n_step_returns(np.ones(5), np.ones(5), num_steps=0, **NEVER, discount=0.9),
        "n_step_returns: expected num_steps to be an integer of at least 1, got 0",
    ),
    "a bound of nothing": (
        ValueError,
        lambda: rl.vtrace(*np.ones((3, 5)), log_ratios=np.ones(5), **NEVER, discount=0.9, rho_bar=0.0),
        "vtrace: expected rho_bar above 0, got 0.0.",
    ),
}


@pytest.mark.parametrize(("error", "call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(error: type[Exception], call: Callable[[], Any], message: str):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
