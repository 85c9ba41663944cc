"""The sharpness family: how it reduces to SAM, the authors' programs written again, and what a step costs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim

from .test_sam import START, grad, loss_fn, quadratic, run
from .trees import assert_close, assert_same, types

Array = np.ndarray


def start() -> dict[str, jax.Array]:
    return jax.tree.map(jnp.asarray, START)


def perturbed(params: dict, along: dict, length: float, rho: float) -> dict:
    return {name: params[name] + rho * along[name] / length for name in params}


def norm(tree: dict) -> float:
    return np.sqrt(sum((leaf**2).sum() for leaf in tree.values()))


def inner(tree: dict, other: dict) -> float:
    return sum((tree[name] * other[name]).sum() for name in tree)


def descend(params: dict, grads: dict, eta: float = 0.1) -> dict:
    return {name: params[name] - eta * grads[name] for name in params}


def step(tx: Any, params: Any = None, state: Any = None, grad_fn: Any = None) -> Any:
    """What a link makes of the gradient, and its state after."""
    params, grad_fn = params or start(), grad_fn or jax.grad(loss_fn)
    return tx.update(grad_fn(params), tx.init(params) if state is None else state, params, grad_fn=grad_fn)


def links() -> dict[str, Any]:
    return {
        "sam": optim.sam(0.2),
        "asam": optim.asam(0.5),
        "gsam": optim.gsam(0.2, alpha=0.4),
        "fisher_sam": optim.fisher_sam(0.2),
        "friendly_sam": optim.friendly_sam(0.2, decay=0.6),
        "look_sam": optim.look_sam(0.2, every=3),
        "sam every other step": optim.sam(0.2, every=2),
        "sam without v": optim.sam(0.2, exclude="v"),
    }


REDUCED = {
    "asam, all unscaled": lambda: optim.asam(0.3, unscaled="**"),
    "gsam, alpha=0": lambda: optim.gsam(0.3, alpha=0.0),
    "fisher_sam, eta=0": lambda: optim.fisher_sam(0.3, eta=0.0),
    "friendly_sam, sigma=0": lambda: optim.friendly_sam(0.3, sigma=0.0),
    "look_sam, every=1": lambda: optim.look_sam(0.3, every=1),
    "sam, every=1": lambda: optim.sam(0.3, every=1),
    "sam of one part": lambda: optim.chain(optim.sam(0.3), optim.accumulate(optim.identity(), 1)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", REDUCED)
def test_it_reduces_to_sam(name: str):
    for base in (optim.sgd(0.1), optim.adam(0.1)):
        found, sam = (run(optim.chain(link, base)) for link in (REDUCED[name](), optim.sam(0.3)))
        assert_close(found, sam, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "fisher_sam", "friendly_sam"])
def test_with_radius_zero_it_hands_on_the_gradient(name: str):
    link = getattr(optim, name)(0.0, **({"alpha": 0.4} if name == "gsam" else {}))
    assert_close(step(link)[0], jax.grad(loss_fn)(start()))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("unscaled", [(), "v"])
def test_asam_equals_its_authors_program(unscaled: Any):
    # SamsungLabs/ASAM, written again: parameters not named weight have no scale, and gradients are scaled in place.
    params, rho, eta = START, 0.5, 0.01
    for _ in range(6):
        held, scales = grad(params), {}
        for name in params:
            if name not in unscaled:
                scales[name] = np.abs(params[name]) + eta
                held[name] = held[name] * scales[name]
        length = norm(held) + 1e-16
        for name in scales:
            held[name] = held[name] * scales[name]
        params = descend(params, grad(perturbed(params, held, length, rho)))
    found = run(optim.chain(optim.asam(rho, eta=eta, unscaled=unscaled), optim.sgd(0.1)), num_steps=6)
    assert_close(found, params, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_friendly_sam_equals_its_authors_program():
    # nblt/F-SAM, written again: the first step's direction is the gradient, which the mean begins as.
    params, rho, sigma, decay, momentum = START, 0.2, 0.9, 0.6, None
    for _ in range(6):
        grads = grad(params)
        if momentum is None:
            along, momentum = grads, grads
        else:
            along = {name: grads[name] - sigma * momentum[name] for name in grads}
            momentum = {name: decay * momentum[name] + (1 - decay) * grads[name] for name in grads}
        params = descend(params, grad(perturbed(params, along, norm(along) + 1e-12, rho)))
    found = run(optim.chain(optim.friendly_sam(rho, sigma=sigma, decay=decay), optim.sgd(0.1)), num_steps=6)
    assert_close(found, params, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_gsam_equals_a_loop_in_numpy():
    params, rho, alpha = START, 0.3, 0.4
    for _ in range(5):
        g = grad(params)
        p = grad(perturbed(params, g, norm(g), rho))
        cosine = inner(g, p) / (norm(g) * norm(p))
        across = {name: g[name] - cosine * norm(g) * p[name] / norm(p) for name in g}
        assert abs(inner(across, p)) < 1e-12
        params = descend(params, {name: p[name] - alpha * across[name] for name in p})
    assert_close(run(optim.chain(optim.gsam(rho, alpha=alpha), optim.sgd(0.1))), params, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_what_gsam_takes_off_is_across_the_gradient_that_sam_finds():
    sam, gsam = step(optim.sam(0.3))[0], step(optim.gsam(0.3, alpha=0.7))[0]
    across = {name: np.asarray(sam[name] - gsam[name]) for name in sam}
    assert norm(across) > 0.01
    assert inner(across, sam) == pytest.approx(0, abs=1e-12)


@pytest.mark.usefixtures("float64")
def test_fisher_sam_equals_a_loop_in_numpy():
    params, rho, eta = START, 0.3, 0.8
    for _ in range(5):
        g = grad(params)
        along = {name: g[name] / (1 + eta * g[name] ** 2) for name in g}
        params = descend(params, grad(perturbed(params, along, np.sqrt(inner(g, along)), rho)))
    assert_close(run(optim.chain(optim.fisher_sam(rho, eta=eta), optim.sgd(0.1))), params, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_look_sam_equals_a_loop_in_numpy():
    params, rho, alpha, part = START, 0.3, 0.7, START
    for t in range(7):
        g = grad(params)
        if t % 3 == 0:
            given = grad(perturbed(params, g, norm(g), rho))
            cosine = inner(g, given) / (norm(g) * norm(given))
            part = {name: given[name] - norm(given) * cosine * g[name] / norm(g) for name in g}
        else:
            given = {name: g[name] + alpha * norm(g) / norm(part) * part[name] for name in g}
        params = descend(params, given)
    found = run(optim.chain(optim.look_sam(rho, every=3, alpha=alpha), optim.sgd(0.1)), num_steps=7)
    assert_close(found, params, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["sam", "asam"])
def test_only_asams_perturbation_does_not_depend_on_the_scale_of_layers(name: str):
    # Two layers, of which one is c times as large and the other 1/c: the same function.
    x, target = np.array([0.7, -0.2, 0.4]), 0.3
    layers = {"first": np.array([[0.5, -0.3, 0.8], [0.2, 0.9, -0.4]]), "second": np.array([0.6, -0.7])}
    scaled = {"first": 5 * layers["first"], "second": layers["second"] / 5}
    layers, scaled = jax.tree.map(jnp.asarray, (layers, scaled))
    loss = lambda params: (params["second"] @ (params["first"] @ jnp.asarray(x)) - target) ** 2  # noqa: E731
    link = optim.asam(0.5, eta=0.0) if name == "asam" else optim.sam(0.5)

    def perturbed_loss(params: Any) -> Any:
        seen = []
        step(link, params, grad_fn=lambda at: seen.append(at) or jax.grad(loss)(at))
        return loss(seen[-1])

    same = np.allclose(perturbed_loss(layers), perturbed_loss(scaled), rtol=1e-10)
    assert same == (name == "asam")


@pytest.mark.usefixtures("float64")
def test_before_an_accumulation_it_perturbs_every_part_of_a_batch_by_itself():
    parts, rho = [0.5, 1.0, -0.4], 0.3
    part_loss = lambda params, scale: loss_fn(params) + scale * jnp.sum(params["u"] ** 3)  # noqa: E731
    tx = optim.chain(optim.sam(rho), optim.accumulate(optim.sgd(0.1), 3))
    params, state = start(), tx.init(start())
    for scale in parts:
        grad_fn = jax.grad(lambda params, scale=scale: part_loss(params, scale))
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)

    def part_grad(params: dict, scale: float) -> dict:
        return grad(params) | {"u": grad(params)["u"] + 3 * scale * params["u"] ** 2}

    found = [part_grad(perturbed(START, g, norm(g), rho), s) for s in parts for g in [part_grad(START, s)]]
    mean = {name: np.mean([grads[name] for grads in found], 0) for name in START}
    assert_close(params, descend(START, mean), rtol=1e-10)


@pytest.mark.parametrize("name", links())
def test_the_oracle_is_called_where_a_look_is_due_only(name: str):
    tx: Any = optim.chain(links()[name], optim.sgd(0.1))
    calls = []
    every = {"look_sam": 3, "sam every other step": 2}.get(name, 1)

    def grad_fn(params: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return jax.grad(loss_fn)(params)

    def body(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss_fn)(params), state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), state), state[0].perturbation_norm

    _, norms = lax.scan(body, (start(), tx.init(start())), None, 7)
    jax.effects_barrier()
    assert len(calls) == len(range(0, 7, every))
    assert [bool(norm > 0) for norm in norms] == [step % every == 0 for step in range(7)]


@pytest.mark.usefixtures("float64")
def test_between_its_looks_sam_hands_on_the_gradient():
    params = START
    for t in range(5):
        g = grad(params)
        params = descend(params, g if t % 2 else grad(perturbed(params, g, norm(g), 0.3)))
    assert_close(run(optim.chain(optim.sam(0.3, every=2), optim.sgd(0.1))), params, rtol=1e-10)


def test_arrays_of_numpy_do_as_parameters_of_a_periodic_link():
    tx: Any = optim.sam(0.3, every=2)
    found = tx.update(grad(START), tx.init(START), START, grad_fn=jax.grad(loss_fn))
    assert_close(found, step(tx))


EXCLUDING: dict[str, Callable[[Any], Any]] = {
    "sam": lambda exclude: optim.sam(0.3, exclude=exclude),
    "asam": lambda exclude: optim.asam(0.3, exclude=exclude),
    "gsam": lambda exclude: optim.gsam(0.3, alpha=0.4, exclude=exclude),
    "fisher_sam": lambda exclude: optim.fisher_sam(0.3, exclude=exclude),
    "friendly_sam": lambda exclude: optim.friendly_sam(0.3, exclude=exclude),
    "look_sam": lambda exclude: optim.look_sam(0.3, every=1, exclude=exclude),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", EXCLUDING)
def test_excluded_parameters_are_not_perturbed_and_all_get_the_gradient_found(name: str):
    seen = []

    def grad_fn(params: Any) -> Any:
        seen.append(params)
        return jax.grad(loss_fn)(params)

    updates, state = step(EXCLUDING[name]("v"), grad_fn=grad_fn)
    np.testing.assert_array_equal(seen[-1]["v"], START["v"])
    away = np.linalg.norm(seen[-1]["u"] - START["u"])
    assert away == pytest.approx(float(state.perturbation_norm), rel=1e-6)
    if name in ("sam", "gsam", "friendly_sam", "look_sam"):
        assert away == pytest.approx(0.3, rel=1e-6)
    assert np.abs(updates["v"] - grad(START)["v"]) > 1e-3


@pytest.mark.parametrize("name", EXCLUDING)
def test_a_pattern_that_matches_nothing_is_refused_with_the_paths(name: str):
    with pytest.raises(
        ValueError,
        match=rf"^{name}: expected a pattern that matches a path, got '\*\*/bias'\. There are '[uv]', '[uv]'\.",
    ):
        EXCLUDING[name](["v", "**/bias"]).init(START)


def test_a_pattern_of_unscaled_parameters_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^asam: expected a pattern that matches a path, got 'bias'\."):
        optim.asam(0.3, unscaled="bias").init(START)


@pytest.mark.usefixtures("float64")
def test_in_a_mask_patterns_are_of_what_it_sees():
    params = start() | {"w": jnp.array([0.4])}
    loss = lambda params: loss_fn(params) + jnp.sum(params["w"] ** 4)  # noqa: E731
    tx = optim.chain(optim.masked(optim.asam(0.3, exclude="v", unscaled="u"), ["u", "v"]), optim.sgd(0.1))
    found = optim.oracle(loss, params)
    updates, _ = tx.update(found.grads, tx.init(params), params, **found.extra)
    near = START | {"u": START["u"] + 0.3 * grad(START)["u"] / np.linalg.norm(grad(START)["u"])}
    expected = descend(START, grad(near)) | {"w": np.array([0.4 - 0.4 * 0.4**3])}
    assert_close(optax.apply_updates(params, updates), expected, rtol=1e-10)
    with pytest.raises(ValueError, match=r"^asam: expected a pattern that matches a path, got 'w'"):
        optim.masked(optim.asam(0.3, exclude="w"), ["u", "v"]).init(params)


@pytest.mark.parametrize("name", links())
def test_a_zero_gradient_gives_a_zero_perturbation(name: str):
    params = {"u": jnp.zeros(2), "v": jnp.zeros(3)}
    flat = lambda params: sum(quadratic(3.0)(leaf) for leaf in params.values())  # noqa: E731
    assert_same(run(optim.chain(links()[name], optim.sgd(0.1)), params, 4, flat), params)


def through(tx: Any, params: Any, num_steps: int, loss: Callable[[Any], Any]) -> Any:
    """Parameters after some steps."""

    def body(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=jax.grad(loss))
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(jnp.asarray, params)
    return lax.scan(body, (params, tx.init(params)), None, num_steps)[0][0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", links())
def test_the_derivative_through_steps_is_that_of_finite_differences(name: str):
    # The gradient of `idle` is zero.
    begin = start() | {"idle": jnp.zeros(2)}
    used = lambda params: loss_fn({"u": params["u"], "v": params["v"]})  # noqa: E731

    def after(t: Any) -> jax.Array:
        params = begin | {"u": begin["u"] * (1 + t), "v": begin["v"] - t}
        return used(through(optim.chain(links()[name], optim.sgd(0.02 * (1 + t))), params, 20, used))

    run, gradient = jax.jit(after), jax.jit(jax.grad(after))
    difference = (run(1e-6) - run(-1e-6)) / 2e-6
    np.testing.assert_allclose(gradient(0.0), difference, rtol=1e-4)


@pytest.mark.parametrize("name", links())
def test_the_derivative_from_a_zero_gradient_is_finite(name: str):
    def after(x: jax.Array, rate: jax.Array) -> jax.Array:
        params = {"u": x, "v": jnp.zeros(1)}
        flat = lambda params: sum(quadratic(3.0)(leaf) for leaf in params.values())  # noqa: E731
        return jnp.sum(through(optim.chain(links()[name], optim.sgd(rate)), params, 20, flat)["u"] - 1.0)

    by_x, by_rate = jax.grad(after, (0, 1))(jnp.zeros(2), jnp.array(0.1))
    assert by_rate == 0
    np.testing.assert_array_equal(jnp.isfinite(by_x), True)
    if name not in ("asam", "gsam"):
        np.testing.assert_allclose(by_x, (1 - 0.1 * 3) ** 20, rtol=1e-4)  # the perturbation is constant


falling = [0.5, 0.3, 0.1, 0.0]
SCHEDULED: dict[str, Callable[[Any], Any]] = {
    **{f"{name}'s rho": lambda value, name=name: getattr(optim, name)(value) for name in ("sam", "asam", "fisher_sam")},
    "friendly_sam's rho": lambda value: optim.friendly_sam(value),
    "look_sam's rho": lambda value: optim.look_sam(value, every=2),
    "gsam's rho": lambda value: optim.gsam(value, alpha=0.4),
    "gsam's alpha": lambda value: optim.gsam(0.3, alpha=value),
    "asam's eta": lambda value: optim.asam(0.3, eta=value),
    "fisher_sam's eta": lambda value: optim.fisher_sam(0.3, eta=value),
    "friendly_sam's sigma": lambda value: optim.friendly_sam(0.3, sigma=value),
    "friendly_sam's decay": lambda value: optim.friendly_sam(0.3, decay=value),
    "look_sam's alpha": lambda value: optim.look_sam(0.3, every=2, alpha=value),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_gives_every_step_its_value(name: str):
    scheduled = SCHEDULED[name](lambda step: jnp.array(falling)[step])
    state = scheduled.init(start())
    for value in falling:
        expected, _ = step(SCHEDULED[name](value), state=state)
        found, state = step(scheduled, state=state)
        assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", links())
def test_parameters_of_half_precision_keep_dtypes(name: str, dtype: str):
    params, tx = jax.tree.map(lambda leaf: leaf.astype(dtype), start()), links()[name]
    state = tx.init(params)
    updates, after = step(tx, params, state)
    assert types(updates) == types(params)
    assert types(after) == types(state)
    assert types(step(tx, params, after)) == types((updates, after))
    exact, exact_state = step(tx)
    assert_close(jax.tree.map(lambda x: x.astype("float32"), updates), exact, rtol=0.05, atol=0.05)
    assert after.perturbation_norm == pytest.approx(float(exact_state.perturbation_norm), rel=0.05)


@pytest.mark.parametrize("name", links())
def test_steps_can_be_mapped_over_a_batch_of_parameters(name: str):
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), start())
    tx = optim.chain(links()[name], optim.sgd(0.1))
    found = jax.vmap(lambda params: through(tx, params, 4, loss_fn))(batch)
    for i in range(2):
        one = through(tx, jax.tree.map(lambda x, i=i: x[i], batch), 4, loss_fn)
        assert_close(jax.tree.map(lambda x, i=i: x[i], found), one)


@pytest.mark.parametrize("name", links())
def test_parameters_and_state_may_be_donated(name: str):
    tx = links()[name]
    expected = step(tx)
    donated = jax.jit(lambda params, state: step(tx, params, state), donate_argnums=(0, 1))
    assert_close(donated(start(), tx.init(start())), expected)


@pytest.mark.parametrize("missing", ["grad_fn", "params"])
@pytest.mark.parametrize("name", EXCLUDING)
def test_what_is_missing_in_update_is_said_with_the_line_to_write(name: str, missing: str):
    tx = EXCLUDING[name](())
    given: dict[str, Any] = {"params": START, "grad_fn": jax.grad(loss_fn), missing: None}
    with pytest.raises(
        TypeError, match=rf"^{name}: expected params and grad_fn in update, got no {missing}\. .*optim\.oracle\(loss_fn"
    ):
        tx.update(grad(START), tx.init(START), **given)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optim.asam(-0.1), r"^asam: expected rho of at least 0, got -0\.1$"),
        (lambda: optim.asam(0.1, eta=-1.0), r"^asam: expected eta of at least 0, got -1\.0$"),
        (lambda: optim.gsam(-0.1, alpha=0.1), r"^gsam: expected rho of at least 0, got -0\.1$"),
        (lambda: optim.gsam(0.1, alpha=-1.0), r"^gsam: expected alpha of at least 0, got -1\.0$"),
        (lambda: optim.fisher_sam(-0.1), r"^fisher_sam: expected rho of at least 0, got -0\.1$"),
        (lambda: optim.fisher_sam(0.1, eta=-1.0), r"^fisher_sam: expected eta of at least 0, got -1\.0$"),
        (lambda: optim.friendly_sam(-0.1), r"^friendly_sam: expected rho of at least 0, got -0\.1$"),
        (lambda: optim.friendly_sam(0.1, sigma=-1.0), r"^friendly_sam: expected sigma of at least 0, got -1\.0$"),
        (
            lambda: optim.friendly_sam(0.1, decay=1.5),
            r"^friendly_sam: expected decay of at least 0 and at most 1, got 1\.5$",
        ),
        (lambda: optim.look_sam(-0.1), r"^look_sam: expected rho of at least 0, got -0\.1$"),
        (lambda: optim.look_sam(0.1, alpha=-1.0), r"^look_sam: expected alpha of at least 0, got -1\.0$"),
        (lambda: optim.look_sam(0.1, every=0), r"^look_sam: expected every to be an integer of at least 1, got 0$"),
        (lambda: optim.sam(0.1, every=0), r"^sam: expected every to be an integer of at least 1, got 0$"),
    ],
)
def test_a_number_out_of_range_is_refused(build: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        build()
