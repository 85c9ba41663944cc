"""What a config builds: the chain, the networks, the data."""

import jax
import numpy as np
import pytest

from renga import nets, optim
from renga.training.cli._experiment import (
    Adam,
    Convnet,
    Digits,
    Experiment,
    Mlp,
    Sgd,
    Split,
    chain_of,
    convnet,
    example_input,
    images_of,
    split_of,
)


def split(seed: int = 0, label_noise: float = 0.0) -> Split:
    experiment = Experiment(net=Mlp(), optim=Sgd(), seed=seed, data=Digits(label_noise=label_noise))
    return split_of(experiment, images_of(experiment))


@pytest.mark.parametrize(
    ("config", "chain"),
    [
        (Sgd(momentum=0.5), optim.chain(optim.sgd(0.1, momentum=0.5))),
        (Adam(), optim.chain(optim.adam(1e-3))),
        (Adam(weight_decay=0.1), optim.chain(optim.adamw(1e-3, weight_decay=0.1))),
        (Adam(schedule="cosine"), optim.chain(optim.adam(optim.cosine_decay_schedule(1e-3, 1000)))),
        (Sgd(rho=0.0), optim.chain(optim.sam(0.0), optim.sgd(0.1, momentum=0.9))),
        (Adam(rho=0.2, clip_norm=3.0), optim.chain(optim.sam(0.2), optim.clip_by_global_norm(3.0), optim.adam(1e-3))),
    ],
)
def test_a_chain_is_sam_then_the_clip_then_the_optimizer(config, chain):
    assert chain_of(Experiment(net=Mlp(), optim=config)) == chain


@pytest.mark.parametrize(
    ("config", "net"),
    [
        (Mlp(hidden=(3, 2)), nets.serial(nets.flatten(), nets.mlp(3, 2, 10))),
        (Convnet(channels=(2, 3, 4), hidden=5, drop_rate=0.5), convnet((2, 3, 4), 5, 10, drop_rate=0.5)),
    ],
)
def test_a_network_maps_an_image_to_ten_logits(config, net):
    assert config.build() == net
    params = jax.eval_shape(net.init, jax.random.key(0), example_input())
    assert jax.eval_shape(net.apply, params, example_input()).shape == (10,)


def test_every_image_is_on_one_side_of_the_split():
    images = images_of(Experiment(net=Mlp(), optim=Sgd()))
    train, test = split()
    assert len(train["x"]) == len(train["y"]) == 1198
    assert len(test["x"]) == len(test["y"]) == 599
    both = np.concatenate([train["x"], test["x"]]).reshape(1797, -1)
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(images["x"].reshape(1797, -1), axis=0))
    assert (images["x"].min(), images["x"].max(), images["x"].dtype) == (0, 1, np.float32)


def test_the_seed_decides_the_split():
    np.testing.assert_array_equal(split(seed=3).test["x"], split(seed=3).test["x"])
    assert (split(seed=3).test["x"] != split(seed=4).test["x"]).any()


def test_label_noise_draws_its_share_of_the_training_labels_anew_and_no_others():
    clean, noisy = split(), split(label_noise=0.4)
    np.testing.assert_array_equal(clean.train["x"], noisy.train["x"])
    np.testing.assert_array_equal(clean.test["y"], noisy.test["y"])
    changed = np.mean(clean.train["y"] != noisy.train["y"])  # a tenth of the labels drawn is the old one again
    assert abs(changed - 0.36) < 0.03
    assert set(noisy.train["y"]) == set(range(10))
