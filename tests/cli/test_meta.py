"""Runs of meta-learning: what they print and leave, their seeds, and what each method changes."""

import contextlib
import csv
import io
import re
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training
from renga.training import cli
from renga.training.cli._config import load
from renga.training.cli._directory import by_path
from renga.training.cli._methods import Maml, Regressor, Reptile, Sinusoids, uniform_mlp, with_context

from .test_run import arrays, names, rows, setting

CONFIGS = [name for name in cli.configs() if name.startswith("maml")]
FILES = ["adaptation.png", "config.toml", "metrics.csv", "metrics.jsonl", "params.npz", "scores.csv"]
SMALL = setting(
    "num_seeds=2", "net.hidden=[4, 4]", "train.num_steps=4", "train.report_every=2", "train.num_tasks=3",
    "test.num_tasks=5", "test.inner_steps=2",
)  # fmt: skip


def scores(directory: Path) -> list[dict[str, float]]:
    with (directory / "scores.csv").open(encoding="utf-8", newline="") as table:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The directory and the output of a small run."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["train", "maml_sinusoid", "--out", str(directory), *SMALL]) == 0
    return directory, out.getvalue()


def test_a_run_prints_what_it_learns_its_losses_and_a_table(finished):
    directory, out = finished
    number = r"[\d.e+-]+"
    cell = rf"{number} +± {number} +{number} +0 *"
    patterns = [
        r"network   mlp\(4, 4, 1, w_init=truncated_normal\(\)\)",
        r"loss      maml\(loss_fn, sgd\(0.01\), 1\)",
        r"chain     chain\(adam\(0.001\)\)",
        "tasks     sinusoids from 10 shots, 3 a step, 5 held out",
        "steps     4, in 2 compiled calls",
        f"run       {re.escape(str(directory))}",
        rf"step 2/4  loss_0 {number}  loss_1 {number}  [\d,]+ steps/s  ETA \d:\d\d",
        rf"step 4/4  loss_0 {number}  loss_1 {number}  [\d,]+ steps/s  ETA 0:00",
        "mean squared error on 5 tasks with 95 % interval, median, tasks that diverged",
        "step  published  seed 0 +seed 1",
        rf"   0          -  {cell}  {cell}",
        rf"   1       0.33  {cell}  {cell}",
        rf"   2          -  {cell}  {cell}",
        "published: Zintgraf et al. 2019, table 1 .*",
        rf"mean squared error {number}, {number} after 1 inner step after 4 steps in \d+ s",
    ]
    for pattern, line in zip(patterns, out.splitlines(), strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_run_leaves_its_metrics_parameters_scores_and_a_picture(finished):
    assert names(finished[0]) == FILES
    assert [list(row) for row in rows(finished[0])] == [["step", "loss_0", "loss_1"]] * 2
    assert [row["step"] for row in rows(finished[0])] == [2, 4]
    assert arrays(finished[0])["seed_1/layers/0/w"].shape == (1, 4)
    assert [(row["seed"], row["inner_step"]) for row in scores(finished[0])] == [
        (s, i) for s in (0, 1) for i in range(3)
    ]
    png = (finished[0] / "adaptation.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert (png[:8], 600 <= width <= 2000, 300 <= height <= 2000) == (b"\x89PNG\r\n\x1a\n", True, True)


def test_the_table_is_that_of_the_parameters_that_were_left(finished):
    net = nets.mlp(4, 4, 1)
    params = net.init(jax.random.key(0), jnp.ones(1))
    held = [arrays(finished[0])[f"seed_1/{path}"] for path in by_path(params)]
    params = jax.tree.unflatten(jax.tree.structure(params), held)
    tasks = training.sinusoids(10)(jax.random.fold_in(jax.random.key(0), 2), 5)
    of_steps = []
    for index in range(5):
        x, y, query_x, query_y = (tasks[half][name][index] for half in ("support", "query") for name in "xy")
        own, losses = params, []
        for _ in range(3):
            losses.append(jnp.mean((net.apply(own, query_x) - query_y) ** 2))
            grads = jax.grad(lambda p: jnp.mean((net.apply(p, x) - y) ** 2))(own)  # noqa: B023
            own = jax.tree.map(lambda leaf, grad: leaf - 0.01 * grad, own, grads)
        of_steps.append(losses)
    np.testing.assert_allclose([row["mean"] for row in scores(finished[0])[3:]], np.mean(of_steps, 0), rtol=1e-5)
    np.testing.assert_allclose([row["median"] for row in scores(finished[0])[3:]], np.median(of_steps, 0), rtol=1e-5)


def test_a_seed_learns_the_same_alone_and_in_company(finished, renga):
    answer = renga("train", "maml_sinusoid", "--out", "alone", *SMALL, *setting("seed=1", "num_seeds=1"))
    assert (answer.code, answer.err) == (0, "")
    for name, array in arrays(Path("alone")).items():
        np.testing.assert_allclose(array, arrays(finished[0])[name], rtol=1e-5, atol=1e-7)
    assert [row["loss_1"] for row in rows(Path("alone"))] == pytest.approx([row["loss_1"] for row in rows(finished[0])])
    assert rows(finished[0])[0]["loss_0"] != rows(finished[0])[0]["loss_1"]


def test_the_resolved_config_runs_again_with_the_same_numbers(finished, renga):
    assert renga("train", str(finished[0] / "config.toml"), "--out", "again").code == 0
    for name in ("metrics.csv", "params.npz", "scores.csv"):
        assert (Path("again") / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_run_in_several_calls_shows_its_progress_and_is_the_same_run(finished, renga):
    answer = renga("train", "maml_sinusoid", "--out", "calls", *SMALL, *setting("train.steps_per_call=2"))
    assert [line.split("  ")[0] for line in answer.out.splitlines()[6:8]] == ["step 2/4", "step 4/4"]
    assert (Path("calls") / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "maml_sinusoid"])
def test_every_config_of_meta_learning_runs(name, renga):
    answer = renga("train", name, "--out", "run", *SMALL)
    assert (answer.code, answer.err) == (0, "")
    assert names(Path("run")) == FILES
    assert len(scores(Path("run"))) == 6


def test_a_context_is_adapted_alone_and_begins_at_zero_however_long_it_learns(renga):
    assert renga("train", "maml_sinusoid_cavia", "--out", "run", *SMALL).code == 0
    held = arrays(Path("run"))
    np.testing.assert_array_equal(held["seed_0/context"], np.zeros(5))
    assert held["seed_0/net/layers/0/w"].shape == (6, 4)
    before, after, _ = (row["mean"] for row in scores(Path("run"))[:3])
    assert before != after


def test_learnt_rates_are_left_beside_the_parameters(renga):
    assert renga("train", "maml_sinusoid_meta_sgd", "--out", "run", *SMALL).code == 0
    held = arrays(Path("run"))
    assert held["seed_0/inner/layers/1/w"].shape == held["seed_0/params/layers/1/w"].shape == (4, 4)
    rates = held["seed_0/inner/layers/2/b"]
    assert rates != load(cli.configs()["maml_sinusoid_meta_sgd"])["method"]["inner_rate"]


def test_a_run_that_diverges_fails_at_its_first_report_without_a_number(renga):
    answer = renga(
        "train", "maml_sinusoid", "--out", "run", *SMALL, *setting("method.inner_rate=1e30", 'net.init="lecun"')
    )
    assert answer.code == 1
    assert re.fullmatch(
        r"renga: step 2: expected finite losses, got loss_0 (nan|inf), loss_1 (nan|inf)\. A smaller method.inner_rate "
        r"or optim.learning_rate may help\. run holds checkpoints, config.toml, metrics.csv, metrics.jsonl\n",
        answer.err,
    )


def test_summary_shows_the_network_with_its_context(renga):
    answer = renga("summary", "maml_sinusoid_cavia")
    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^context .* 5 ", answer.out, re.MULTILINE)
    assert re.search(r"^net/layers/0  linear\(40.*\) +\(40,\) +280 ", answer.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        (Maml(), "maml(loss_fn, sgd(0.01), 1)"),
        (Maml(inner_steps=0), "maml(loss_fn, sgd(0.01), 0)"),
        (Maml(first_order=True, inner_rate=0.5), "maml(loss_fn, sgd(0.5), 1, first_order=True)"),
        (Maml(adapted=("a/**", "b")), "maml(loss_fn, sgd(0.01), 1, adapted=('a/**', 'b'))"),
        (Maml(learned_rates="each"), "maml(loss_fn, scale_by_rates, 1)"),
        (Maml(learned_rates="steps", inner_steps=3), "maml(loss_fn, scale_by_step_rates, 3)"),
        (Reptile(), "reptile(loss_fn, sgd(0.02), 5)"),
    ],
)
def test_a_method_is_a_transform_of_losses(method, loss):
    def loss_fn(params: Any, batch: Any, key: Any) -> None:
        """Stands for any loss."""

    assert repr(method.loss(loss_fn)) == loss


def test_rates_of_steps_are_one_for_each_array_and_step():
    learnt = Maml(learned_rates="steps", inner_steps=3, inner_rate=0.5).learnt({"w": jnp.ones((2, 2))})
    np.testing.assert_array_equal(learnt["inner"]["w"], [0.5] * 3)


def test_minibatches_of_reptile_are_all_points_of_a_grid():
    tasks = Reptile(inner_steps=5).sampler(Sinusoids(shots=2, grid=10))(jax.random.key(0), 3)
    assert tasks["x"].shape == tasks["y"].shape == (3, 5, 2, 1)
    np.testing.assert_allclose(np.sort(tasks["x"].reshape(3, 10)), np.tile(np.linspace(-5, 5, 10), (3, 1)), rtol=1e-6)


def test_the_networks_are_those_that_their_options_say():
    assert Regressor(hidden=(3,)).build(1) == nets.mlp(3, 1)
    assert Regressor(init="small", activation="tanh").build(1) == nets.mlp(
        40, 40, 1, activation=jnp.tanh, w_init=nets.truncated_normal(0.01)
    )
    built = Regressor(hidden=(3,), init="uniform", num_context=2).build(1)
    assert built == with_context(uniform_mlp(3, 3, 1, activation=jax.nn.relu), 2)


def test_a_network_begins_as_torchs_does_where_it_is_uniform():
    params = uniform_mlp(4, 1000, 16, activation=jnp.tanh).init(jax.random.key(0), jnp.ones(4))
    for layer, bound in zip(params["layers"], (0.5, 1000**-0.5), strict=True):
        for leaf in layer.values():
            assert bound / 2 < jnp.abs(leaf).max() <= bound
    assert jnp.std(params["layers"][0]["w"]) == pytest.approx(0.5 / 3**0.5, rel=0.05)


def test_a_context_is_an_input_like_another():
    net = with_context(nets.linear(1), 2)
    params = net.init(jax.random.key(0), jnp.ones(1))
    params["context"] = jnp.array([2.0, 3.0])
    x = jnp.array([[1.0], [4.0]])
    expected = jnp.array([[1.0, 2.0, 3.0], [4.0, 2.0, 3.0]]) @ params["net"]["w"]
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-6)
