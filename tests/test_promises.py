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


def modes(directory) -> dict[str, list[int]]:
    """How many modes each method found, by seed."""
    found: dict[str, list[int]] = {}
    with (directory / "scores.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault(row["method"], []).append(int(row["modes"]))
    return found


@pytest.mark.long
def test_consensus_finds_all_modes_of_the_ring_of_which_descending_at_once_finds_few(tmp_path):
    only = 'play=["rmsprop", "consensus"]'
    assert main(["train", "gan_ring", "--out", str(tmp_path / "run"), "--set", only]) == 0
    found = modes(tmp_path / "run")
    assert found["consensus"] == [8] * 5
    assert max(found["rmsprop"]) < 8
    assert sum(found["rmsprop"]) <= 4 * 5


@pytest.mark.long
def test_consensus_and_symplectic_adjustment_alone_find_all_modes_of_the_ring(tmp_path):
    assert main(["train", "gan_ring", "--out", str(tmp_path / "run")]) == 0
    found = modes(tmp_path / "run")
    assert found.pop("consensus") == found.pop("symplectic") == [8] * 5
    assert len(found) == 7
    assert all(max(each) < 8 for each in found.values())


@pytest.mark.long
def test_consensus_alone_is_spread_over_all_of_the_grid_on_every_seed(tmp_path):
    assert main(["train", "gan_grid", "--out", str(tmp_path / "run")]) == 0
    distances: dict[str, list[float]] = {}
    with (tmp_path / "run" / "scores.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            distances.setdefault(row["method"], []).append(float(row["sliced_wasserstein"]))
    assert max(distances.pop("consensus")) < 0.8
    assert len(distances) == 8
    assert min(max(each) for each in distances.values()) > 1.5


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


def shares(directory) -> list[float]:
    """The share of each digit among the samples of a run."""
    with (directory / "classes.csv").open(encoding="utf-8", newline="") as table:
        return [float(row["share"]) for row in csv.DictReader(table)]


@pytest.mark.long
@pytest.mark.parametrize(("config", "promised"), [("digits_dcgan", 9.0), ("digits_wgan_gp", 9.0)])
def test_a_classifier_recognises_the_digits_that_a_generator_makes(config, promised, tmp_path):
    assert main(["train", config, "--out", str(tmp_path / "run")]) == 0
    assert sum(share >= 0.03 for share in shares(tmp_path / "run")) >= 9
    assert last_row(tmp_path / "run")["frechet"] <= promised


@pytest.mark.long
def test_a_network_trained_under_attack_withstands_twenty_points_more_and_is_as_good_without(tmp_path):
    found = {}
    for name, words in {"robust": [], "plain": ["--set", "attack.train_steps=0"]}.items():
        assert main(["train", "digits_adversarial", "--out", str(tmp_path / name), *words]) == 0
        with (tmp_path / name / "attack.csv").open(encoding="utf-8", newline="") as table:
            found[name] = {row["attack"]: float(row["accuracy"]) for row in csv.DictReader(table)}
    assert found["robust"]["pgd"] >= found["plain"]["pgd"] + 0.2
    assert found["robust"]["clean"] >= found["plain"]["clean"] - 0.03


@pytest.mark.long
def test_ppo_balances_the_pole_on_nine_seeds_of_ten():
    returns = load("ppo").main()
    assert sum(each >= 475 for each in returns) >= 9


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "promised"),
    [("ppo_cart_pole", 475), ("ppo_pendulum", -230), ("ppo_recall", 0.95), ("dqn_cart_pole", 475)],
)
def test_agents_reach_what_the_headers_of_their_configs_say(config, promised, tmp_path):
    assert main(["train", config, "--out", str(tmp_path / "run")]) == 0
    assert last_row(tmp_path / "run")["test_return"] >= promised
