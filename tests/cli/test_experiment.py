"""What a config builds: the chain, the networks, the data."""

import jax
import numpy as np
import pytest

from renga import nets, optim
from renga.training.cli._config import Described
from renga.training.cli._experiment import (
    Adam,
    Convnet,
    Digits,
    Docstrings,
    Documentation,
    Experiment,
    Gru,
    LstmLm,
    Mlp,
    Resnet,
    Sgd,
    Transformer,
    Vit,
    chain_of,
    net_of,
)
from renga.training.cli._networks import gru
from renga.training.cli._task import Losses, Split


def split(seed: int = 0, label_noise: float = 0.0) -> Split:
    data = Digits(label_noise=label_noise)
    return data.split(data.load(seed, batch_size=64), seed)


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


SGD = {"name": "sgd", "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1}}
COSINE = optim.cosine_decay_schedule(0.1, 1000)  # for train.num_steps


@pytest.mark.parametrize(
    ("tables", "chain"),
    [
        ({"name": "lion", "learning_rate": 0.1}, optim.lion(0.1)),
        (
            {"name": "chain", "links": [{"name": "asam", "rho": 0.5, "unscaled": "**/b"}, SGD]},
            optim.chain(optim.asam(0.5, unscaled="**/b"), optim.sgd(COSINE)),
        ),
        (
            {"name": "extragradient", "base": SGD},  # it steps its base twice
            optim.extragradient(optim.sgd(optim.cosine_decay_schedule(0.1, 2000))),
        ),
        (
            {"name": "chain", "named_links": {"look": {"name": "sam", "rho": 1}, "base": SGD}},
            optim.chain(look=optim.sam(1.0), base=optim.sgd(COSINE)),
        ),
    ],
)
def test_any_other_name_describes_a_link_whose_schedules_last_for_the_run(tables, chain):
    assert chain_of(Experiment(net=Mlp(), optim=Described(tables))) == chain


@pytest.mark.parametrize(
    ("data", "config", "net", "outputs"),
    [
        (Digits(), Mlp(hidden=(3, 2)), nets.serial(nets.flatten(), nets.mlp(3, 2, 10)), (10,)),
        (
            Digits(),
            Convnet(channels=(2, 3, 4), hidden=5, drop_rate=0.5),
            nets.convnet((2, 3, 4), 5, 10, drop_rate=0.5),
            (10,),
        ),
        (
            Digits(),
            Resnet(depth=34, version=2, width=3),
            nets.resnet(34, 10, version=2, width=3, small_images=True),
            (10,),
        ),
        (
            Digits(),
            Vit(patch=4, features=6, num_layers=2, num_heads=3, pool="mean", drop_rate=0.1),
            nets.vit(10, 4, features=6, num_layers=2, num_heads=3, pool="mean", drop_rate=0.1),
            (10,),
        ),
        (
            Documentation(length=7),
            LstmLm(features=3, num_layers=2, drop_rate=0.1),
            nets.lstm_lm(96, 3, num_layers=2, drop_rate=0.1),
            (7, 96),
        ),
        (
            Documentation(length=7),
            Transformer(features=8, num_layers=2, num_heads=2, window=3, drop_rate=0.1),
            nets.transformer(
                96,
                8,
                num_layers=2,
                num_heads=2,
                window=3,
                rope=nets.rotary(),
                norm=nets.rms_norm(),
                mlp=nets.swiglu(24),
                bias=False,
                drop_rate=0.1,
            ),
            (7, 96),
        ),
        (Docstrings(length=7), Gru(features=3, drop_rate=0.1), gru(96, 3, 9, drop_rate=0.1), (9,)),
    ],
)
def test_a_network_maps_an_example_to_the_logits_that_its_data_need(data, config, net, outputs):
    assert net_of(Experiment(data=data, net=config, optim=Sgd())) == net
    losses = Losses(net, data)
    made = jax.eval_shape(losses.init, jax.random.key(0))
    logits, state = jax.eval_shape(losses.logits, *made, data.example)
    assert (logits.shape, state) == (outputs, made[1])


def test_every_image_is_on_one_side_of_the_split():
    images = Digits().load(0, batch_size=64)
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
