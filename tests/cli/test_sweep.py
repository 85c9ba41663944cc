"""`renga sweep`: every member has the numbers of a run of its own, and what shapes the program goes apart."""

import csv
import shlex
from pathlib import Path
from typing import Any

import jax
import pytest

from renga.training import cli
from renga.training.cli import _sweep, _sweep_run
from renga.training.cli._config import load, override
from renga.training.cli._sweep import members_of, parse_over, programs_of

from .test_run import rows, setting

MLP = ['net={name="mlp", hidden=[4]}', "train={num_steps=20, report_every=10, batch_size=8}"]
CHAIN = ['optim={name="chain", links=[{name="sam", rho=0.1}, {name="sgd", learning_rate=0.1}]}']
RL = ["train={num_updates=2, report_every=1}", "test={num_episodes=2, num_reported=1}", "net.sizes=[4]"]
RL += ["learner.num_steps=8", "learner.num_minibatches=1", "learner.num_epochs=1"]
META = ["train={num_steps=4, report_every=2, num_tasks=2}", "test.num_tasks=5", "net.hidden=[4]"]


def table(directory: Path) -> list[dict[str, str]]:
    """The rows of `sweep.csv`."""
    with (directory / "sweep.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def programs(config: str, *over: str, settings: Any = (), num_seeds: int = 1) -> list[_sweep.Program]:
    parsed, tables = parse_over(over), override(load(cli.configs()[config]), settings)
    return list(programs_of(members_of(tables, parsed, num_seeds, where=config), parsed))


def test_each_member_has_the_numbers_of_a_run_of_its_own(renga):
    over = ["--over", "optim.rho=0.0,0.1", "--over", "optim.weight_decay=0.0,0.5"]
    answer = renga("sweep", "digits_adam", *over, "--seeds", "2", "--out", "out", *setting(*MLP))
    assert (answer.code, answer.err) == (0, "")
    found = table(Path("out"))
    assert [(row["optim.rho"], row["optim.weight_decay"], row["seed"]) for row in found] == [
        (rho, decay, seed) for rho in ("0.0", "0.1") for decay in ("0.0", "0.5") for seed in "01"
    ]
    for place in (1, 6):
        row = found[place]
        values = [f"{name}={row[name]}" for name in ("optim.rho", "optim.weight_decay", "seed")]
        assert renga("train", "digits_adam", "--out", f"run{place}", *setting(*MLP, *values)).code == 0
        last = rows(Path(f"run{place}"))[-1]
        for name in ("loss", "accuracy", "test_loss", "test_accuracy"):
            assert float(row[name]) == pytest.approx(last[name], rel=1e-5)


def test_a_sweep_prints_a_table_over_seeds_and_leaves_files_that_make_it_again(renga):
    answer = renga("sweep", "digits_sgd", "--over", "optim.learning_rate=0.01,0.3", "--seeds", "3", *setting(*MLP))
    assert (answer.code, answer.err) == (0, "")
    directory = Path("runs/digits_sgd-sweep")
    assert sorted(path.name for path in directory.iterdir()) == ["sweep.csv", "sweep.png", "sweep.toml"]
    lines = answer.out.splitlines()
    assert lines[:3] == [
        "runs      6, of 1 compiled program",
        "arguments optim.learning_rate: side by side in one program",
        f"sweep     {directory}",
    ]
    head, first, second, last = lines[-4:]
    assert head.split() == ["optim.learning_rate", "seeds", "test_accuracy", "test_loss"]
    assert first.split()[:2] == ["0.01", "3"]
    assert second.split()[:2] == ["0.3", "3"]
    assert second.split()[3] == "±"
    assert last.startswith("best optim.learning_rate = 0.3: test_accuracy ")
    assert "; 6 runs in " in last
    command = (directory / "sweep.toml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# Command: renga ")
    again = renga(*shlex.split(command), "--out", "again")
    assert again.code == 0
    assert table(Path("again")) == table(directory)


def test_numbers_of_an_optimizer_a_learner_or_a_method_are_arguments():
    for config, settings, over in (
        ("digits_sgd", MLP, ["optim.learning_rate=0.1,0.2", "optim.momentum=0,0.9", "optim.rho=0,0.1"]),
        ("digits_sgd", [*MLP, "optim.clip_norm=1.0"], ["optim.clip_norm=0.5,1"]),
        ("digits_sgd", [*MLP, *CHAIN], ["optim.links.0.rho=0,0.1", "optim.links.1.learning_rate=0.1,1"]),
        ("ppo_cart_pole", RL, ["learner.clip=0.1,0.2", "learner.discount=0.9,0.99"]),
        ("maml_sinusoid", META, ["method.inner_rate=0.01,0.1"]),
    ):
        (program,) = programs(config, *over, settings=settings, num_seeds=2)
        assert program.traced == tuple(each.split("=")[0] for each in over)
        assert len(program.members) == 2 ** len(over) * 2


def test_what_shapes_the_program_goes_apart():
    for config, settings, over in (
        ("digits_sgd", MLP, "net.hidden=[4],[8]"),
        ("digits_sgd", MLP, "train.num_steps=10,20"),
        ("digits_sgd", MLP, "data.label_noise=0.0,0.1"),
        ("digits_sgd", MLP, "optim.schedule=constant,cosine"),
        ("digits_sgd", MLP, 'optim={name="sgd"},{name="adam", rho=0.1}'),
        ("digits_convnet", [], "net.drop_rate=0.0,0.5"),
        ("ppo_cart_pole", RL, "learner.num_envs=2,4"),
        ("maml_sinusoid", META, "method.inner_steps=1,2"),
    ):
        found = programs(config, over, settings=settings, num_seeds=2)
        assert [program.traced for program in found] == [(), ()]
        assert [[member.experiment.seed for member in program.members] for program in found] == [[0, 1]] * 2


def test_rows_keep_the_order_of_the_values_when_programs_do_not(renga):
    over = ["--over", "optim.rho=0.0,0.1", "--over", "net.hidden=[4],[8]"]
    answer = renga("sweep", "digits_sgd", *over, "--out", "out", *setting(*MLP))
    assert answer.code == 0
    assert "apart     net.hidden: a program for each, one after another" in answer.out.splitlines()
    found = [(row["optim.rho"], row["net.hidden"]) for row in table(Path("out"))]
    assert found == [("0.0", "[4]"), ("0.0", "[8]"), ("0.1", "[4]"), ("0.1", "[8]")]


def test_runs_in_parts_are_those_side_by_side(renga):
    words = ["--over", "optim.rho=0.0,0.1", "--seeds", "2", *setting(*MLP)]
    assert renga("sweep", "digits_sgd", *words, "--out", "whole").code == 0
    answer = renga("sweep", "digits_sgd", *words, "--out", "parts", "--at-once", "2")
    assert answer.code == 0
    assert {"runs 1-2 of 4", "runs 3-4 of 4"} <= set(answer.out.splitlines())
    for part, whole in zip(table(Path("parts")), table(Path("whole")), strict=True):
        assert {name: float(value) for name, value in part.items()} == pytest.approx(
            {name: float(value) for name, value in whole.items()}, rel=1e-5
        )


def test_convolutions_go_by_themselves_on_a_cpu():
    (program,) = programs("digits_convnet", "optim.rho=0.0,0.1", num_seeds=2)
    assert program.default_at_once() == (1 if jax.default_backend() == "cpu" else 4)
    (program,) = programs("digits_sgd", "optim.rho=0.0,0.1", settings=MLP, num_seeds=2)
    assert program.default_at_once() == 4


def test_reinforcement_learning_is_swept(renga):
    answer = renga("sweep", "ppo_cart_pole", "--over", "learner.clip=0.1,0.3", "--out", "out", *setting(*RL))
    assert (answer.code, answer.err) == (0, "")
    assert [row["learner.clip"] for row in table(Path("out"))] == ["0.1", "0.3"]
    assert all(float(row["test_return"]) > 0 for row in table(Path("out")))


def test_meta_learning_is_swept_with_the_numbers_of_its_own_run(renga):
    answer = renga("sweep", "maml_sinusoid", "--over", "method.inner_rate=0.01,0.1", "--out", "out", *setting(*META))
    assert (answer.code, answer.err) == (0, "")
    row = table(Path("out"))[1]
    assert (
        renga("train", "maml_sinusoid", "--out", "run", *setting(*META, "method.inner_rate=0.1", "num_seeds=1")).code
        == 0
    )
    assert float(row["loss"]) == pytest.approx(rows(Path("run"))[-1]["loss_0"], rel=1e-5)
    with Path("run/scores.csv").open(encoding="utf-8", newline="") as lines:
        means = {int(each["inner_step"]): float(each["mean"]) for each in csv.DictReader(lines)}
    assert float(row["test_loss"]) == pytest.approx(means[1], rel=1e-5)


def test_a_run_that_diverges_is_never_the_best():
    def ended(rate: float, *losses: float) -> list[_sweep_run.Ended]:
        return [
            _sweep_run.Ended(_sweep.Member({"rate": rate}, None), {"test_loss": loss}, {1: loss}) for loss in losses
        ]

    found = [*ended(0.1, 2.0, 4.0), *ended(1.0, 0.5, float("nan")), *ended(0.2, 5.0, 5.0)]
    assert _sweep_run.chief_of(found) == "test_loss"
    assert _sweep_run._best(found, "test_loss") == "best rate = 0.1: test_loss 3 ± 1.4"
    assert _sweep_run.table(found).splitlines() == [
        "rate  seeds  test_loss",
        "0.1   2      3 ± 1.4",
        "1.0   2      nan",
        "0.2   2      5 ± 0",
    ]


def test_a_sweep_that_is_stopped_keeps_what_has_ended(renga, monkeypatch):
    calls, fit = [], _sweep_run.fit

    def stopped(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*args, **options)

    monkeypatch.setattr(_sweep_run, "fit", stopped)
    words = ["--over", "optim.rho=0.0,0.1,0.2", "--at-once", "1", "--out", "out", *setting(*MLP)]
    answer = renga("sweep", "digits_sgd", *words)
    assert (answer.code, answer.err) == (
        130,
        "\nrenga: stopped. out holds checkpoints, sweep.csv, sweep.toml. renga resume out goes on\n",
    )
    assert [row["optim.rho"] for row in table(Path("out"))] == ["0.0"]


def test_runs_that_report_other_metrics_stand_in_one_table(renga):
    settings = ["train={num_updates=2, report_every=1}", "test={num_episodes=2, num_reported=1}", "net.sizes=[4]"]
    words = setting(*settings, 'learner={name="ppo", num_envs=2}')
    answer = renga("sweep", "ppo_cart_pole", "--over", "learner.name=ppo,dqn", "--out", "out", *words)
    assert (answer.code, answer.err) == (0, "")
    first, second = table(Path("out"))
    assert (first["learner.name"], second["learner.name"]) == ("ppo", "dqn")
    assert [bool(row["entropy"]) for row in (first, second)] == [True, False]
    assert [bool(row["epsilon"]) for row in (first, second)] == [False, True]


def test_a_full_disk_leaves_the_table_of_what_had_ended(tmp_path, monkeypatch):
    def ended(loss: float) -> _sweep_run.Ended:
        return _sweep_run.Ended(programs("digits_sgd", settings=MLP)[0].members[0], {"test_loss": loss}, {1: loss})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    _sweep_run._save([ended(0.5)], tmp_path / "sweep.csv")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        _sweep_run._save([ended(0.5), ended(0.25)], tmp_path / "sweep.csv")
    assert [row["test_loss"] for row in table(tmp_path)] == ["0.5"]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


@pytest.mark.parametrize("at", [1, 3])
def test_a_sweep_that_was_stopped_goes_on_and_ends_with_the_same_files(at, renga, monkeypatch):
    names = ["--over", "optim.rho=0.0,\n0.1", "--over", "optim.name=sgd,adam"]
    words = [*names, "--seeds", "2", *setting(*MLP, 'optim={name="sgd"}')]
    assert renga("sweep", "digits_sgd", *words, "--out", "whole").code == 0
    fit, reports = _sweep_run.fit, []

    def failing(*args: Any, on_report: Any, **options: Any) -> Any:
        def report(row: Any, train_state: Any) -> None:
            on_report(row, train_state)
            reports.append(row)
            if len(reports) == at:
                raise OSError("the cable")

        return fit(*args, on_report=report, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_sweep_run, "fit", failing)
        answer = renga("sweep", "digits_sgd", *words, "--out", "part", "--checkpoint-every", "0")
    assert answer.code == 1
    assert answer.err.endswith("renga resume part goes on\n")
    resumed = renga("resume", "part")
    assert (resumed.code, resumed.err) == (0, "")
    names = sorted(path.name for path in Path("part").iterdir())
    assert names == ["sweep.csv", "sweep.png", "sweep.toml"]
    for name in ("sweep.csv", "sweep.png"):
        assert Path("part", name).read_bytes() == Path("whole", name).read_bytes()
    again = renga("resume", "part")
    assert again.code == 2
    assert again.err == "renga: part: expected a sweep that was stopped, got one that has ended\n"
