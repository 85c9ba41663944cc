"""Runs of GANs: what they print and leave, who judges their samples, and how they end."""

import contextlib
import csv
import io
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training
from renga.training import cli
from renga.training.cli import _gan_run, _plots
from renga.training.cli._config import load, override
from renga.training.cli._directory import by_path
from renga.training.cli._gan import Field, GanExperiment, Loss

from .test_run import arrays, names, rows, setting

CONFIGS = ["digits_dcgan", "digits_wgan_gp"]
FILES = [
    "classes.csv", "config.toml", "curves.png", "metrics.csv", "metrics.jsonl", "params.npz", "samples.gif",
    "samples.png",
]  # fmt: skip
SMALL = [
    "generator.latents=3", "generator.width=2", "critic.width=2", "critic.turns=2", "train.num_steps=2",
    "train.report_every=1", "train.batch_size=4", "test.num_samples=100", "test.classifier_steps=2",
]  # fmt: skip


def read(name: str = "digits_dcgan", *assignments: str) -> GanExperiment:
    """A small experiment."""
    found = cli.read_experiment(override(load(cli.configs()[name]), [*SMALL, *assignments]))
    assert isinstance(found, GanExperiment)
    return found


def shares(directory: Path) -> list[float]:
    with (directory / "classes.csv").open(encoding="utf-8", newline="") as table:
        return [float(row["share"]) for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The directory and the output of a small run."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["train", "digits_dcgan", "--out", str(directory), *setting(*SMALL)]) == 0
    return directory, out.getvalue()


def test_a_run_prints_its_players_their_chains_reports_and_how_good_samples_are(finished):
    directory, out = finished
    number = r"-?[\d.e+-]+"
    report = (
        rf"  loss/critic {number}  loss/generator {number}  classes \d+  "
        rf"frechet {number}  [\d,]+ steps/s  ETA \d:\d\d"
    )
    patterns = [
        r"generator dcgan_generator\(8, 1, width=2\)",
        r"critic    dcgan_discriminator\(8, width=2\)",
        r"chain     by_player\({'generator': chain\(.*, ema_params\(.*\)\), 'critic': .*}\)",
        "turns     critic 2, generator 1",
        "images    1438 to train on, 359 held out",
        rf"judge     test accuracy 0\.\d{{4}}, Fréchet distance of what is held out {number}",
        f"run       {re.escape(str(directory))}",
        f"step 1/2{report}",
        f"step 2/2{report}",
        r"shares    0: 0\.\d{3}  1: .*  9: 0\.\d{3}",
        rf"\d+ of 10 digits with a share of 3% or more among 100 samples, Fréchet distance {number} on features of the "
        r"judge, after 2 steps in \d+ s",
    ]
    for pattern, line in zip(patterns, out.splitlines(), strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_run_leaves_its_metrics_parameters_shares_and_pictures(finished):
    assert names(finished[0]) == FILES
    assert [row["step"] for row in rows(finished[0])] == [1, 2]
    assert arrays(finished[0])["generator/project/w"].shape == (3, 32)
    assert arrays(finished[0])["state/generator/norms/0/mean"].shape == (2,)
    assert len(shares(finished[0])) == 10
    assert (finished[0] / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert (finished[0] / "samples.gif").read_bytes().startswith(b"GIF89a")


def test_the_resolved_config_runs_again_with_the_same_numbers(finished, renga):
    assert renga("train", str(finished[0] / "config.toml"), "--out", "again").code == 0
    for name in ("metrics.csv", "params.npz", "classes.csv"):
        assert (Path("again") / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_wasserstein_gan_with_a_gradient_penalty_runs(renga):
    answer = renga("train", "digits_wgan_gp", "--out", "run", *setting(*SMALL))
    assert (answer.code, answer.err) == (0, "")
    assert names(Path("run")) == FILES


def test_a_step_is_a_move_of_each_player_on_a_batch_of_its_own():
    experiment = read("digits_dcgan", "loss.slope_penalty=0.5")
    train_state: Any = _gan_run.begin(experiment)
    x = jax.random.uniform(jax.random.key(1), (3 * 4, 8, 8, 1))
    after, _ = experiment.step()(train_state, {"x": x})
    built = experiment.players
    field = Field(built["generator"], built["critic"], experiment.loss, 3)
    tx: Any = experiment.chain
    players, opt_state, state = train_state.params, train_state.opt_state, train_state.state
    step_key = jax.random.fold_in(train_state.key, 0)
    for index, player in enumerate(("critic", "critic", "generator")):
        batch, key = x[4 * index : 4 * index + 4], jax.random.fold_in(step_key, index)

        def own_loss(own: Any, players=players, state=state, player=player, batch=batch, key=key) -> Any:
            losses, (new, _) = field({**players, player: own}, state, batch, key)
            return losses[player], new

        grads, new = jax.grad(own_loss, has_aux=True)(players[player])
        updates, opt_state = tx.update({player: grads}, opt_state, players)
        players = {**players, player: jax.tree.map(jnp.add, players[player], updates[player])}
        state = new if player == "generator" else state
    assert jax.tree.structure(after.state) == jax.tree.structure(state)
    for found, wanted in ((after.params, players), (after.state, state)):
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), found, wanted)


def test_the_losses_are_of_images_between_minus_one_and_one():
    critic = nets.serial(nets.flatten(), lambda x: jnp.sum(x, -1))
    generator = read().players["generator"]
    params, state = generator.init(jax.random.key(0), jnp.ones((2, 3)))
    field = Field(generator, critic, Loss("wasserstein", gradient_penalty=2.0), 3)
    players = {"generator": params, "critic": critic.init(jax.random.key(0), jnp.ones((8, 8, 1)))}
    losses, _ = field(players, {"generator": state}, jnp.ones((5, 8, 8, 1)), jax.random.key(2))
    # The critic's slope is 1 in each of 64 pixels, 8 in all, and its mean on white images is 64.
    expected = -losses["generator"].item() - 64 + 2 * 7**2
    assert losses["critic"].item() == pytest.approx(expected, rel=1e-5)


def test_samples_come_from_the_averaged_generator():
    experiment = read("digits_dcgan", "generator.average=0.5")
    step, train_state = jax.jit(experiment.step()), _gan_run.begin(experiment)
    seen, x = [], jax.random.uniform(jax.random.key(1), (3 * 4, 8, 8, 1))
    for _ in range(2):
        train_state, _ = step(train_state, {"x": x})
        seen.append(train_state.params["generator"])
    mean = jax.tree.map(lambda one, two: (one + 2 * two) / 3, *seen)
    latents = jax.random.normal(jax.random.key(2), (6, 3))
    expected, _ = experiment.players["generator"].apply(mean, train_state.state["generator"], latents, train=True)
    found = _gan_run.averaged_images(experiment, train_state, latents)
    np.testing.assert_allclose(found, (expected + 1) / 2, rtol=1e-4)


def test_only_samples_that_the_judge_is_sure_of_count_and_features_are_its_hidden_layer():
    experiment = read("digits_dcgan", "test.sure=0.9")
    params = nets.convnet((32, 64), 64, 10).init(jax.random.key(0), jnp.ones((8, 8, 1)))
    seen = jnp.ones((3, 8, 8, 1))
    hidden = _gan_run.features(params, seen)
    told = hidden @ params["head"]["w"] + params["head"]["b"]
    np.testing.assert_allclose(nets.convnet((32, 64), 64, 10).apply(params, seen), told, rtol=1e-4, atol=1e-5)
    judge = _gan_run.Judge(params, 0.0, jax.random.normal(jax.random.key(1), (70, 64)), 0.0)
    train_state: Any = _gan_run.begin(experiment)
    assert _gan_run.judged(experiment, judge, train_state).shares.sum() == 0
    certain = judge._replace(params={**params, "head": {"w": params["head"]["w"], "b": 99 * jnp.eye(10)[4]}})
    scores = _gan_run.judged(experiment, certain, train_state)
    assert scores.shares.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert scores.classes == 1


def test_a_player_that_breaks_stops_the_run_with_its_name_and_the_last_good_parameters(renga, monkeypatch):
    words = setting(
        *SMALL, "train.num_steps=40", "critic.optim={name='sgd', learning_rate=1e30}", "loss.name='wasserstein'"
    )
    answer = renga("train", "digits_dcgan", "--out", "run", *words)
    assert answer.code == 1
    assert re.fullmatch(
        r"renga: step \d+: expected finite players, got .*critic.* with NaN or infinity in the next\. A smaller "
        r"(critic|generator).optim.learning_rate may help\. The parameters of this step are kept\. run holds "
        r"checkpoints, config.toml, metrics.csv, metrics.jsonl, params.npz\n",
        answer.err,
    )
    assert all(np.isfinite(array).all() for array in arrays(Path("run")).values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train.batch_size=720"],
            "train.batch_size: expected at most 719, since 2 moves a step share 1438 training images, got 720",
        ),
        (['critic.optim={name="adamm"}'], "critic.optim.name: "),
        (['loss.name="hing"'], "loss.name: expected one of non_saturating, saturating, wasserstein, "),
    ],
)
def test_what_cannot_be_run_is_refused(words, message, renga):
    answer = renga("train", "digits_dcgan", "--out", "run", *setting(*words))
    assert answer.code == 2
    assert answer.err.startswith(f"renga: {message}")
    assert not Path("run").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_summary_shows_both_players(name, renga):
    answer = renga("summary", name, *setting(*SMALL))
    assert (answer.code, answer.err) == (0, "")
    assert [line for line in answer.out.splitlines() if line in ("generator", "critic")] == ["generator", "critic"]


def test_images_stand_in_rows_of_ten():
    frame = np.arange(23.0)[:, None, None, None] * np.ones((23, 2, 3, 1))
    grid = _plots.tiled(frame)
    assert grid.shape == (6, 40)
    np.testing.assert_array_equal(grid[0, ::4], range(10))
    np.testing.assert_array_equal(grid[3, ::4], range(10, 20))
    assert grid[2].max() == grid[:, 3::4].max() == 0


def test_the_names_of_the_losses_are_those_of_training():
    for name in Loss.__annotations__["name"].__args__:
        assert callable(getattr(training, f"{name}_gan"))


def test_parameters_have_paths_by_player():
    assert {path.split("/")[0] for path in by_path(_gan_run.begin(read()).params)} == {"generator", "critic"}
