"""Runs on text: what they print and what they leave."""

import math
import re
from pathlib import Path

import pytest

from renga.training.cli._text import ALPHABET

from .test_run import arrays, names, rows, setting

FEW = "train={num_steps=4, report_every=2, batch_size=8}"
FILES = ["config.toml", "curves.png", "metrics.csv", "metrics.jsonl", "params.npz"]
NETS = {
    "documentation_lstm": ("{name='lstm_lm', features=8, drop_rate=0.1}", "lstm_lm(96, 8, drop_rate=0.1)"),
    "documentation_transformer": (
        "{name='transformer', features=8, num_layers=2, num_heads=2, window=8}",
        "transformer(96, 8, num_layers=2, num_heads=2, mlp=swiglu(24), norm=rms_norm(), window=8, rope=rotary(), "
        "bias=False)",
    ),
}


@pytest.mark.parametrize("config", NETS)
def test_a_language_model_reports_bits_a_character_and_writes(config, renga):
    net, shown = NETS[config]
    data = "data={name='documentation', length=16, test_share=0.01}"
    answer = renga("train", config, "--out", "run", *setting(f"net={net}", data, FEW))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"network   {shown}\n")
    assert re.search(r"^windows   \d+ to train on, \d+ held out$", answer.out, re.MULTILINE)
    assert names(Path("run")) == sorted([*FILES, "sample.txt"])
    sample = Path("run/sample.txt").read_text(encoding="utf-8")
    assert (len(sample), set(sample) - set(ALPHABET)) == (301, set())
    last = rows(Path("run"))[-1]
    assert list(last) == ["step", "bits", "loss", "test_bits", "test_loss"]
    assert math.isclose(last["test_bits"], last["test_loss"] / math.log(2), rel_tol=1e-5)
    assert 5 < last["test_bits"] < 9  # that of an alphabet of 96 characters is 6.6
    end = rf"test bits {last['test_bits']:.3f} a character after 4 steps in \d+ s\n"
    assert re.search(rf"\na sample at temperature 0.8:\n\n{re.escape(sample)}\n{end}\Z", answer.out)


def test_a_classifier_of_docstrings_says_what_guessing_gives(renga):
    words = setting("net.features=4", "data.length=16", FEW)
    answer = renga("train", "docstrings_gru", "--out", "run", *words)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("network   gru(96, 4, 9, drop_rate=0.5)\n")
    assert re.search(r"^docstrings \d+ to train on, \d+ held out$", answer.out, re.MULTILINE)
    assert names(Path("run")) == sorted([*FILES, "confusion.png"])
    assert arrays(Path("run"))["gru/w"].shape == (4, 12)
    accuracy = rows(Path("run"))[-1]["test_accuracy"]
    end = r"(\d+) of (\d+) wrong; 0\.1\d+ by always saying asyncio"
    found = re.search(rf"^test accuracy {accuracy:.4f} \({end}\) after 4 steps in \d+ s$", answer.out, re.MULTILINE)
    assert found
    assert math.isclose(1 - accuracy, int(found[1]) / int(found[2]), rel_tol=1e-5)


@pytest.mark.parametrize("config", [*NETS, "docstrings_gru"])
def test_summary_shows_a_network_on_text(config, renga):
    answer = renga("summary", config)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[2].startswith("tokens  ")
