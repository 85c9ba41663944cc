"""Runs under attack: what is trained on, what is tested, and what is refused."""

import csv
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from renga.training import fgsm, pgd
from renga.training.cli._attack import Attack, withstands
from renga.training.cli._config import load, read
from renga.training.cli._experiment import Digits, Experiment, Mlp
from renga.training.cli._task import Ending, Losses, Split

from .test_run import FILES, SMALL, names, rows, setting

WEAK = "attack={epsilon=0.2, train_steps=1, test_steps=2, restarts=2}"


def table(directory: Path) -> dict[str, float]:
    with (directory / "attack.csv").open(encoding="utf-8", newline="") as found:
        return {row["attack"]: float(row["accuracy"]) for row in csv.DictReader(found)}


def test_a_run_under_attack_prints_and_leaves_its_accuracy(renga):
    answer = renga("train", "digits_sgd", "--out", "run", *setting(*SMALL, WEAK))
    assert (answer.code, answer.err) == (0, "")
    pattern = r"test accuracy under attack, linf 0\.2: clean 0\.\d{4}  fgsm 0\.\d{4}  pgd 0\.\d{4}"
    assert re.fullmatch(pattern, answer.out.splitlines()[-2])
    assert names(Path("run")) == sorted([*FILES, "attack.csv"])
    found = table(Path("run"))
    assert found["clean"] == pytest.approx(rows(Path("run"))[-1]["test_accuracy"])
    assert found["pgd"] <= found["clean"]


def test_training_under_attack_is_another_training_and_without_steps_the_plain_one(renga):
    for name, words in {"plain": [], "under": [WEAK], "tested": [WEAK, "attack.train_steps=0"]}.items():
        assert renga("train", "digits_sgd", "--out", name, *setting(*SMALL, *words)).code == 0
    assert rows(Path("tested")) == rows(Path("plain"))
    assert rows(Path("under"))[0]["loss"] > rows(Path("plain"))[0]["loss"]


def test_a_run_under_attack_can_be_run_again(renga):
    assert renga("train", "digits_sgd", "--out", "run", *setting(*SMALL, WEAK, 'attack.norm="l2"')).code == 0
    assert renga("train", "run/config.toml", "--out", "again").code == 0
    assert table(Path("again")) == table(Path("run"))
    assert set(table(Path("run"))) == {"clean", "pgd"}


def linear_ending() -> Ending:
    """A network that tells class 1 from 0 by the sign of the first pixel less a half, and two examples."""
    losses, test = Losses(Mlp(hidden=()).build(10), Digits()), np.zeros((2, 8, 8, 1), "f")
    params, state = losses.init(jax.random.key(0))
    params = jax.tree.map(np.zeros_like, params)
    (layer,) = jax.tree.leaves(params, is_leaf=lambda node: "w" in node)
    layer["w"][0, 1], layer["b"][:] = 2.0, [1.0, 0.0, *[-9.0] * 8]
    test[:, 0, 0, 0] = 0.4, 0.75
    split = Split({}, {"x": test, "y": np.array([0, 1])})
    train_state = type("Held", (), {"params": params, "state": state})
    return Ending(losses, train_state, split, {}, Path(), None, jax.random.key(1))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("attack", [fgsm(0.2, bounds=(0, 1)), pgd(0.2, 8, bounds=(0, 1))])
def test_an_example_withstands_what_cannot_carry_it_over_the_boundary(attack):
    np.testing.assert_array_equal(withstands(linear_ending(), attack, 3), [False, True])


def test_the_attacks_of_a_test_stay_between_the_values_of_images():
    tests = Attack(epsilon=0.3, test_steps=7, restarts=4).tests()
    assert tests["fgsm"] == (fgsm(0.3, bounds=(0.0, 1.0)), 1)
    assert tests["pgd"] == (pgd(0.3, 7, norm="linf", bounds=(0.0, 1.0)), 4)


def test_what_attacks_are_not_for_is_refused(renga):
    answer = renga("train", "documentation_lstm", *setting("attack.epsilon=0.1"))
    assert (answer.code, answer.err) == (2, 'renga: attack: expected data.name to be "digits", got "documentation"\n')


def test_a_config_without_an_attack_has_none(tmp_path):
    (tmp_path / "config.toml").write_text('[net]\nname = "mlp"\n[optim]\nname = "sgd"\n', encoding="utf-8")
    assert read(Experiment, load(tmp_path / "config.toml")).attack is None
