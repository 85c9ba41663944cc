"""Games played through `step` and `alternating`, against closed forms, finite differences and loops by hand."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga.training import alternating, best_response, game, unroll_player, zero_sum

from ..optim import games


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


def product(players: Any, batch: Any, key: Any) -> jax.Array:
    return jnp.sum(players["x"] * players["y"])


BILINEAR = zero_sum(product, minimize="x", maximize="y")


def path(step: Any, train_state: Any, num_steps: int) -> np.ndarray:
    """Both players before the first step and after each, `[1 + num_steps, 2]`."""

    def body(train_state: Any, _: None) -> Any:
        train_state, _ = step(train_state, None)
        return train_state, train_state.params

    _, after = jax.lax.scan(body, train_state, None, num_steps)
    start = train_state.params
    return np.stack([np.append(start[player], after[player]) for player in start], -1)


def start() -> dict[str, jax.Array]:
    return {"x": jnp.array(1.0), "y": jnp.array(1.0)}


RATES = {
    "descent": (lambda eta: optim.sgd(eta), {0.1: 1.004988, 0.5: 1.118034}),
    "optimistic": (lambda eta: optim.optimistic_gradient(eta), {0.1: 0.994936}),
    "extragradient": (lambda eta: optim.extragradient(optim.sgd(eta)), {0.1: 0.995038, 0.5: 0.901388}),
    "consensus": (lambda eta: optim.chain(optim.consensus(1.0), optim.sgd(eta)), {0.1: 0.905539, 0.5: 0.707107}),
    "competitive": (lambda eta: optim.competitive(eta), {0.1: 0.995037, 0.5: 0.894427}),
    "lola": (lambda eta: optim.chain(optim.lola(eta), optim.sgd(eta)), {0.1: 0.985089, 0.5: 0.707107}),
    "looking ahead": (
        lambda eta: optim.chain(optim.lola(eta, shaping=False), optim.sgd(eta)), {0.1: 0.995038, 0.5: 0.901388},
    ),
    "extragradient+": (lambda eta: optim.extragradient_plus(optim.sgd(eta)), {0.1: 0.985089, 0.5: 0.707107}),
    "past extragradient": (lambda eta: optim.past_extragradient(optim.sgd(eta)), {0.1: 0.994936}),
    "symplectic": (
        lambda eta: optim.chain(optim.symplectic_adjustment(), optim.sgd(eta)), {0.1: 0.905539, 0.5: 0.707107},
    ),
    "lookahead": (lambda eta: optim.lookahead(optim.sgd(eta), 20, 0.5), {0.1: 0.57318 ** (1 / 20)}),
    "a link for each": (lambda eta: optim.by_player({p: optim.sgd(eta) for p in "xy"}), {0.1: 1.004988}),
    "extragradient around links for each": (
        lambda eta: optim.extragradient(optim.by_player({p: optim.sgd(eta) for p in "xy"})), {0.1: 0.995038},
    ),
}  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RATES)
def test_the_rates_of_links_hold_through_a_training_step(name: str):
    build, rates = RATES[name]
    for eta, rate in rates.items():
        tx: Any = build(eta)
        found = path(training.step(BILINEAR, tx), training.init(start(), tx), 400)
        sizes = np.linalg.norm(found, axis=-1)
        assert (sizes[400] / sizes[100]) ** (1 / 300) == pytest.approx(rate, abs=1e-6)


ROOT = 3**0.5  # of the field of three: its eigenvalues are 0 and +-i sqrt(3)
RATES_OF_THREE = {
    "descent": lambda eta: abs(1 - 1j * ROOT * eta),
    "optimistic": lambda eta: np.abs(np.roots([1, -(1 - 2j * ROOT * eta), -1j * ROOT * eta])).max(),
    "extragradient": lambda eta: abs(1 - 3 * eta**2 - 1j * ROOT * eta),
    "extragradient+": lambda eta: abs(1 - 6 * eta**2 - 1j * ROOT * eta),
    "consensus": lambda eta: abs(1 - 3 * eta - 1j * ROOT * eta),
    "symplectic": lambda eta: abs(1 - 3 * eta - 1j * ROOT * eta),
    "looking ahead": lambda eta: abs(1 - 3 * eta**2 - 1j * ROOT * eta),
    "lola": lambda eta: abs(1 - 5 * eta**2 - 1j * ROOT * eta),
    "lookahead": lambda eta: abs(0.5 + 0.5 * (1 - 1j * ROOT * eta) ** 20) ** (1 / 20),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RATES_OF_THREE)
def test_three_players_in_a_circle_have_their_rates_too(name: str):
    # Each one's loss is its own number times what its neighbours differ by: the field is a cross product.
    circle = game({p: lambda z, batch, key, p=p, q=q, r=r: z[p] * (z[q] - z[r]) for p, q, r in ("abc", "bca", "cab")})
    players = {"a": jnp.array(1.0), "b": jnp.array(-1.0), "c": jnp.array(0.0)}
    tx: Any = RATES[name][0](0.1)
    sizes = np.linalg.norm(path(training.step(circle, tx), training.init(players, tx), 60), axis=-1)
    assert (sizes[60] / sizes[20]) ** (1 / 40) == pytest.approx(RATES_OF_THREE[name](0.1), abs=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["tandem", "matching_pennies", "prisoners_dilemma"])
def test_what_links_come_to_by_hand_they_come_to_through_a_training_step(name: str):
    by_hand = getattr(games, name)
    losses = {p: lambda players, batch, key, p=p: by_hand(players)[p] for p in ("x", "y")}
    shape = (2, 5) if name == "prisoners_dilemma" else (2,)
    players = dict(zip(("x", "y"), jax.random.normal(jax.random.key(0), shape, float), strict=True))
    aware = [optim.chain(each, optim.sgd(0.1)) for each in (optim.sos(0.1), optim.lola(0.1), optim.consensus(1.0))]
    for tx in (*aware, optim.extragradient(optim.sgd(0.1)), optim.sgd(0.1)):
        step, begin = training.step(game(losses), tx), training.init(players, tx)
        found, _ = jax.lax.scan(lambda train_state, _, step=step: step(train_state, None), begin, None, 20)
        expected = jax.tree.map(lambda leaf: leaf[-1], games.play(tx, by_hand, players, 20))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found.params, expected)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("eta", [0.1, 0.5])
def test_alternating_descent_is_a_bounded_cycle(eta: float):
    tx = optim.by_player({"x": optim.sgd(eta), "y": optim.sgd(eta)})
    found = path(alternating(BILINEAR, tx, {"x": 1, "y": 1}), training.init(start(), tx), 2000)
    turn = np.array([[1, -eta], [eta, 1 - eta**2]])
    np.testing.assert_allclose(found[7], np.linalg.matrix_power(turn, 7) @ [1, 1], rtol=1e-12)
    if eta == 0.1:
        sizes = np.linalg.norm(found, axis=-1)
        assert sizes.min() == pytest.approx(1.345, abs=2e-3)
        assert sizes.max() == pytest.approx(1.4142, abs=2e-3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "rate"), [(0.1, 0.998518), (0.5, 0.962544)])
def test_negative_momentum_converges_where_players_alternate(eta: float, rate: float):
    tx = optim.by_player({p: optim.negative_momentum(eta) for p in ("x", "y")})
    found = path(alternating(BILINEAR, tx, {"x": 1, "y": 1}), training.init(start(), tx), 3000)
    sizes = np.linalg.norm(found, axis=-1)
    ratio = (sizes[2500:3000].max() / sizes[1000:1500].max()) ** (1 / 1500)
    assert ratio == pytest.approx(rate, abs=2e-4)


@pytest.mark.usefixtures("float64")
def test_lookahead_inside_each_player_makes_descent_in_turn_converge():
    tx = optim.by_player({p: optim.lookahead(optim.sgd(0.1), 20, 0.5) for p in ("x", "y")})
    found = path(alternating(BILINEAR, tx, {"x": 1, "y": 1}), training.init(start(), tx), 400)
    assert np.linalg.norm(found[-1]) < 1e-4


@pytest.mark.usefixtures("float64")
def test_several_turns_are_as_many_steps():
    rates = {"x": 0.3, "y": 0.2}
    tx = optim.by_player({player: optim.sgd(rate, momentum=0.5) for player, rate in rates.items()})
    found = path(alternating(BILINEAR, tx, {"y": 3, "x": 2}), training.init(start(), tx), 5)
    at, velocity, expected = {"x": 1.0, "y": 1.0}, {"x": 0.0, "y": 0.0}, [(1.0, 1.0)]
    for _ in range(5):
        for player in "yyyxx":
            slope = at["y"] if player == "x" else -at["x"]
            velocity[player] = slope + 0.5 * velocity[player]
            at[player] -= rates[player] * velocity[player]
        expected.append((at["x"], at["y"]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_each_turn_has_its_batch_and_its_key():
    def loss(player: str) -> Any:
        return lambda players, batch, key: players[player] * (batch + 0 * jax.random.normal(key))

    tx = optim.by_player({"a": optim.sgd(1.0), "b": optim.sgd(1.0)})
    step = alternating(game({"a": loss("a"), "b": loss("b")}), tx, {"b": 2, "a": 1}, own_batches=True)
    players = {"a": jnp.array(0.0), "b": jnp.array(0.0)}
    train_state, metrics = step(training.init(players, tx, key=jax.random.key(0)), jnp.array([1.0, 10.0, 100.0]))
    assert {name: value.item() for name, value in train_state.params.items()} == {"a": -100, "b": -11}
    assert {name: value.item() for name, value in metrics.items()} == {"loss/a": 0, "loss/b": -10}
    same, _ = step(training.init(players, tx, key=jax.random.key(0)), np.array([1.0, 10.0, 100.0], np.float32))
    assert same.params == train_state.params
    keyed = game({p: lambda players, batch, key, p=p: players[p] * jax.random.normal(key) for p in "ab"})
    train_state, _ = alternating(keyed, tx, {"b": 1, "a": 1})(training.init(players, tx, key=jax.random.key(0)), None)
    assert train_state.params["a"] != train_state.params["b"]


def test_metrics_are_of_the_last_move_of_the_player_whose_name_they_bear():
    losses = {p: lambda players, batch, key, p=p: (players[p] ** 2, {"at": players[p]}) for p in ("x", "y")}
    tx = optim.by_player({"x": optim.sgd(0.25), "y": optim.sgd(0.25)})
    step = alternating(game(losses, has_aux=True), tx, {"x": 2, "y": 1}, has_aux=True)
    _, metrics = step(training.init(start(), tx), None)
    assert {name: value.item() for name, value in metrics.items()} == {
        "loss/x": 0.25, "loss/y": 1, "at/x": 0.5, "at/y": 1,
    }  # fmt: skip
    value = lambda players, batch, key: (players["x"] * players["y"], {"x now": players["x"]})  # noqa: E731
    both = zero_sum(value, minimize="x", maximize="y", has_aux=True)
    _, metrics = alternating(both, tx, {"x": 1, "y": 1}, has_aux=True)(training.init(start(), tx), None)
    assert metrics["x now"] == 0.75  # of the last move of all


NETS = {"gen": nets.mlp(5, 2, activation=jnp.tanh), "disc": nets.mlp(6, 1, activation=jnp.tanh)}


def gan(which: str) -> Any:
    def loss(players: Any, batch: Any, key: Any) -> jax.Array:
        fake = NETS["gen"].apply(players["gen"], batch["z"])
        on_real, on_fake = (NETS["disc"].apply(players["disc"], x) for x in (batch["x"], fake))
        return getattr(training.non_saturating_gan(on_real, on_fake), which)

    return loss


GAN = game({"gen": gan("generator"), "disc": gan("critic")})


def players_and_batch(dtype: Any = jnp.float32) -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(0), 4)
    batch = {"z": jax.random.normal(keys[0], (8, 3), dtype), "x": jax.random.normal(keys[1], (8, 2), dtype)}
    players = {"gen": NETS["gen"].init(keys[2], batch["z"]), "disc": NETS["disc"].init(keys[3], batch["x"])}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), players), batch


def test_each_player_descends_its_own_loss():
    players, batch = players_and_batch()
    tx = optim.by_player({"gen": optim.sgd(0.1), "disc": optim.sgd(0.2)})
    train_state, metrics = jax.jit(training.step(GAN, tx))(training.init(players, tx), batch)
    for player, which, rate in (("gen", "generator", 0.1), ("disc", "critic", 0.2)):
        loss_fn = gan(which)
        loss, slope = jax.value_and_grad(loss_fn)(players, batch, None)
        expected = optax.tree.add_scale(players[player], -rate, slope[player])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), train_state.params[player], expected)
        np.testing.assert_allclose(metrics[f"loss/{player}"], loss, rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("inner", [optim.sgd(0.5), optim.adam(0.1)])
def test_the_gradient_through_steps_ahead_equals_finite_differences(inner: Any):
    players, batch = players_and_batch(jnp.float64)
    ahead = unroll_player(GAN, "disc", inner, 3)
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape), players["gen"])

    def value(t: Any) -> Any:
        own = jax.tree.map(lambda p, v: p + t * v, players["gen"], along)
        return ahead({**players, "gen": own}, batch)["gen"]

    after = jax.jit(value)
    np.testing.assert_allclose(jax.grad(value)(0.0), (after(1e-5) - after(-1e-5)) / 2e-5, rtol=1e-6)
    moved = players["disc"]
    tx, opt_state = inner, inner.init(moved)
    for _ in range(3):
        grads = jax.grad(lambda own: GAN({**players, "disc": own}, batch)["disc"])(moved)
        updates, opt_state = tx.update(grads, opt_state, moved)
        moved = optax.apply_updates(moved, updates)
    np.testing.assert_allclose(after(0.0), GAN({**players, "disc": moved}, batch)["gen"], rtol=1e-10)
    assert ahead(players, batch)["disc"] == GAN(players, batch)["disc"]


def test_no_step_ahead_is_the_game_to_the_bit():
    players, batch = players_and_batch()
    tx = optim.adam(1e-2)
    for ahead in (unroll_player(GAN, "disc", optim.sgd(0.5), 0), best_response(GAN, "disc", optim.sgd(0.5), 0)):
        found, plain = (jax.jit(training.step(each, tx))(training.init(players, tx), batch)[0] for each in (ahead, GAN))
        jax.tree.map(np.testing.assert_array_equal, found, plain)


@pytest.mark.usefixtures("float64")
def test_under_the_best_response_the_slope_is_that_of_the_value_function():
    def value(players: Any, batch: Any, key: Any) -> jax.Array:
        return jnp.sum(players["x"] * players["y"]) - jnp.sum(players["y"] ** 2) / 2 + jnp.sum(players["x"] ** 4)

    players = {"x": jnp.array([0.5, -1.0]), "y": jnp.zeros(2)}
    answered = best_response(zero_sum(value, minimize="x", maximize="y"), "y", optim.sgd(0.5), 60)
    found = jax.grad(lambda x: answered({**players, "x": x}, None)["x"])(players["x"])
    np.testing.assert_allclose(found, players["x"] + 4 * players["x"] ** 3, rtol=1e-9)  # of x^2 / 2 + x^4


NORMED = {
    "gen": nets.serial(nets.linear(5), nets.batch_norm(), jnp.tanh, nets.linear(2)),
    "disc": nets.serial(nets.linear(6), nets.batch_norm(), jnp.tanh, nets.linear(1)),
}


def normed(which: str) -> Any:
    def loss(players: Any, state: Any, batch: Any, key: Any) -> Any:
        fake, gen = NORMED["gen"].apply(players["gen"], state["gen"], batch["z"], train=True)
        on_real, disc = NORMED["disc"].apply(players["disc"], state["disc"], batch["x"], train=True)
        on_fake, disc = NORMED["disc"].apply(players["disc"], disc, fake, train=True)
        value = getattr(training.non_saturating_gan(on_real, on_fake), which)
        return value, ({"gen": gen, "disc": disc}, {"fake": jnp.mean(on_fake)})

    return loss


@pytest.mark.parametrize("order", ["at once", "in turn"])
def test_both_players_may_carry_statistics(order: str):
    _, batch = players_and_batch()
    made = {
        "gen": NORMED["gen"].init(jax.random.key(0), batch["z"]),
        "disc": NORMED["disc"].init(jax.random.key(1), batch["x"]),
    }
    players, state = ({player: pair[half] for player, pair in made.items()} for half in (0, 1))
    both = game({"gen": normed("generator"), "disc": normed("critic")}, stateful=True)
    tx = optim.by_player({"gen": optim.adam(1e-2), "disc": optim.adam(1e-2)})
    if order == "at once":
        step = training.step(both, tx, stateful=True)
    else:
        step = alternating(both, tx, {"disc": 2, "gen": 1}, stateful=True)
    train_state, metrics = jax.jit(step)(training.init(players, tx, state=state), batch)
    for player in ("gen", "disc"):
        changed = jax.tree.map(lambda a, b: jnp.any(a != b), train_state.state[player], state[player])
        assert any(jax.tree.leaves(changed))
    if order == "at once":
        for player, which in (("gen", "generator"), ("disc", "critic")):
            _, (expected, _) = normed(which)(players, state, batch, None)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
                train_state.state[player],
                expected[player],
            )
    assert set(metrics) == {"loss/gen", "loss/disc", "fake/gen", "fake/disc"}


def test_a_gan_step_in_mixed_precision_is_one_function_whose_buffers_are_donated():
    cast = {player: nets.cast(net, compute="bfloat16", outputs="float32") for player, net in NORMED.items()}

    def losses(players: Any, state: Any, batch: Any, key: Any) -> Any:
        fake, gen = cast["gen"].apply(players["gen"], state["gen"], batch["z"], train=True)
        on_real, disc = cast["disc"].apply(players["disc"], state["disc"], batch["x"], train=True)
        on_fake, disc = cast["disc"].apply(players["disc"], disc, fake, train=True)
        found = training.non_saturating_gan(on_real, on_fake)
        return {"gen": found.generator, "disc": found.critic}, ({"gen": gen, "disc": disc}, {})

    _, batch = players_and_batch()
    made = {p: cast[p].init(jax.random.key(0), batch[x]) for p, x in (("gen", "z"), ("disc", "x"))}
    players, state = ({player: pair[half] for player, pair in made.items()} for half in (0, 1))
    tx = optim.optimistic_adam(1e-2, b1=0.5)
    step: Any = jax.jit(training.step(losses, tx, stateful=True), donate_argnums=0)
    first = train_state = training.init(players, tx, state=state)
    for _ in range(3):
        train_state, _ = step(train_state, batch)
    assert step._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((first.params, first.opt_state, first.state)))
    assert {leaf.dtype for leaf in jax.tree.leaves(train_state.params)} == {jnp.dtype("float32")}


def test_three_players_move_on_their_own_losses():
    losses = {p: lambda players, batch, key, p=p, q=q: players[p] * players[q] for p, q in ("ab", "bc", "ca")}
    players = {"a": jnp.array(1.0), "b": jnp.array(2.0), "c": jnp.array(3.0)}
    tx = optim.sgd(0.1)
    train_state, _ = training.step(game(losses), tx)(training.init(players, tx), None)
    found = [round(train_state.params[p].item(), 5) for p in "abc"]
    assert found == [0.8, 1.7, 2.9]
    sides = zero_sum(lambda p, batch, key: p["a"] * p["b"] * p["c"], minimize=("a", "b"), maximize="c")
    assert {name: loss.item() for name, loss in sides(players, None).items()} == {"a": 6, "b": 6, "c": -6}


def test_the_dilemma_ends_in_cooperation_through_a_training_step():
    # Of rounds without end: 1 / (1 - gamma) times the years a round.
    losses = {p: lambda players, batch, key, p=p: games.prisoners_dilemma(players)[p] / 0.04 for p in ("x", "y")}
    tx = optim.chain(optim.lola(1.0), optim.sgd(1.0))
    step = training.step(game(losses), tx)

    def final(key: jax.Array) -> jax.Array:
        players = dict(zip(("x", "y"), jax.random.normal(key, (2, 5)), strict=True))
        train_state, _ = jax.lax.scan(lambda s, _: step(s, None), training.init(players, tx), None, 100)
        return jnp.stack(list(games.prisoners_dilemma(train_state.params).values()))

    assert jnp.mean(jax.jit(jax.vmap(final))(jax.random.split(jax.random.key(0), 10))) < 1.15


def test_games_go_into_fit_and_print_as_their_calls():
    players, batch = players_and_batch()
    tx = optim.by_player({"gen": optim.adam(1e-2), "disc": optim.adam(1e-2)})
    step = alternating(GAN, tx, {"disc": 1, "gen": 1})
    _, history = training.fit(step, training.init(players, tx), [batch] * 4, num_steps=4, progress=False)
    assert set(history[-1]) == {"step", "loss/disc", "loss/gen"}
    assert repr(tx) == "by_player({'gen': adam(0.01), 'disc': adam(0.01)})"
    assert zero_sum(product, minimize="x", maximize="y") == BILINEAR
    assert hash(BILINEAR) == hash(zero_sum(product, minimize="x", maximize="y"))
    assert step == alternating(GAN, tx, {"disc": 1, "gen": 1})


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: game({}), ValueError, "game: expected a loss for each player, got none"),
        (
            lambda: zero_sum(product, minimize="x", maximize=("x", "y")),
            ValueError,
            "zero_sum: expected players on both sides, none of them on both, got minimize='x', maximize=('x', 'y')",
        ),
        (
            lambda: unroll_player(BILINEAR, "y", optim.sgd(0.1), -1),
            ValueError,
            "unroll_player: expected num_steps to be an integer of at least 0, got -1",
        ),
        (
            lambda: best_response(BILINEAR, "z", optim.sgd(0.1), 1)(start(), None),
            ValueError,
            "best_response: expected 'z' to be one of the players, got ['x', 'y']",
        ),
        (
            lambda: alternating(BILINEAR, optim.sgd(0.1), {"x": 1}),
            TypeError,
            "alternating: expected tx with a link for each player, optim.by_player({...}), got sgd(0.1)",
        ),
        (
            lambda: alternating(BILINEAR, optim.by_player({"x": optim.sgd(0.1)}), {}),
            ValueError,
            "alternating: expected turns such as {'critic': 5, 'generator': 1}, got none",
        ),
        (
            lambda: alternating(BILINEAR, optim.by_player({"x": optim.sgd(0.1)}), {"x": 0}),
            ValueError,
            "alternating: expected turns['x'] to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.step(game({"x": lambda p, b, k: p["x"] * jnp.ones(2)}), optim.sgd(0.1))(
                training.init({"x": jnp.array(1.0)}, optim.sgd(0.1)), None
            ),
            TypeError,
            "game: x: expected loss_fn to return a scalar loss, got shape (2,). Take its mean.",
        ),
        (
            lambda: optim.by_player({"x": optim.sgd(0.1)}).init(start()),
            ValueError,
            "by_player: expected parameters of the players ['x'], got ['x', 'y']. A game's parameters are a dict, "
            "{'player': its parameters}.",
        ),
    ],
)  # fmt: skip
def test_games_that_cannot_be_are_refused(build: Any, error: Any, message: str):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        build()


def counted(p: Any, state: Any, batch: Any, key: Any) -> Any:
    return jnp.sum(p["x"] * p["y"]), ({"count": state["count"] + 1}, {})


def forgetful(p: Any, state: Any, batch: Any, key: Any) -> Any:
    return p["x"] ** 2, ({}, {})


STATES = {
    "game": (game({"x": forgetful, "y": counted}, stateful=True), None),
    "alternating": (zero_sum(counted, minimize="x", maximize="y", stateful=True), {"x": 1}),
    "unroll_player": (
        unroll_player(
            zero_sum(counted, minimize="x", maximize="y", stateful=True), "y", optim.sgd(0.1), 1, stateful=True
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize(("state", "got"), [({"count": jnp.array(0)}, "['count']"), (None, "NoneType")])
def test_a_state_that_is_no_players_is_refused(name: str, state: Any, got: str):
    loss_fn, turns = STATES[name]
    tx = optim.by_player({"x": optim.sgd(0.1), "y": optim.sgd(0.1)})
    step = alternating(loss_fn, tx, turns, stateful=True) if turns else training.step(loss_fn, tx, stateful=True)
    message = (
        f"{name}: expected a state of players, a dict with names of ['x', 'y'], got {got}. "
        "Write training.init(players, tx, state={'player': its state})."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        step(training.init(start(), tx, state=state), None)


def test_a_loss_that_does_not_return_its_players_state_is_refused():
    tx = optim.by_player({"x": optim.sgd(0.1), "y": optim.sgd(0.1)})
    begin = training.init(start(), tx, state={"x": jnp.array(0)})
    forgets = game({"x": forgetful, "y": forgetful}, stateful=True)
    with pytest.raises(TypeError, match=r"^game: x: expected loss_fn to return states with that of 'x', got \[\]"):
        training.step(forgets, tx, stateful=True)(begin, None)
    forgets = zero_sum(forgetful, minimize="x", maximize="y", stateful=True)
    with pytest.raises(TypeError, match=r"^alternating: x: expected loss_fn to return states with that of 'x', got "):
        alternating(forgets, tx, {"x": 1}, stateful=True)(begin, None)


@pytest.mark.parametrize(
    ("name", "play"),
    [
        ("unroll_player", lambda loss: unroll_player(loss, "y", optim.sgd(0.1), 1)(start(), None)),
        ("best_response", lambda loss: best_response(loss, "y", optim.sgd(0.1), 1)(start(), None)),
        ("alternating", lambda loss: alternating(loss, EACH, {"y": 1})(training.init(start(), EACH), None)),
        (
            "duality_gap",
            lambda loss: training.duality_gap(loss, optim.sgd(0.1), 1, minimize="x", maximize="y")(start()),
        ),
    ],
)
def test_what_is_no_game_of_the_player_is_refused(name: str, play: Any):
    for loss, got in ((product, "one loss"), (game({"x": product}), "those of ['x']")):
        message = f"{name}: expected a game with a loss of 'y', got {got}. Write game or zero_sum."
        with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
            play(loss)


EACH = optim.by_player({"x": optim.sgd(0.1), "y": optim.sgd(0.1)})


@pytest.mark.parametrize(
    "tx", [optim.lookahead(EACH, 5), optim.chain(optim.consensus(1.0), EACH), optim.chain(EACH, optim.ema_params(0.9))]
)
def test_links_that_need_all_players_at_once_are_refused_in_turns(tx: Any):
    message = (
        f"alternating: expected links around by_player that take the updates of one player at a time, got {tx!r}. Give "
        "them to each player inside by_player, or let all play at once by training.step."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        alternating(BILINEAR, tx, {"x": 1, "y": 1})(training.init(start(), tx), None)


def test_who_has_no_turn_stays_with_its_state():
    players, begin = start(), training.init(start(), EACH, state={"x": jnp.array(0), "y": jnp.array(0)})
    both = game({p: lambda z, s, batch, key, p=p: (z[p] ** 2, ({p: s[p] + 1}, {})) for p in players}, stateful=True)
    after, metrics = alternating(both, EACH, {"x": 2}, stateful=True)(begin, None)
    assert (after.params["y"], after.state, set(metrics)) == (1, {"x": 2, "y": 0}, {"loss/x"})
    ahead = unroll_player(both, "y", optim.sgd(0.1), 2, stateful=True)
    after, _ = training.step(ahead, EACH, stateful=True)(begin, None)
    assert after.state == {"x": 1, "y": 1}


def test_a_clip_in_front_takes_the_players_in_turn():
    tx = optim.chain(optim.clip(0.5), EACH)
    train_state, _ = alternating(BILINEAR, tx, {"x": 1, "y": 1})(training.init(start(), tx), None)
    assert {name: round(value.item(), 6) for name, value in train_state.params.items()} == {"x": 0.95, "y": 1.05}


def test_a_batch_of_another_number_of_turns_is_refused():
    tx = optim.by_player({"x": optim.sgd(0.1), "y": optim.sgd(0.1)})
    step = alternating(BILINEAR, tx, {"x": 2, "y": 1}, own_batches=True)
    with pytest.raises(
        ValueError, match=r"^alternating: expected batch/z with an axis of 3 moves in front, got \(2, 5\)$"
    ):
        step(training.init(start(), tx), {"z": jnp.ones((2, 5))})
