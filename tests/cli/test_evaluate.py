"""What a run left, judged again."""

from pathlib import Path

import pytest

from .test_run import rows, setting

SMALL = ["train.num_steps=2", "train.report_every=1", "train.batch_size=8"]


@pytest.mark.parametrize(
    "name", ["digits_convnet", pytest.param("digits_resnet", marks=pytest.mark.long), "docstrings_gru"]
)
def test_a_network_is_worth_what_its_last_report_said(name, renga):
    assert renga("train", name, "--out", "run", *setting(*SMALL)).code == 0
    answer = renga("evaluate", "run")
    assert (answer.code, answer.err) == (0, "")
    last = rows(Path("run"))[-1]
    said = dict(zip(answer.out.split()[::2], answer.out.split()[1::2], strict=False))
    wanted = {metric: value for metric, value in last.items() if metric.startswith("test_")}
    assert len(wanted) >= 2
    for metric, value in wanted.items():
        assert float(said[metric]) == pytest.approx(value, rel=1e-3)


def test_parameters_of_another_network_are_refused_by_path(renga):
    assert renga("train", "digits_convnet", "--out", "run", *setting(*SMALL)).code == 0
    config = Path("run/config.toml")
    config.write_text(config.read_text(encoding="utf-8").replace("hidden = 512", "hidden = 64"), encoding="utf-8")
    answer = renga("evaluate", "run")
    assert answer.code == 2
    assert answer.err.startswith("renga: run/params.npz: expected head/w (64, 10), got (512, 10)")


DAMAGED = {
    "half of it": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
    "no archive": lambda data: b"no archive",
    "a byte": lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_parameters_are_refused(damage, renga):
    assert renga("train", "digits_convnet", "--out", "run", *setting(*SMALL, "net.hidden=4")).code == 0
    path = Path("run/params.npz")
    path.write_bytes(damage(path.read_bytes()))
    for words in (["evaluate", "run"], ["export", "run", "run/out.safetensors"]):
        answer = renga(*words)
        assert answer.code == 2
        assert answer.err.startswith("renga: run/params.npz: expected the parameters of a run, got '")


def test_a_run_that_was_judged_by_others_is_refused(renga):
    words = setting("generator.width=2", "critic.width=2", "train.num_steps=1", "train.report_every=1")
    assert renga("train", "digits_dcgan", "--out", "run", *words, "--set", "test.classifier_steps=1").code == 0
    answer = renga("evaluate", "run")
    assert answer.code == 2
    assert answer.err.startswith("renga: run: expected a run of a classifier, of a language model or of reinforcement")
