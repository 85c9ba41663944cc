"""Extragradient, optimism, anchors and averages: their known rates on the game f = xy, and loops in NumPy."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from renga import optim

from .games import bilinear, play, step
from .trees import assert_close

SGD = optim.sgd


def ones() -> dict[str, jax.Array]:
    return {"x": jnp.ones(()), "y": jnp.ones(())}


def norms_of(path: Any) -> np.ndarray:
    """Distances to the solution of `f = xy`."""
    return np.hypot(path["x"], path["y"])


def radius_of(linear: Callable[[Any], Any], point: Any) -> float:
    """By how much a linear map makes a point longer, applied over and over."""
    flat, back = ravel_pytree(point)
    matrix = jax.jacobian(lambda flat: ravel_pytree(linear(back(flat)))[0])(flat)
    return np.abs(np.linalg.eigvals(matrix)).max().item()


RATES = {
    "simultaneous": (lambda eta: SGD(eta), {0.1: 1.004988, 0.5: 1.118034}),
    "extragradient": (lambda eta: optim.extragradient(SGD(eta)), {0.1: 0.995038, 0.5: 0.901388}),
    "extragradient+": (lambda eta: optim.extragradient_plus(SGD(eta)), {0.1: 0.985089, 0.5: 0.707107}),
    "stretched": (lambda eta: optim.extragradient(SGD(eta), stretch=2.0), {0.1: 0.985089, 0.5: 0.707107}),
    "one state": (lambda eta: optim.extragradient(SGD(eta), moments="second"), {0.1: 0.995038, 0.5: 0.901388}),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("eta", [0.1, 0.5])
@pytest.mark.parametrize("name", RATES)
def test_every_step_on_the_bilinear_game_has_the_known_rate(name: str, eta: float):
    build, rates = RATES[name]
    norms = norms_of(play(build(eta), bilinear, ones(), 40))
    np.testing.assert_allclose(norms[1:] / norms[:-1], rates[eta], atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("beta", [0.25, 0.5, 0.9, 1.0])
def test_extragradient_plus_steps_by_its_equation(beta: float):
    eta = 0.3
    path = play(optim.extragradient_plus(SGD(eta), beta=beta), bilinear, ones(), 5)
    z = np.array([1.0, 1.0])
    field = lambda z: np.array([z[1], -z[0]])  # noqa: E731
    for _ in range(5):
        z = z - eta * field(z - eta / beta * field(z))
    np.testing.assert_allclose([path["x"][-1], path["y"][-1]], z, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "rate"), [(0.1, 0.994936), (0.5, 0.707107)])
@pytest.mark.parametrize(
    "build", [lambda eta: optim.past_extragradient(SGD(eta)), optim.optimistic_gradient], ids=["past", "optimistic"]
)
def test_past_and_optimistic_gradients_contract_at_the_known_rate(build: Any, eta: float, rate: float):
    tx = build(eta)
    params, later = step(tx, bilinear, ones(), tx.init(ones()))

    def steps(z: Any) -> Any:
        # Of the state only what the step before left varies; whether there was one does not.
        state = later._replace(**{memory: z["before"]})
        params, state = step(tx, bilinear, z["params"], state)
        return {"params": params, "before": getattr(state, memory)}

    memory = "previous" if build is optim.optimistic_gradient else "ahead"
    assert radius_of(steps, {"params": params, "before": getattr(later, memory)}) == pytest.approx(rate, abs=1e-6)
    roots = np.abs(np.roots([1, -(1 - 2j * eta), -1j * eta]))
    assert max(roots) == pytest.approx(rate, abs=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("first_step", ["zero", "same"])
def test_past_extragradient_with_descent_is_optimistic(first_step: Any):
    past = play(optim.past_extragradient(SGD(0.3), first_step=first_step), bilinear, ones(), 30)
    optimistic = play(optim.optimistic_gradient(0.3, first_step=first_step), bilinear, ones(), 30)
    assert_close(past, optimistic, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_past_extragradient_is_ahead_of_its_iterate_by_the_step_before():
    eta, tx = 0.3, optim.past_extragradient(SGD(0.3))
    z, ahead, state, params = np.array([1.0, 1.0]), np.array([1.0, 1.0]), tx.init(ones()), ones()
    for _ in range(6):
        params, state = step(tx, bilinear, params, state)
        field = np.array([ahead[1], -ahead[0]])
        z = z - eta * field
        ahead = z - eta * field
        shown = optim.eval_params(state, params)
        np.testing.assert_allclose([params["x"], params["y"]], ahead, rtol=1e-12)
        np.testing.assert_allclose([shown["x"], shown["y"]], z, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_it_converges_below_and_diverges_above_the_known_step_size():
    paths = (play(optim.past_extragradient(SGD(eta)), bilinear, ones(), 400) for eta in (0.5716, 0.5831))
    below, above = map(norms_of, paths)
    assert below[400] < 0.1 * below[100]
    assert above[400] > 10 * above[100]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "rate"), [(0.1, 0.998518), (0.5, 0.962544)])
def test_negative_momentum_contracts_where_players_move_in_turn(eta: float, rate: float):
    tx = optim.negative_momentum(eta)

    def turn(z: Any) -> Any:
        update, x_state = tx.update(z["y"], z["x_state"])
        x = z["x"] + update
        update, y_state = tx.update(-x, z["y_state"])
        return {"x": x, "y": z["y"] + update, "x_state": x_state, "y_state": y_state}

    one = jnp.ones(())
    start = {"x": one, "y": one, "x_state": tx.init(one), "y_state": tx.init(one)}
    assert radius_of(turn, start) == pytest.approx(rate, abs=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "rate"), [(0.1, 1.000743), (0.5, 1.020054)])
def test_negative_momentum_diverges_where_players_move_at_once(eta: float, rate: float):
    tx = optim.negative_momentum(eta)
    assert radius_of(lambda z: step(tx, bilinear, *z), (ones(), tx.init(ones()))) == pytest.approx(rate, abs=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "rate"), [(0.1, 0.57318), (0.5, 4.163)])
def test_lookahead_over_all_players_has_the_known_rate(eta: float, rate: float):
    norms = norms_of(play(optim.lookahead(SGD(eta), 20, 0.5), bilinear, ones(), 100))[::20]
    exact = abs(0.5 + 0.5 * (1 - 1j * eta) ** 20)
    assert exact == pytest.approx(rate, abs=5e-4 if rate > 1 else 5e-6)
    np.testing.assert_allclose(norms[1:] / norms[:-1], exact, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_anchored_the_square_of_the_gradient_falls_as_one_over_k_squared():
    norms = norms_of(play(optim.anchored(SGD(1 / 8)), bilinear, ones(), 1000))
    constant = (np.arange(1001) + 1) ** 2 * norms**2 / norms[0] ** 2
    assert constant[1000] == pytest.approx(63.96, abs=5e-3)
    assert max(constant) < 260


@pytest.mark.usefixtures("float64")
def test_anchored_steps_by_its_equation():
    eta, z0 = 0.2, np.array([1.0, 1.0])
    field, z = lambda z: np.array([z[1], -z[0]]), z0
    for k in range(6):
        half = z + (z0 - z) / (k + 2) - eta * field(z)
        z = z + (z0 - z) / (k + 2) - eta * field(half)
    path = play(optim.anchored(SGD(eta)), bilinear, ones(), 6)
    np.testing.assert_allclose([path["x"][-1], path["y"][-1]], z, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("moments", ["both", "second"])
def test_over_adam_extragradient_equals_a_loop_in_numpy(moments: Any):
    eta, b1, b2, eps = 0.1, 0.5, 0.9, 1e-8
    field, z = lambda z: np.array([z[1], -z[0]]), np.array([1.0, 1.0])
    state = (0, np.zeros(2), np.zeros(2))

    def adam(g: np.ndarray, state: Any) -> Any:
        t, m, v = state[0] + 1, b1 * state[1] + (1 - b1) * g, b2 * state[2] + (1 - b2) * g**2
        return -eta * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps), (t, m, v)

    for _ in range(6):
        ahead, seen = adam(field(z), state)
        update, state = adam(field(z + ahead), seen if moments == "both" else state)
        z = z + update
    path = play(optim.extragradient(optim.adam(eta, b1=b1, b2=b2), moments=moments), bilinear, ones(), 6)
    np.testing.assert_allclose([path["x"][-1], path["y"][-1]], z, rtol=1e-10)


@pytest.mark.parametrize(("moments", "count"), [("both", 6), ("second", 3)])
def test_the_state_of_the_base_counts_the_gradients_that_it_sees(moments: Any, count: int):
    tx = optim.extragradient(SGD(lambda step: 0.1 / (1 + step)), moments=moments)
    params, state = ones(), tx.init(ones())
    for _ in range(3):
        params, state = step(tx, bilinear, params, state)
    assert optax.tree.get(state, "count") == count


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("first_step", ["zero", "same"])
def test_optimistic_adam_equals_a_loop_in_numpy(first_step: Any):
    eta, b1, b2, eps = 0.1, 0.5, 0.9, 1e-8
    z, m, v, before = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, 7):
        g = np.array([z[1], -z[0]])
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        now = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        before = now if first_step == "same" and t == 1 else before
        z, before = z - 2 * eta * now + eta * before, now
    path = play(optim.optimistic_adam(eta, b1, b2, eps, first_step=first_step), bilinear, ones(), 6)
    np.testing.assert_allclose([path["x"][-1], path["y"][-1]], z, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rate", [0.01, optim.cosine_decay_schedule(0.01, 20)], ids=["constant", "schedule"])
def test_optimistic_adam_from_the_same_is_optaxs_without_nesterov(rate: Any):
    ours = play(optim.optimistic_adam(rate, first_step="same"), bilinear, ones(), 20)
    theirs = play(optax.optimistic_adam_v2(rate, nesterov=False), bilinear, ones(), 20)
    assert_close(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_optimistic_adam_of_half_precision_has_moments_of_single_precision(dtype: Any):
    params = jnp.zeros(3, dtype)
    tx: Any = optim.optimistic_adam(0.1)
    # The square of the smallest one is zero in float16, and so is eps.
    updates, state = tx.update(jnp.array([0.0, 1e-4, 1.0], dtype), tx.init(params), params)
    assert updates.dtype == dtype
    np.testing.assert_allclose(updates.astype(jnp.float32), [0.0, -0.2, -0.2], rtol=1e-2)
    moments = [optax.tree.get(state, name) for name in ("mu", "nu")]
    assert {leaf.dtype for leaf in jax.tree.leaves(moments)} == {jnp.dtype("float32")}


def links() -> dict[str, Any]:
    return {
        "optimistic_gradient": optim.optimistic_gradient(0.1),
        "optimistic_gradient from zero": optim.optimistic_gradient(0.1, first_step="zero"),
        "optimistic_adam": optim.optimistic_adam(0.1),
        "negative_momentum": optim.negative_momentum(0.1),
        "extragradient": optim.extragradient(SGD(0.1)),
        "extragradient with one state": optim.extragradient(SGD(0.1, momentum=0.9), moments="second"),
        "extragradient of optimistic adam": optim.extragradient(optim.optimistic_adam(0.1)),
        "extragradient_plus": optim.extragradient_plus(SGD(0.1)),
        "past_extragradient": optim.past_extragradient(SGD(0.1)),
        "past_extragradient from the same": optim.past_extragradient(SGD(0.1), first_step="same"),
        "anchored": optim.anchored(SGD(0.1)),
    }


def curved(params: Any) -> dict[str, jax.Array]:
    """A game of which `idle` is no part: its gradient is zero."""
    x, y = params["x"]["own"], params["y"]
    value = jnp.sum(jnp.sin(x) * y + 0.1 * x**2)
    return {"x": value, "y": jnp.sum(0.1 * y**4) - value}


CURVED = {"x": {"own": jnp.array([0.3, -0.7]), "idle": jnp.zeros(2)}, "y": jnp.array([0.5, 0.9])}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", links())
def test_the_derivative_through_steps_is_that_of_finite_differences(name: str):
    start = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), CURVED)

    def after(t: Any) -> Any:
        params = start | {"y": start["y"] + t, "x": start["x"] | {"own": (1 - t) * start["x"]["own"]}}
        path = play(optim.chain(links()[name], optim.scale(1 + t)), curved, params, 20)
        return sum(jnp.sum(leaf[-1] ** 2) for leaf in jax.tree.leaves(path))

    run, gradient = jax.jit(after), jax.jit(jax.grad(after))
    difference = (run(1e-6) - run(-1e-6)) / 2e-6
    np.testing.assert_allclose(gradient(0.0), difference, rtol=1e-4)


@pytest.mark.parametrize("name", links())
def test_the_derivative_from_a_zero_gradient_is_finite(name: str):
    def after(start: jax.Array, rate: jax.Array) -> jax.Array:
        path = play(optim.chain(links()[name], optim.scale(rate)), bilinear, {"x": start, "y": start}, 20)
        return path["x"][-1] + 2 * path["y"][-1]

    value, (by_start, by_rate) = jax.value_and_grad(after, (0, 1))(jnp.zeros(()), jnp.ones(()))
    assert value == 0
    assert by_rate == 0
    assert jnp.isfinite(by_start)


@pytest.mark.parametrize("name", links())
def test_steps_can_be_mapped_over_a_batch_of_games(name: str):
    batch = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), CURVED)
    paths = jax.vmap(lambda start: play(links()[name], curved, start, 3))(batch)
    for i in range(2):
        one = play(links()[name], curved, jax.tree.map(lambda x, i=i: x[i], batch), 3)
        assert_close(jax.tree.map(lambda x, i=i: x[i], paths), one)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", links())
def test_parameters_of_half_precision_keep_their_dtype(name: str, dtype: str):
    start = jax.tree.map(lambda x: x.astype(dtype), CURVED)
    path = play(links()[name], curved, start, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(path)} == {jnp.dtype(dtype)}
    exact = play(links()[name], curved, CURVED, 3)
    assert_close(jax.tree.map(lambda x: x.astype("float32"), path), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", links())
def test_parameters_and_state_may_be_donated(name: str):
    tx = links()[name]
    start = jax.tree.map(jnp.copy, CURVED)
    opt_state = tx.init(start)
    expected = step(tx, curved, start, opt_state)
    found = jax.jit(lambda *given: step(tx, curved, *given), donate_argnums=(0, 1))(start, opt_state)
    assert_close(found, expected)


@pytest.mark.parametrize("name", ["extragradient", "anchored"])
def test_an_anchor_or_a_look_is_made_once_a_step(name: str):
    seen = []

    def grad_fn(params: Any) -> Any:
        seen.append(params)
        return params

    tx = links()[name]
    tx.update(ones(), tx.init(ones()), ones(), grad_fn=grad_fn)
    assert len(seen) == 1


@pytest.mark.parametrize("missing", ["grad_fn", "params"])
@pytest.mark.parametrize("name", ["extragradient", "anchored"])
def test_what_is_missing_in_update_is_said_with_the_line_to_write(name: str, missing: str):
    tx = links()[name]
    given: dict[str, Any] = {"params": ones(), "grad_fn": lambda params: params, missing: None}
    with pytest.raises(
        TypeError, match=rf"^{name}: expected params and grad_fn in update, got no {missing}\. .*optim\.oracle\(loss_fn"
    ):
        tx.update(ones(), tx.init(ones()), **given)


@pytest.mark.parametrize("name", ["extragradient", "anchored"])
def test_a_base_that_evaluates_gradients_is_refused(name: str):
    base = optim.chain(optim.sam(0.05), SGD(0.1))
    with pytest.raises(
        ValueError, match=rf"^{name}: expected base without links that evaluate gradients, got chain\(sam\(0\.05\), sgd"
    ):
        getattr(optim, name)(base)


@pytest.mark.parametrize("name", ["extragradient", "extragradient_plus", "past_extragradient", "anchored"])
def test_a_base_that_is_no_link_is_refused(name: str):
    with pytest.raises(TypeError, match=r": expected base to be a link such as adam\(1e-3\), got 0\.1$"):
        getattr(optim, name)(0.1)


@pytest.mark.parametrize("name", ["extragradient", "extragradient_plus", "anchored", "past_extragradient"])
def test_a_base_that_waits_is_refused(name: str):
    with pytest.raises(ValueError, match=r"expected base to step every time, got accumulate.*mean of micro-batches in"):
        getattr(optim, name)(optim.accumulate(optim.sgd(0.1), 2))


def test_the_second_step_is_handed_the_second_gradient():
    seen = []

    def update(updates: Any, state: Any, params: Any = None, *, grad: Any, **extra: Any) -> Any:
        seen.append((updates, grad))
        return jax.tree.map(lambda leaf: -0.1 * leaf, updates), state

    tx: Any = optim.extragradient(optax.GradientTransformationExtraArgs(lambda params: (), cast(Any, update)))
    found = optim.oracle(lambda x: x**2, jnp.array(1.0))
    tx.update(found.grads, (), jnp.array(1.0), **found.extra)
    np.testing.assert_allclose(seen, [(2.0, 2.0), (1.6, 1.6)], rtol=1e-6)


def test_two_that_look_elsewhere_are_refused_in_a_chain():
    with pytest.raises(
        ValueError, match=r"^chain: expected at most one link that evaluates gradients, got sam\(0\.05\) and "
    ):
        optim.chain(optim.sam(0.05), optim.extragradient(SGD(0.1)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optim.extragradient(SGD(0.1), stretch=0.0), r"^extragradient: expected stretch above 0, got 0\.0$"),
        (
            lambda: optim.extragradient(SGD(0.1), moments="first"),  # pyright: ignore[reportArgumentType]
            r"^extragradient: expected moments 'both' or 'second', got 'first'$",
        ),
        (
            lambda: optim.extragradient_plus(SGD(0.1), beta=1.5),
            r"^extragradient_plus: expected beta above 0 and at most 1, got 1\.5$",
        ),
        (
            lambda: optim.past_extragradient(SGD(0.1), first_step="none"),  # pyright: ignore[reportArgumentType]
            r"^past_extragradient: expected first_step 'zero' or 'same', got 'none'$",
        ),
        (
            lambda: optim.negative_momentum(-0.1),
            r"^negative_momentum: expected learning_rate of at least 0, got -0\.1$",
        ),
        (
            lambda: optim.negative_momentum(0.1, 0.5),
            r"^negative_momentum: expected momentum above -1 and below 0, got 0\.5$",
        ),
        (lambda: optim.optimistic_adam(-0.1), r"^optimistic_adam: expected learning_rate of at least 0, got -0\.1$"),
        (
            lambda: optim.optimistic_adam(0.1, 1.0),
            r"^optimistic_adam: expected b1 of at least 0 and below 1, got 1\.0$",
        ),
        (lambda: optim.optimistic_adam(0.1, eps=-1.0), r"^optimistic_adam: expected eps of at least 0, got -1\.0$"),
    ],
)
def test_a_number_or_word_out_of_range_is_refused(build: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        build()
