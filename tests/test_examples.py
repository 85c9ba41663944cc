"""Every example runs, and shows what it says."""

import importlib.util
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_every_example_says_how_to_run_it_and_what_it_prints(name):
    doc = load(name).__doc__ or ""
    assert f"python examples/{name}.py" in doc
    assert "rints" in doc


def test_optimistic_gradient_solves_the_bilinear_game_at_its_known_rate():
    rates = load("bilinear_game").main()
    assert rates["gradient descent"] == pytest.approx(1.004988, abs=1e-6)
    assert rates["optimistic gradient descent"] == pytest.approx(0.994936, abs=1e-6)


def test_eight_methods_play_the_bilinear_game_at_their_known_rates(tmp_path):
    example = load("bilinear_trajectories")
    rates = example.main(picture=tmp_path / "trajectories.png")
    assert len(rates) == 8
    for name, known in example.KNOWN.items():
        assert rates[name] == pytest.approx(known, abs=1e-5 if name == "in turns" else 1e-6)
    assert (tmp_path / "trajectories.png").read_bytes().startswith(b"\x89PNG")


def test_those_who_count_on_the_other_learning_cooperate_in_the_dilemma(tmp_path):
    years = load("prisoners_dilemma").main(picture=tmp_path / "policies.png")
    assert years["naive"] == pytest.approx(2.0, abs=0.02)
    assert max(years["LOLA"], years["SOS"]) < 1.15
    assert (tmp_path / "policies.png").read_bytes().startswith(b"\x89PNG")


def test_the_label_noise_example_trains_both_chains(capsys):
    load("label_noise").main(num_steps=20)
    assert "difference" in capsys.readouterr().out


def test_a_short_run_of_maml_prints_its_table(capsys):
    scores = load("maml_sinusoid").main(num_steps=20)
    assert scores.mean["loss"].shape == (6,)
    assert capsys.readouterr().out.splitlines()[0].startswith("before")


def test_a_short_snapshot_ensemble_is_compared_with_one_run():
    found = load("snapshot_ensemble").main(num_steps=10)
    assert set(found) == {"one run, one cycle", "last snapshot", "five snapshots"}


def test_a_short_batch_ensemble_is_compared_with_one_network():
    alone, together = load("batch_ensemble").main(num_steps=2)["one network"]
    assert alone == together


def test_a_laplace_approximation_is_better_calibrated_than_the_weights():
    found = load("laplace").main(num_steps=200)
    assert found["Laplace"][1] < found["weights found"][1]


SHORT = {
    "reweighting": {"trusted alone", "all alike", "reweighted"},
    "learned_loss": {"squared error", "absolute error", "huber", "learnt"},
    "distillation": {"ten real images", "ten learnt images"},
    "learned_schedule": {"constant", "cosine", "learnt"},
    "few_shot_digits": {"pixels", "prototypes", "ridge", "maml"},
}
LONGER = ("learned_schedule", "few_shot_digits")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LONGER else []) for name in SHORT]
)
def test_a_short_run_of_a_bilevel_or_few_shot_example_compares_what_it_names(name, capsys):
    found = load(name).main(num_steps=2)
    assert set(found) == SHORT[name]
    printed = capsys.readouterr().out
    assert all(label in printed for label in found)


def test_a_short_private_run_states_accuracy_and_epsilon(capsys):
    found = load("private_digits").main(num_steps=5)
    assert found["epsilon"] == pytest.approx(3.0, abs=1e-2)
    assert 10 < found["private"] < 100
    printed = capsys.readouterr().out
    assert "epsilon           3.00 at delta 0.0001" in printed
    assert f"private           {found['private']:.1f} %" in printed


def test_the_lagrangian_player_meets_the_conditions_of_a_solution():
    example = load("constrained")
    found, batch = example.main(num_steps=4000)["a price each"], example.digits()
    losses, prices = example.losses(found["net"], batch), found["prices"]
    slope = jax.grad(example.lagrangian)(found, batch, None)["net"]["w"]
    assert float(losses.max()) < 1.05 * example.BOUND
    assert float(prices.min()) >= 0
    assert float(abs(prices * (losses - example.BOUND)).max()) < 0.1 * float(prices.max()) * example.BOUND
    assert float(abs(slope).max()) < 0.02


def test_a_short_run_of_ppo_learns_to_hold_the_pole_for_longer():
    example = load("ppo")
    _, metrics = jax.jit(example.train, static_argnums=1)(jax.random.key(0), 40)
    assert float(metrics["return"][-10:].mean()) > 2 * float(metrics["return"][:5].mean())
    assert all(0 < each <= 500 for each in example.main(num_seeds=2, num_updates=2))
