"""Runs of games: what they print and leave, their seeds, and what each method plays."""

import contextlib
import csv
import dataclasses
import io
import re
import shlex
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import cli
from renga.training.cli import _game, _game_run
from renga.training.cli._config import ConfigError, load, read, write
from renga.training.cli._game import GameExperiment
from renga.training.cli._game_methods import Grid, PlayerNets, Ring

from .test_run import arrays, names, rows, setting

CONFIGS = ["gan_grid", "gan_ring"]
FILES = ["config.toml", "metrics.csv", "metrics.jsonl", "params.npz", "samples.png", "scores.csv", "training.gif"]
TINY = setting(
    "num_seeds=2", "net={latent=3, generator=[4], critic=[5]}", "train={num_steps=4, report_every=2, batch_size=6}",
    "test={num_samples=40, at_least=1, radius=9.0}",
)  # fmt: skip
SMALL = [*TINY, *setting('play=["rmsprop", "alternating"]')]

GAME = """
seed = 3
num_seeds = 1
net = { latent = 3, generator = [4], critic = [5], activation = "tanh" }
train = { num_steps = 3, report_every = 3, batch_size = 6 }
[methods.plain]
optim = { name = "sgd", learning_rate = 0.1 }
[methods.turns]
optim = { name = "by_player", links = { critic = { name = "sgd", learning_rate = 0.1 }, generator = { name = "sgd", learning_rate = 0.2 } } }
turns = { critic = 2, generator = 1 }
[methods.ahead]
optim = { name = "sgd", learning_rate = 0.1 }
unroll = { num_steps = 2, optim = { name = "sgd", learning_rate = 0.3 } }
"""  # noqa: E501


def experiment(text: str = GAME) -> GameExperiment:
    """A config that runs in a moment."""
    found = cli.read_experiment(cli._config.tomllib.loads(text))
    assert isinstance(found, GameExperiment)
    return found


def scores(directory: Path) -> list[dict[str, str]]:
    with (directory / "scores.csv").open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The directory and the output of a small run."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["train", "gan_ring", "--out", str(directory), *SMALL]) == 0
    return directory, out.getvalue()


def test_a_run_prints_its_methods_as_they_play_and_a_table(finished):
    directory, out = finished
    number, adam = r"[\d.e+-]+", r"adam\(0.001, b1=0.5, b2=0.9\)"
    report = rf"modes {number}  near {number}  [\d,]+ steps/s  ETA \d+:\d\d"
    cell = r"\d\.\d\d to \d\.\d\d +\d\.\d\d to \d\.\d\d"
    patterns = [
        r"generator mlp\(4, 2\)",
        r"critic    mlp\(5, 1\)",
        r"data      8 Gaussians in a ring, sigma 0.1",
        r"steps     4 by 2 seeds, in 2 compiled calls",
        f"run       {re.escape(str(directory))}",
        "",
        r"rmsprop: rmsprop\(0.001\)",
        f"step 2/4  {report}",
        f"step 4/4  {report}",
        "",
        rf"alternating: by_player\({{'critic': {adam}, 'generator': {adam}}}\), in turns critic 1, generator 1",
        f"step 2/4  {report}",
        f"step 4/4  {report}",
        "",
        "method       modes of 8  near a mode   distance +seconds",
        rf"data         [78] [78]         {cell}  -",
        rf"rmsprop      \d \d         {cell}  \d+\.\d",
        rf"alternating  \d \d         {cell}  \d+\.\d",
        r"all 8 modes on every seed: .* after 4 steps in \d+ s",
    ]
    for pattern, line in zip(patterns, out.splitlines(), strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_run_leaves_its_metrics_players_scores_and_pictures(finished):
    directory, _ = finished
    assert names(directory) == FILES
    assert [(row["method"], row["step"], row["seed"]) for row in rows(directory)] == [
        (method, step, seed) for method in ("rmsprop", "alternating") for step in (2, 4) for seed in (0, 1)
    ]
    losses = {"loss/generator", "loss/critic"}
    assert {*rows(directory)[0]} == {"method", "seed", "step", "modes", "near", "sliced_wasserstein", *losses}
    assert arrays(directory)["alternating/seed_1/critic/layers/0/w"].shape == (2, 5)
    assert (directory / "samples.png").read_bytes().startswith(b"\x89PNG")
    gif = (directory / "training.gif").read_bytes()
    assert gif.startswith(b"GIF89a")
    assert gif.count(b"\x21\xf9\x04") == 2  # a graphic control extension for each frame


def test_the_scores_are_those_of_the_players_that_were_left(finished):
    directory, _ = finished
    net = nets.mlp(4, 2)
    for row in scores(directory):
        key = jax.random.key(int(row["seed"]))
        params = net.init(key, jnp.ones(3))
        prefix = f"{row['method']}/seed_{row['seed']}/generator"
        params = {
            "layers": [
                {leaf: arrays(directory)[f"{prefix}/layers/{place}/{leaf}"] for leaf in layer}
                for place, layer in enumerate(params["layers"])
            ]
        }
        samples = np.asarray(net.apply(params, jax.random.normal(jax.random.fold_in(key, 3), (40, 3))))
        angles = np.arange(8) * np.pi / 4
        distances = np.linalg.norm(samples[:, None] - 2 * np.stack([np.cos(angles), np.sin(angles)], -1), axis=-1)
        near = distances.min(1) <= 0.9
        assert float(row["near"]) == pytest.approx(near.mean())
        assert int(row["modes"]) == len(set(distances.argmin(1)[near]))


def test_a_seed_plays_the_same_alone_and_in_company(finished, renga):
    answer = renga("train", "gan_ring", "--out", "alone", *SMALL, *setting("seed=1", "num_seeds=1", 'play=["rmsprop"]'))
    assert (answer.code, answer.err) == (0, "")
    for name, array in arrays(Path("alone")).items():
        np.testing.assert_allclose(array, arrays(finished[0])[name], rtol=1e-4, atol=1e-6)


def test_the_resolved_config_runs_again_with_the_same_numbers(finished, renga):
    assert renga("train", str(finished[0] / "config.toml"), "--out", "again").code == 0
    for name in ("metrics.csv", "params.npz"):
        assert (Path("again") / name).read_bytes() == (finished[0] / name).read_bytes()


def by_hand(config: GameExperiment, name: str) -> Any:
    """The players after a few steps of gradient descent, in plain loops."""
    net = config.net.build()
    key = jax.random.fold_in(jax.random.key(3), 1)
    order = jax.random.fold_in(jax.random.key(3), 2)
    players = config.net.init(jax.random.fold_in(jax.random.key(3), 0))

    def loss(player: str, players: Any, batch: Any, key: Any) -> jax.Array:
        fake = net["generator"].apply(players["generator"], jax.random.normal(key, (6, 3)))
        on_real, on_fake = (net["critic"].apply(players["critic"], x) for x in (batch, fake))
        of_fake = jnp.log1p(jnp.exp(-on_fake if player == "generator" else on_fake)).mean()
        return of_fake if player == "generator" else of_fake + jnp.log1p(jnp.exp(-on_real)).mean()

    def slope(player: str, players: Any, batch: Any, key: Any) -> Any:
        return jax.grad(lambda own: loss(player, {**players, player: own}, batch, key))(players[player])

    def move(own: Any, grads: Any, rate: float) -> Any:
        return jax.tree.map(lambda leaf, grad: leaf - rate * grad, own, grads)

    def seen(generator: Any, players: Any, batch: Any, key: Any) -> jax.Array:
        players = {**players, "generator": generator}
        for _ in range(2):
            players = {**players, "critic": move(players["critic"], slope("critic", players, batch, key), 0.3)}
        return loss("generator", players, batch, key)

    for count in range(3):
        batch = _game.sample_mixture(config, jax.random.fold_in(order, count), 6)
        step_key = jax.random.fold_in(key, count)
        if name == "turns":
            for index, (player, rate) in enumerate((("critic", 0.1), ("critic", 0.1), ("generator", 0.2))):
                grads = slope(player, players, batch, jax.random.fold_in(step_key, index))
                players = {**players, player: move(players[player], grads, rate)}
            continue
        grads = {player: slope(player, players, batch, step_key) for player in players}
        if name == "ahead":
            grads["generator"] = jax.grad(seen)(players["generator"], players, batch, step_key)
        players = move(players, grads, 0.1)
    return players


@pytest.mark.parametrize("name", ["plain", "turns", "ahead"])
def test_a_method_plays_as_plain_loops_do(name, tmp_path, capsys):
    config = dataclasses.replace(experiment(), play=(name,))
    found = _game_run.game_train(config, tmp_path / "run", "small")[name].players
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-6), found, by_hand(config, name))


@pytest.mark.long
@pytest.mark.parametrize("config", CONFIGS)
def test_every_method_of_a_config_plays(config, renga):
    answer = renga("train", config, "--out", "run", *TINY, *setting("num_seeds=1", "train.num_steps=2"))
    assert (answer.code, answer.err) == (0, "")
    assert names(Path("run")) == FILES
    methods = list(load(cli.configs()[config])["methods"])
    assert [row["method"] for row in scores(Path("run"))] == methods
    assert {
        "adam", "rmsprop", "alternating", "optimistic", "extra_adam", "lookahead", "unrolled", "consensus", "symplectic"
    } <= set(methods)  # fmt: skip


def test_a_method_that_diverges_keeps_its_last_finite_players_and_says_whose_loss_was_not(renga):
    answer = renga(
        "train", "gan_ring", "--out", "run", *SMALL,
        *setting('play=["rmsprop"]', "methods.rmsprop.optim.learning_rate=1e30"),
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")
    lost = r"rmsprop, seed [01]: loss/\w+ (nan|inf)(, loss/\w+ (nan|inf))? at step [24]; parameters are from before"
    assert len(re.findall(lost, answer.out)) == 2
    assert all(np.isfinite(array).all() for array in arrays(Path("run")).values())


def test_summary_shows_both_players(renga):
    answer = renga("summary", "gan_ring")
    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^generator\n(.*\n)+\ncritic\n", answer.out, re.MULTILINE)
    assert re.search(r"^layers/0 +linear\(64\) +\(64,\) +1,088 ", answer.out, re.MULTILINE)
    assert re.search(r"^layers/0 +linear\(64\) +\(64,\) +192 ", answer.out, re.MULTILINE)


def test_the_configs_are_listed(renga):
    out = renga("list").out
    assert all(f"\n{name}\n" in f"\n{out}" for name in CONFIGS)


def test_the_modes_are_where_the_literature_has_them():
    np.testing.assert_allclose(Ring(num_modes=4).centers, [[2, 0], [0, 2], [-2, 0], [0, -2]], atol=1e-6)
    expected = [[x, y] for y in (-4, -2, 0, 2, 4) for x in (-4, -2, 0, 2, 4)]
    np.testing.assert_array_equal(Grid().centers, expected)


def test_a_mixture_has_as_many_points_at_each_mode_and_their_deviation():
    config = GameExperiment(methods=experiment().methods, data=Grid(side=2, sigma=0.1))
    points = _game.sample_mixture(config, jax.random.key(0), 4000)
    found = training.modes_found(points, jnp.asarray(config.data.centers), 1.0)
    np.testing.assert_allclose(found.counts, 1000, atol=100)
    offsets = points - jnp.sign(points)
    assert jnp.std(offsets) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("loss", _game.LOSSES)
def test_a_loss_is_that_of_its_name(loss):
    config: Any = dataclasses.replace(experiment(), loss=loss)
    players, batch, key = config.net.init(jax.random.key(0)), jnp.ones((6, 2)), jax.random.key(1)
    fake = _game.generate(config, players, key, 6)
    on_real, on_fake = (config.net.build()["critic"].apply(players["critic"], x) for x in (batch, fake))
    expected = getattr(training, f"{loss}_gan")(on_real, on_fake)
    assert _game.gan(config)(players, batch, key) == expected._asdict()


def test_the_players_are_the_networks_that_their_options_say():
    built = PlayerNets(generator=(3, 4), critic=(5,), activation="tanh").build()
    assert built == {"generator": nets.mlp(3, 4, 2, activation=jnp.tanh), "critic": nets.mlp(5, 1, activation=jnp.tanh)}


def test_the_first_biases_of_a_critic_are_spread_where_that_is_asked_for():
    critic = PlayerNets(critic=(1000, 5), critic_bias=4.0).init(jax.random.key(0))["critic"]
    first, *rest = [leaf for leaf in jax.tree.leaves(critic) if leaf.ndim == 1]
    assert 3.9 < jnp.abs(first).max() <= 4
    assert jnp.std(first) == pytest.approx(4 / 3**0.5, rel=0.05)
    assert not any(leaf.any() for leaf in rest)
    same = PlayerNets(critic=(1000, 5)).init(jax.random.key(0))["critic"]
    assert [leaf.size for leaf in jax.tree.leaves(same)] == [leaf.size for leaf in jax.tree.leaves(critic)]


def test_a_method_is_a_link_in_the_language_of_optim():
    chain = experiment().methods["turns"].chain(3, "methods.turns")
    assert chain == optim.by_player({"critic": optim.sgd(0.1), "generator": optim.sgd(0.2)})


def test_tables_with_names_of_their_own_are_read_and_written():
    assert read(GameExperiment, cli._config.tomllib.loads(write(experiment()))) == experiment()
    spaced = GAME.replace("methods.turns", 'methods."in turns, twice"')
    assert 'methods."in turns, twice"' in write(experiment(spaced))
    assert read(GameExperiment, cli._config.tomllib.loads(write(experiment(spaced)))) == experiment(spaced)


REFUSED = {
    "methods=[]": "methods: expected a table, got []",
    "methods={}": "methods: expected a table for each method, such as [methods.adam], got none",
    "methods.plain=1": "methods.plain: expected a table, got 1",
    "methods.plain.optim=1": "methods.plain.optim: expected a table, got 1",
    "methods.mine.turns={critic=1}": "methods.mine.optim: expected a table, got none",
    "methods.plain.optim.name=sdg": (
        "methods.plain.optim.name: expected the name of a link or a schedule, got 'sdg'. There are 'sgd', "
    ),
    "methods.plain.optim.rate=1": "methods.plain.optim.rate: expected an argument of sgd. There are ",
    "methods.plain.turn={critic=1}": (
        'methods.plain.turn: expected a key (optim, turns, unroll), got "turn". Did you mean methods.plain.turns?'
    ),
    "methods.plain.turns={critic=1}": (
        "methods.plain.turns: alternating: expected tx with a link for each player, optim.by_player({...}), got "
    ),
    "methods.turns.turns={}": (
        "methods.turns.turns: alternating: expected turns such as {'critic': 5, 'generator': 1}, got none"
    ),
    "methods.turns.turns.critic=0": "methods.turns.turns.critic: expected an integer in [1, 2147483647], got 0",
    "methods.turns.turns.critics=1": (
        "methods.turns.turns.critics: expected a player, one of generator, critic, got 'critics'"
    ),
    'methods.turns.optim.links={critic={name="adam", learning_rate=0.1}}': (
        "methods.turns.optim: by_player: expected parameters of the players ['critic'], got ['critic', 'generator']."
    ),
    "methods.ahead.unroll.player=judge": (
        'methods.ahead.unroll.player: expected one of generator, critic, got "judge"'
    ),
    "methods.ahead.unroll.num_steps=0": "methods.ahead.unroll.num_steps: expected an integer in [1, 2147483647], got 0",
    "methods.ahead.unroll.optim.name=sdg": (
        "methods.ahead.unroll.optim.name: expected the name of a link or a schedule, got 'sdg'."
    ),
    'play=["plane"]': "play[0]: expected one of plain, turns, ahead, got 'plane'",
    "play=[]": "play: expected a list with a length of at least 1, each item text, got []",
    "loss=logistic": 'loss: expected one of non_saturating, saturating, hinge, least_squares, relativistic, ',
    "data.name=rings": 'data.name: expected one of ring, grid, got "rings". Did you mean ring?',
    "data.sigma=0": "data.sigma: expected a number above 0 and finite, got 0",
    "data={name='grid', radius=1.0}": 'data.radius: expected a key of grid (name, side, spacing, sigma), got "radius"',
    "net.activation=relo": 'net.activation: expected one of relu, leaky_relu, tanh, got "relo"',
    "net.critic_bias=0": "net.critic_bias: expected a number above 0 and finite, got 0",
    "train.report_every=2": "train.report_every: expected a divisor of train.num_steps = 3, got 2",
    "num_seeds=0": "num_seeds: expected an integer in [1, 1000], got 0",
}  # fmt: skip


@pytest.mark.parametrize("assignment", REFUSED)
def test_what_cannot_be_played_is_refused_by_its_path_and_leaves_nothing(assignment, renga, monkeypatch):
    Path("game.toml").write_text(GAME, encoding="utf-8")
    monkeypatch.setattr(_game_run, "loop", lambda *args, **keywords: pytest.fail("training began"))
    answer = renga("train", "game.toml", "--set", assignment)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"renga: {REFUSED[assignment]}")
    assert answer.err.count("\n") == 1
    assert names(Path()) == ["game.toml"]


def test_a_config_of_a_game_needs_methods(renga):
    Path("game.toml").write_text('[data]\nname = "ring"\n', encoding="utf-8")
    answer = renga("train", *shlex.split("game.toml"))
    assert (answer.code, answer.err) == (2, "renga: methods: expected a table, got none\n")


def test_a_directory_that_holds_another_run_is_refused(finished):
    with pytest.raises(ConfigError, match=r"expected a new or empty directory, got one that holds config\.toml, "):
        _game_run.game_train(experiment(), finished[0], "small")
