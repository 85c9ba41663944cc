"""Results that the README and the configs promise, minutes in all: `pytest -m slow`."""

import csv
import json

import pytest

from renga.training.cli import main

from .test_examples import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("full_compiler")]


def last_row(directory) -> dict:
    """The last report of a run."""
    return json.loads((directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])


def test_the_main_job_recognises_a_held_out_third_of_the_digits(tmp_path):
    assert main(["train", "--out", str(tmp_path / "run")]) == 0
    assert last_row(tmp_path / "run")["test_accuracy"] >= 0.985


@pytest.mark.parametrize(
    ("config", "promised"),
    [
        ("digits_sgd", 0.98),
        ("digits_adam", 0.98),
        ("digits_label_noise", 0.80),
        pytest.param("digits_resnet", 0.97, marks=pytest.mark.long),
        pytest.param("digits_vit", 0.95, marks=pytest.mark.long),
        pytest.param("docstrings_gru", 0.6, marks=pytest.mark.long),
    ],
)
def test_the_other_configs_reach_what_their_headers_say(config, promised, tmp_path):
    assert main(["train", config, "--out", str(tmp_path / "run")]) == 0
    assert last_row(tmp_path / "run")["test_accuracy"] >= promised


@pytest.mark.long
@pytest.mark.parametrize(("config", "promised"), [("documentation_lstm", 2.15), ("documentation_transformer", 2.2)])
def test_the_language_models_need_as_few_bits_as_their_headers_say(config, promised, tmp_path):
    assert main(["train", config, "--out", str(tmp_path / "run")]) == 0
    assert last_row(tmp_path / "run")["test_bits"] <= promised


def test_sam_gains_eight_points_where_four_labels_in_ten_are_drawn_anew():
    assert load("label_noise").main() >= 8


def test_consensus_finds_all_modes_of_the_ring_of_which_descending_at_once_finds_few():
    modes = load("ring_of_gaussians").main()
    assert max(modes["rmsprop"]) <= 4
    assert modes["consensus(1.0), rmsprop"] == [8, 8]


def scores(directory, inner_step: int) -> list[float]:
    """The mean squared error of each seed after so many inner steps."""
    with (directory / "scores.csv").open(encoding="utf-8", newline="") as table:
        return [float(row["mean"]) for row in csv.DictReader(table) if int(row["inner_step"]) == inner_step]


@pytest.mark.parametrize(
    ("config", "inner_step", "promised"),
    [
        ("maml_sinusoid_reptile", 5, 0.15),
        pytest.param("maml_sinusoid", 1, 0.40, marks=pytest.mark.long),
        pytest.param("maml_sinusoid_5", 1, 0.76, marks=pytest.mark.long),
        pytest.param("maml_sinusoid_fomaml", 1, 0.60, marks=pytest.mark.long),
        pytest.param("maml_sinusoid_anil", 1, 0.83, marks=pytest.mark.long),
        pytest.param("maml_sinusoid_meta_sgd", 1, 0.27, marks=pytest.mark.long),
        pytest.param("maml_sinusoid_cavia", 1, 0.22, marks=pytest.mark.long),
    ],
)
def test_three_seeds_of_meta_learning_reach_what_their_headers_say(config, inner_step, promised, tmp_path):
    assert main(["train", config, "--out", str(tmp_path / "run")]) == 0
    found = scores(tmp_path / "run", inner_step)
    assert len(found) == 3
    assert max(found) <= promised


@pytest.mark.long
def test_what_is_trained_on_all_sinusoids_at_once_learns_little_of_one_in_a_step(tmp_path):
    assert main(["train", "maml_sinusoid_pretrained", "--out", str(tmp_path / "run")]) == 0
    assert min(scores(tmp_path / "run", 1)) >= 1.8


def test_the_example_of_maml_prints_what_it_says():
    assert load("maml_sinusoid").main().mean["loss"][1] <= 0.40
