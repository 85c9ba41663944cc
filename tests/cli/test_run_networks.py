"""Runs of the larger networks: their state, and what they leave."""

from pathlib import Path

from .test_run import SMALL, arrays, setting


def test_a_network_with_state_runs_and_leaves_its_state(renga):
    net = 'net={name="resnet", width=2}'
    answer = renga("train", "--out", "run", *setting(*SMALL, net, "train.num_steps=2"))
    assert (answer.code, answer.err) == (0, "")
    assert "network   resnet(18, 10, width=2, small_images=True)\n" in answer.out
    held = arrays(Path("run"))
    assert held["stem/conv/w"].shape == (3, 3, 1, 2)
    assert held["state/stages/3/1/norms/1/var"].shape == (16,)
    assert (held["state/stem/norm/mean"] != 0).all()


def test_a_vision_transformer_runs_with_dropout(renga):
    net = 'net={name="vit", patch=4, features=8, num_layers=2, num_heads=2, drop_rate=0.1}'
    answer = renga("train", "--out", "run", *setting(*SMALL, net, "train.num_steps=2"))
    assert (answer.code, answer.err) == (0, "")
    assert arrays(Path("run"))["blocks/attn/q/w"].shape == (2, 8, 2, 4)
