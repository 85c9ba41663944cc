"""Every example runs, and shows what it says."""

import importlib.util
from pathlib import Path

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


def test_the_label_noise_example_trains_both_chains(capsys):
    load("label_noise").main(num_steps=20)
    assert "difference" in capsys.readouterr().out


def test_a_short_game_on_the_ring_is_drawn(tmp_path):
    modes = load("ring_of_gaussians").main(num_steps=3, seeds=(0,), picture=tmp_path / "ring.png")
    assert all(0 <= found <= 8 for each in modes.values() for found in each)
    assert (tmp_path / "ring.png").read_bytes().startswith(b"\x89PNG")
