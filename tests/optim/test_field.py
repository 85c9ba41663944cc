"""Links that correct a game's gradients by their Jacobian: dense algebra, published games, and no Jacobian at scale."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import block_diag

from renga import optim

from .games import Game, bilinear, matching_pennies, play, prisoners_dilemma, tandem
from .trees import assert_close

SIZES = {"a": 2, "b": 3, "c": 2}


def a_game(num_players: int, seed: int) -> tuple[Game, dict[str, Any]]:
    """A smooth general-sum game of players with vectors, one of them a tree, and a point of it."""
    sizes = dict(list(SIZES.items())[:num_players])
    keys = iter(jax.random.split(jax.random.key(seed), 2 * num_players + 1))
    total = sum(sizes.values())
    weights = {name: jax.random.normal(next(keys), (total, 4)) / 2 for name in sizes}
    quadratic = {name: jax.random.normal(next(keys), (total, total)) / 2 for name in sizes}
    point = jax.random.normal(next(keys), (total,))
    params: dict[str, Any] = dict(zip(sizes, jnp.split(point, np.cumsum(list(sizes.values()))[:-1]), strict=True))
    params["b"] = {"v": params["b"][:1], "w": params["b"][1:]}

    def game(params: Any) -> dict[str, jax.Array]:
        z = ravel_pytree(params)[0]
        return {name: jnp.sum(jnp.sin(z @ weights[name])) + z @ quadratic[name] @ z / 2 for name in params}

    return game, params


class Dense:
    """A game as one vector: gradients of all losses by all parameters, and Jacobians written out."""

    def __init__(self, game: Game, params: Any) -> None:
        self.z, self.back = ravel_pytree(params)
        self.parts = [ravel_pytree(part)[0].size for part in params.values()]
        ends = np.cumsum([0, *self.parts])
        self.of = [slice(a, b) for a, b in itertools.pairwise(ends)]
        self.losses = lambda z: list(game(self.back(z)).values())
        self.g = self.field(self.z)
        self.jacobian = jax.jacobian(self.field)(self.z)
        self.others = self.jacobian * (1 - block_diag(*(jnp.ones((size, size)) for size in self.parts)))

    def gradient(self, player: int, z: jax.Array) -> jax.Array:
        return jax.grad(lambda z: self.losses(z)[player])(z)

    def field(self, z: jax.Array) -> jax.Array:
        return jnp.concatenate([self.gradient(i, z)[own] for i, own in enumerate(self.of)])

    def gradients_of(self, term: Callable[[int, jax.Array], jax.Array]) -> jax.Array:
        """Each player's gradient of a term of its own."""
        return jnp.concatenate([jax.grad(lambda z, i=i: term(i, z))(self.z)[own] for i, own in enumerate(self.of)])

    def naive_steps(self, i: int, z: jax.Array, *, stop_loss: bool = False, stop_step: bool = False) -> jax.Array:
        """`sum_j <grad_j L_i, grad_j L_j>` over the other players, either factor held still."""
        loss, steps = self.gradient(i, z), self.field(z)
        loss = lax.stop_gradient(loss) if stop_loss else loss
        steps = lax.stop_gradient(steps) if stop_step else steps
        return sum((loss[of] @ steps[of] for j, of in enumerate(self.of) if j != i), start=jnp.zeros(()))

    def looking_ahead(self, alpha: float) -> jax.Array:
        return self.g - alpha * self.gradients_of(lambda i, z: self.naive_steps(i, z, stop_step=True))

    def shaping(self) -> jax.Array:
        return self.gradients_of(lambda i, z: self.naive_steps(i, z, stop_loss=True))


def links(eta: float) -> dict[str, Any]:
    """Links that make a gradient, as chains that step."""
    return {
        "consensus": optim.chain(optim.consensus(0.7), optim.sgd(eta)),
        "sga": optim.chain(optim.symplectic_adjustment(0.7), optim.sgd(eta)),
        "sga, not aligned": optim.chain(optim.symplectic_adjustment(0.7, align=False), optim.sgd(eta)),
        "look ahead": optim.chain(optim.lola(0.3, shaping=False), optim.sgd(eta)),
        "lola": optim.chain(optim.lola(0.3), optim.sgd(eta)),
        "sos": optim.chain(optim.sos(0.3), optim.sgd(eta)),
        "competitive": optim.competitive(eta, tolerance=1e-10),
    }


def expected(name: str, dense: Dense, eta: float) -> jax.Array:
    """The same, as the papers and the authors' programs write it."""
    g, jacobian = dense.g, dense.jacobian
    pull, rotation = jacobian.T @ g, (jacobian.T - jacobian) @ g / 2
    if name == "consensus":
        return -eta * (g + 0.7 * pull)
    if name == "sga":
        return -eta * (g + 0.7 * jnp.sign((g @ pull) * (rotation @ pull) / g.size + 0.1) * rotation)
    if name == "sga, not aligned":
        return -eta * (g + 0.7 * rotation)
    if name == "competitive":
        return jnp.linalg.solve(jnp.eye(g.size) + eta * dense.others, -eta * g)
    if name == "lola":
        return -eta * (g - 0.3 * dense.gradients_of(dense.naive_steps))
    ahead, chi = dense.looking_ahead(0.3), dense.shaping()
    return -eta * (ahead if name == "look ahead" else ahead - sos_share(g, ahead, chi, 0.3) * 0.3 * chi)


def sos_share(g: jax.Array, ahead: jax.Array, chi: jax.Array, alpha: float) -> float:
    turn, norm = float(-alpha * chi @ ahead), float(jnp.linalg.norm(g))
    p1 = 1 if turn >= 0 else min(1, -0.5 * float(ahead @ ahead) / turn)
    p2 = norm**2 if norm < 0.1 else 1
    return min(p1, p2)


def updates_of(tx: Any, game: Game, params: Any, state: Any = None) -> Any:
    found = optim.oracle(game, params)
    return tx.update(found.grads, tx.init(params) if state is None else state, params, **found.extra)[0]


def nearly_stationary(game: Game, params: Any, rest: float) -> Game:
    """The same game with a linear term that leaves a share of each player's gradient here."""
    grads = optim.oracle(game, params).grads

    def tilted(z: Any) -> dict[str, jax.Array]:
        along = jax.tree.map(lambda g, x: (rest - 1) * jnp.sum(g * x), grads, z)
        return {name: loss + sum(jax.tree.leaves(along[name])) for name, loss in game(z).items()}

    return tilted


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_players", [2, 3])
@pytest.mark.parametrize("name", links(0.1))
def test_it_equals_dense_algebra(name: str, num_players: int):
    for seed in range(2):
        game, params = a_game(num_players, seed)
        found = ravel_pytree(updates_of(links(0.1)[name], game, params))[0]
        np.testing.assert_allclose(found, expected(name, Dense(game, params), 0.1), rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("float64")
def test_the_alignment_takes_either_sign():
    signs = set()
    for seed in range(8):
        game, params = a_game(2, seed)
        dense = Dense(game, params)
        free, chosen = (updates_of(links(0.1)[name], game, params) for name in ("sga, not aligned", "sga"))
        np.testing.assert_allclose(ravel_pytree(chosen)[0], expected("sga", dense, 0.1), rtol=1e-6)
        signs.add(bool(np.allclose(ravel_pytree(free)[0], ravel_pytree(chosen)[0])))
    assert signs == {True, False}


@pytest.mark.usefixtures("float64")
def test_shaping_is_less_where_it_would_turn_the_players_and_near_stationary_points():
    shares, alpha = [], 2.0
    tx = optim.chain(optim.sos(alpha), optim.sgd(0.1))
    for seed, rest in [(0, 1.0), (3, 1.0), (9, 1.0), (0, 0.02)]:
        game, params = a_game(2, seed)
        game = nearly_stationary(game, params, rest)
        dense = Dense(game, params)
        ahead, chi = dense.looking_ahead(alpha), dense.shaping()
        shares.append(sos_share(dense.g, ahead, chi, alpha))
        found = ravel_pytree(updates_of(tx, game, params))[0]
        np.testing.assert_allclose(found, -0.1 * (ahead - shares[-1] * alpha * chi), rtol=1e-6, atol=1e-10)
    assert min(shares) < 0.01
    assert any(0.01 < share < 1 for share in shares)
    assert max(shares) == 1


RATES = {
    "consensus": (lambda eta: optim.chain(optim.consensus(1.0), optim.sgd(eta)), {0.1: 0.905539, 0.5: 0.707107}),
    "sga": (lambda eta: optim.chain(optim.symplectic_adjustment(), optim.sgd(eta)), {0.1: 0.905539, 0.5: 0.707107}),
    "lola": (lambda eta: optim.chain(optim.lola(eta), optim.sgd(eta)), {0.1: 0.985089, 0.5: 0.707107}),
    "sos": (lambda eta: optim.chain(optim.sos(eta, b=0.0), optim.sgd(eta)), {0.1: 0.985089, 0.5: 0.707107}),
    "look ahead": (
        lambda eta: optim.chain(optim.lola(eta, shaping=False), optim.sgd(eta)),
        {0.1: 0.995038, 0.5: 0.901388},
    ),
    "competitive": (optim.competitive, {0.1: 0.995037, 0.5: 0.894427}),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("eta", [0.1, 0.5])
@pytest.mark.parametrize("name", RATES)
def test_on_the_bilinear_game_it_contracts_at_the_known_rate(name: str, eta: float):
    build, rates = RATES[name]
    path = play(build(eta), bilinear, {"x": jnp.ones(()), "y": jnp.ones(())}, 40)
    norms = np.hypot(path["x"], path["y"])
    np.testing.assert_allclose(norms[1:] / norms[:-1], rates[eta], atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_on_a_bilinear_game_of_two_the_symplectic_adjustment_is_consensus():
    start = {"x": jnp.array([1.0, -0.5]), "y": jnp.array([0.3, 2.0])}
    sga, consensus = (
        play(optim.chain(link, optim.sgd(0.3)), bilinear, start, 20)
        for link in (optim.symplectic_adjustment(), optim.consensus(1.0))
    )
    assert_close(sga, consensus, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [2.0, 10.0])
def test_competitive_descent_contracts_at_any_step_size(eta: float):
    path = play(optim.competitive(eta), bilinear, {"x": jnp.ones(()), "y": jnp.ones(())}, 10)
    norms = np.hypot(path["x"], path["y"])
    np.testing.assert_allclose(norms[1:] / norms[:-1], 1 / math.sqrt(1 + eta**2), rtol=1e-4)


def mean_losses(name: str, game: Game, shape: tuple[int, ...], alpha: float, num_steps: int, *, std: float) -> float:
    """Of both players, over 100 games from random starts."""
    tx = {
        "descent": optim.sgd(alpha),
        "extragradient": optim.extragradient(optim.sgd(alpha)),
        "look ahead": optim.chain(optim.lola(alpha, shaping=False), optim.sgd(alpha)),
        "lola": optim.chain(optim.lola(alpha), optim.sgd(alpha)),
        "sos": optim.chain(optim.sos(alpha), optim.sgd(alpha)),
        "sga": optim.chain(optim.symplectic_adjustment(), optim.sgd(alpha)),
        "consensus": optim.chain(optim.consensus(1.0), optim.sgd(alpha)),
    }[name]
    starts = std * jax.random.normal(jax.random.key(0), (100, 2, *shape))

    def last(start: jax.Array) -> jax.Array:
        path = play(tx, game, {"x": start[0], "y": start[1]}, num_steps - 1)
        losses = game({player: points[-1] for player, points in path.items()})
        return jnp.stack(list(losses.values()))

    return np.mean(jax.vmap(last)(starts)).item()


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *[(name, 0.0) for name in ("descent", "extragradient", "look ahead", "sos", "sga")],
        ("lola", 4 / 9),  # riders who both pedal 2/3
        ("consensus", 2.0),  # the step is too long for its correction, and goes round
    ],
)
def test_in_the_tandem_game_it_ends_where_it_is_known_to(name: str, loss: float):
    assert mean_losses(name, tandem, (), 0.1, 100, std=0.1) == pytest.approx(loss, abs=0.2 if loss == 2 else 1e-3)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("descent", 1.97, 2.01),
        ("extragradient", 1.97, 2.01),
        ("sga", 1.8, 2.02),
        ("consensus", 1.6, 1.71),
        ("lola", 1.0, 1.13),
        ("sos", 1.0, 1.13),
    ],
)
def test_in_the_repeated_prisoners_dilemma_it_ends_where_it_is_known_to(name: str, least: float, most: float):
    # Alpha is 1 of losses that are summed over rounds: 1 / (1 - gamma) times those a round.
    summed = lambda params: {player: loss / 0.04 for player, loss in prisoners_dilemma(params).items()}  # noqa: E731
    assert least < 0.04 * mean_losses(name, summed, (5,), 1.0, 100, std=1.0) < most


@pytest.mark.parametrize("name", ["descent", "sos", "lola", "extragradient"])
def test_in_matching_pennies_all_but_descent_end_at_chance(name: str):
    distance = lambda params: dict.fromkeys("xy", abs(matching_pennies(params)["x"]))  # noqa: E731
    tx = {
        "descent": optim.sgd(1.0),
        "sos": optim.chain(optim.sos(1.0), optim.sgd(1.0)),
        "lola": optim.chain(optim.lola(1.0), optim.sgd(1.0)),
        "extragradient": optim.extragradient(optim.sgd(1.0)),
    }[name]
    starts = jax.random.normal(jax.random.key(1), (10, 2))
    path = jax.vmap(lambda start: play(tx, matching_pennies, {"x": start[0], "y": start[1]}, 300))(starts)
    ends = jax.vmap(distance)({player: points[:, -1] for player, points in path.items()})["x"]
    if name == "descent":
        assert jnp.mean(ends) > 0.3
    else:
        assert jnp.max(ends) < 1e-3


def arrays_of(jaxpr: Any) -> Iterator[Any]:
    """Types of all arrays of a program and of those inside it."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from arrays_of(inner)


@pytest.mark.parametrize("name", links(0.1))
def test_a_million_parameters_need_no_jacobian(name: str):
    size = 500_000

    def update(params: Any) -> Any:
        def game(params: Any) -> dict[str, jax.Array]:
            x, y = params["x"], params["y"]
            value = jnp.sum(jnp.sin(x) * y + x**2)
            return {"x": value, "y": jnp.sum(y**4) - value}

        return updates_of(links(0.1)[name], game, params)

    shape = jax.ShapeDtypeStruct((size,), jnp.float32)
    jaxpr = jax.make_jaxpr(update)({"x": shape, "y": shape})
    sizes = [math.prod(aval.shape) for aval in arrays_of(jaxpr.jaxpr)]
    assert len(sizes) > 50
    assert max(sizes) == size


SCHEDULED = {
    "consensus": (lambda rate: optim.consensus(rate), 0.5),
    "symplectic_adjustment": (lambda rate: optim.symplectic_adjustment(rate), 0.5),
    "lola": (lambda rate: optim.lola(rate), 0.5),
    "sos": (lambda rate: optim.sos(rate), 0.5),
    "competitive": (lambda rate: optim.competitive(rate), 0.5),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_gives_every_step_its_value(name: str):
    build, _ = SCHEDULED[name]
    game, params = a_game(2, 0)
    tx = build(lambda step: jnp.array([0.5, 0.25])[step])
    state: Any = tx.init(params)
    for rate in (0.5, 0.25):
        found = optim.oracle(game, params)
        updates, state = tx.update(found.grads, state, params, **found.extra)
        assert_close(updates, updates_of(build(rate), game, params), rtol=1e-12, atol=1e-12)
    assert state.step == 2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", links(0.1))
def test_the_derivative_through_steps_is_that_of_finite_differences(name: str):
    game, start = a_game(2, 1)
    idle = {"x": jnp.zeros(2)}  # a parameter that no loss depends on has a zero gradient

    def after(t: Any) -> Any:
        params = jax.tree.map(lambda x: (0.3 + t) * x, start) | {"a": {"own": (0.3 + t) * start["a"], **idle}}
        path = play(links(0.02)[name], lambda p: game(p | {"a": p["a"]["own"]}), params, 20)
        return sum(jnp.sum(leaf[-1] ** 2) for leaf in jax.tree.leaves(path))

    run, gradient = jax.jit(after), jax.jit(jax.grad(after))
    difference = (run(1e-6) - run(-1e-6)) / 2e-6
    np.testing.assert_allclose(gradient(0.0), difference, rtol=1e-4)


@pytest.mark.parametrize("name", links(0.1))
def test_the_derivative_from_a_zero_gradient_is_finite(name: str):
    def after(t: jax.Array) -> jax.Array:
        path = play(links(0.1)[name], bilinear, {"x": t, "y": t * jnp.ones(())}, 20)
        return path["x"][-1] + 2 * path["y"][-1]

    value, gradient = jax.value_and_grad(after)(jnp.zeros(()))
    assert value == 0
    assert jnp.isfinite(gradient)
    assert gradient != 0


@pytest.mark.parametrize("name", links(0.1))
def test_a_step_can_be_mapped_over_a_batch_of_games(name: str):
    game, params = a_game(2, 0)
    params = jax.tree.map(lambda x: jnp.stack([x, -x, 0.5 * x]), params)
    found = jax.vmap(lambda params: updates_of(links(0.1)[name], game, params))(params)
    for i in range(3):
        one = updates_of(links(0.1)[name], game, jax.tree.map(lambda x, i=i: x[i], params))
        assert_close(jax.tree.map(lambda x, i=i: x[i], found), one, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", links(0.1))
def test_parameters_of_half_precision_keep_their_dtype(name: str, dtype: str):
    start = {"x": jnp.ones(3, dtype), "y": jnp.ones(3, dtype)}
    path = play(links(0.1)[name], bilinear, start, 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(path)} == {jnp.dtype(dtype)}
    exact = play(links(0.1)[name], bilinear, jax.tree.map(lambda x: x.astype("float32"), start), 2)
    assert_close(jax.tree.map(lambda x: x.astype("float32"), path), exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("missing", ["grad_fn", "params"])
@pytest.mark.parametrize("name", ["consensus", "symplectic_adjustment", "competitive"])
def test_what_is_missing_in_update_is_said_with_the_line_to_write(name: str, missing: str):
    params = {"x": 1.0, "y": 1.0}
    tx: Any = SCHEDULED[name][0](0.5)
    given: dict[str, Any] = {"params": params, **optim.oracle(bilinear, params).extra, missing: None}
    with pytest.raises(
        TypeError, match=rf"^{name}: expected params and grad_fn in update, got no {missing}\. .*optim\.oracle\(loss_fn"
    ):
        tx.update(params, tx.init(params), **given)


@pytest.mark.parametrize("name", ["lola", "sos"])
def test_losses_are_asked_for_where_players_are_shaped(name: str):
    params = {"x": 1.0, "y": 1.0}
    tx: Any = SCHEDULED[name][0](0.5)
    given = optim.oracle(bilinear, params).extra | {"value_fn": None}
    with pytest.raises(
        TypeError,
        match=rf"^{name}: expected params and grad_fn and value_fn in update, got no value_fn\. .*optim\.oracle",
    ):
        tx.update(params, tx.init(params), params, **given)
    if name == "lola":
        optim.lola(0.5, shaping=False).update(params, tx.init(params), params, **given)


@pytest.mark.parametrize("name", ["lola", "sos", "competitive"])
def test_parameters_that_are_no_players_are_refused(name: str):
    tx: Any = SCHEDULED[name][0](0.5)
    x = jnp.ones(2)
    found = optim.oracle(lambda x: jnp.sum(x**2), x)
    with pytest.raises((ValueError, TypeError), match="A game's parameters are a dict"):
        tx.update(found.grads, tx.init(x), x, **found.extra)


@pytest.mark.parametrize("name", ["lola", "sos"])
def test_losses_of_other_players_are_refused(name: str):
    tx: Any = SCHEDULED[name][0](0.5)
    params = {"x": jnp.ones(()), "y": jnp.ones(())}
    extra = {"grad_fn": lambda p: p, "value_fn": lambda p: {"x": p["x"], "z": p["y"]}}
    players = r"expected parameters of the players \['x', 'z'\], got \['x', 'y'\]"
    with pytest.raises(ValueError, match=f"^{name}: {players}"):
        tx.update(params, tx.init(params), params, **extra)


@pytest.mark.parametrize("name", ["lola", "sos"])
def test_a_loss_that_is_no_game_is_refused(name: str):
    tx: Any = SCHEDULED[name][0](0.5)
    params = {"x": jnp.ones(()), "y": jnp.ones(())}
    found = optim.oracle(lambda params: params["x"] * params["y"], params)
    with pytest.raises(ValueError, match=rf"^{name}: expected a game, whose loss is a dict .* got one of shape \(\)$"):
        tx.update(found.grads, tx.init(params), params, **found.extra)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optim.consensus(-1.0), r"^consensus: expected gamma of at least 0, got -1\.0$"),
        (
            lambda: optim.symplectic_adjustment(-1.0),
            r"^symplectic_adjustment: expected strength of at least 0, got -1\.0$",
        ),
        (lambda: optim.lola(-0.1), r"^lola: expected alpha of at least 0, got -0\.1$"),
        (lambda: optim.sos(-0.1), r"^sos: expected alpha of at least 0, got -0\.1$"),
        (lambda: optim.sos(0.1, a=1.0), r"^sos: expected a of at least 0 and below 1, got 1\.0$"),
        (lambda: optim.sos(0.1, b=-1.0), r"^sos: expected b of at least 0 and below 1, got -1\.0$"),
        (lambda: optim.competitive(-0.1), r"^competitive: expected learning_rate of at least 0, got -0\.1$"),
        (lambda: optim.competitive(0.1, tolerance=-1.0), r"^competitive: expected tolerance of at least 0, got -1\.0$"),
        (
            lambda: optim.competitive(0.1, max_steps=0),
            r"^competitive: expected max_steps to be an integer of at least 1, got 0$",
        ),
    ],
)
def test_a_number_out_of_range_is_refused(build: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        build()
