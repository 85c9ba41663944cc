"""Images made flat: torch's channels come first."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from renga import nets
from renga.nets import convert

from .kit import KEY, outputs, values, variables
from .test_convert_torch import random_module

CONV = nets.conv(4, 3, padding=0)
HEADS = nets.parallel(mean=nets.linear(2), scale=nets.linear(3))
BLOCK = nets.serial(nets.flatten(), nets.linear(2))


@nets.layer
def head(features: int) -> nets.Net:
    return nets.serial(**{"1": nets.flatten(), "2": nets.linear(features)})


@nets.define
def body(x, *, conv=CONV, flat=nets.flatten(), head=nets.linear(2)):
    return head(flat(jax.nn.relu(conv(x))))


def torch_body() -> nn.Module:
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(3, 4, 3))
    module.add_module("relu", nn.ReLU())
    module.add_module("flat", nn.Flatten())
    module.add_module("head", nn.Linear(48, 2))
    return module


class Heads(nn.Module):
    """Two maps of one image."""

    def __init__(self):
        super().__init__()
        self.mean, self.scale = nn.Linear(48, 2), nn.Linear(48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.mean(x), self.scale(x)], -1)


def sequence(**layers: Any) -> nets.Net:
    """As `torch.nn.Sequential` names its layers."""
    return nets.serial(**{name[1:]: layer for name, layer in layers.items()})


def after(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers)


IMAGE = (2, 5, 6, 3)
# name: (our network, torch's module, shape of the input, `flattened`)
NETS: dict[str, tuple[nets.Net, Callable[[], nn.Module], tuple[int, ...], Any]] = {
    "serial": (
        sequence(_0=CONV, _1=jax.nn.relu, _2=nets.flatten(), _3=nets.linear(2)),
        lambda: after(nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)),
        IMAGE,
        None,
    ),
    "activations and dropout between": (
        sequence(_0=CONV, _1=nets.flatten(), _2=nets.dropout(0.5), _3=jax.nn.relu, _4=nets.linear(2)),
        lambda: after(nn.Flatten(), nn.Dropout(), nn.ReLU(), nn.Linear(48, 2)),
        IMAGE,
        None,
    ),
    "norms between": (
        sequence(_0=CONV, _1=nets.flatten(), _2=nets.batch_norm(), _3=nets.layer_norm(), _4=nets.linear(2)),
        lambda: after(nn.Flatten(), nn.BatchNorm1d(48), nn.LayerNorm(48), nn.Linear(48, 2)),
        IMAGE,
        None,
    ),
    "parts of one's own, and wrappers": (
        sequence(_0=nets.remat(CONV), _1=nets.serial(nets.flatten()), _2=nets.cast(nets.serial(nets.linear(2)))),
        lambda: after(nn.Flatten(), nested("linear", nn.Linear(48, 2))),
        IMAGE,
        None,
    ),
    "a head of one's own": (
        sequence(_0=CONV, _1=head(2)),
        lambda: after(nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(48, 2))),
        IMAGE,
        None,
    ),
    "an input": (BLOCK, lambda: nested("linear", nn.Linear(90, 2), nn.Flatten()), IMAGE, None),
    "a sequence": (
        sequence(_0=nets.conv(4, (3,), padding=0), _1=nets.flatten(2), _2=nets.linear(2)),
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)),
        (2, 6, 3),
        None,
    ),
    "several readers": (
        sequence(_0=CONV, _1=nets.flatten(), _2=nets.serial(by=HEADS)),
        lambda: after(nn.Flatten(), nested("by", Heads())),
        IMAGE,
        None,
    ),
    "normalised weights": (
        sequence(_0=CONV, _1=nets.flatten(), _2=nets.spectral_norm(nets.linear(2))),
        lambda: after(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(48, 2))),
        IMAGE,
        None,
    ),
    "lengths of weights": (
        sequence(_0=CONV, _1=nets.flatten(), _2=nets.weight_norm(nets.linear(2))),
        lambda: after(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(48, 2))),
        IMAGE,
        None,
    ),
    "as the caller says": (body, torch_body, IMAGE, {"head": (3, 4, 4)}),
}  # fmt: skip


def nested(name: str, layer: nn.Module, *before: nn.Module) -> nn.Module:
    """A sequence whose last layer has a name."""
    module = nn.Sequential(*before)
    module.add_module(name, layer)
    return module


@pytest.mark.parametrize("name", NETS)
def test_a_flattened_image_is_read_as_torch_reads_it(name: str):
    net, make, shape, flattened = NETS[name]
    x = values(jax.ShapeDtypeStruct(shape, jnp.float32))
    module = random_module(make)
    made = convert.from_torch(net, module.state_dict(), x, flattened=flattened)
    y = outputs(net, made if isinstance(net, nets.StatefulNet) else (made,), x)
    y = np.concatenate(list(y.values()), -1) if isinstance(y, dict) else y
    expected = module(torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())).detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    back = convert.to_torch(net, made, x, flattened=flattened)
    for key, array in module.state_dict().items():
        np.testing.assert_array_equal(back[key], array.numpy())


@pytest.mark.parametrize(
    ("net", "reader", "shape"),
    [
        (nets.convnet((4, 6), 5, 2), "hidden", (6, 2, 2)),
        (nets.dcgan_discriminator(16, width=4), "head", (8, 4, 4)),
    ],
)
def test_whole_networks_know_their_reader(net: nets.Net, reader: str, shape: tuple[int, ...]):
    x = jnp.ones((1, 16, 16, 3) if reader == "head" else (1, 8, 8, 3))
    made = variables(net, KEY, x)
    found = convert.to_torch(net, made if isinstance(net, nets.StatefulNet) else made[0], x)
    w = made[0][reader]["w"]
    there = found[f"{reader}.weight"].reshape(-1, *shape)
    np.testing.assert_array_equal(np.moveaxis(there, (0, 1), (-1, -2)).reshape(w.shape), w)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.serial(nets.embed(5, 3), nets.flatten(2), nets.linear(2)), (4, 6)),
        (nets.serial(CONV, nets.global_avg_pool(), nets.linear(2)), (1, 5, 6, 3)),
        (nets.serial(nets.flatten(), nets.linear(2)), (1, 5, 6, 1)),
    ],
)
def test_what_has_the_same_order_there_stays(net: nets.Net, shape: tuple[int, ...]):
    x = jnp.zeros(shape, jnp.int32 if len(shape) == 2 else jnp.float32)
    params = net.init(KEY, x)
    np.testing.assert_array_equal(convert.to_torch(net, params, x)["linear.weight"].T, params["linear"]["w"])


@pytest.mark.parametrize(
    ("net", "where"),
    [
        (body, "flat = "),
        (nets.serial(CONV, nets.linear(4), nets.flatten(), nets.linear(2)), "flatten = "),
        (nets.serial(CONV, nets.flatten(), nets.residual(nets.linear(48))), "residual = "),
        (nets.serial(CONV, nets.flatten(), lambda x: x[..., :7], nets.linear(2)), "linear = "),
        (nets.serial(nets.flatten(2), nets.linear(2)), "flatten = "),
        (nets.serial(CONV, lambda x: x.reshape(len(x), -1), nets.linear(2)), "function = "),
    ],
)
def test_an_image_whose_reader_is_not_seen_is_refused(net: nets.Net, where: str):
    x = jnp.ones((2, 5, 6, 3))
    params = net.init(KEY, x)
    with pytest.raises(convert.ConvertError, match=rf"{where}.*: expected to see where .* flattened="):
        convert.to_torch(net, params, x)
    assert convert.to_torch(net, params, x, flattened={})


def test_members_of_an_ensemble_read_it_as_one_does():
    net, x = nets.serial(CONV, nets.flatten(), nets.linear(2)), jnp.ones((5, 6, 3))
    many = nets.ensemble(net, 2)
    params = many.init(KEY, x)
    found = convert.to_torch(many, params, x)
    for number in range(2):
        one = convert.to_torch(net, jax.tree.map(lambda leaf, i=number: leaf[i], params), x)
        np.testing.assert_array_equal(found[f"{number}.linear.weight"], one["linear.weight"])


def test_axes_that_do_not_fit_and_layers_that_are_not_there_are_refused():
    x = jnp.ones((2, 5, 6, 3))
    params = body.init(KEY, x)
    with pytest.raises(convert.ConvertError, match=r"head, flattened: expected axes of 48 values, got \(3, 3, 4\)"):
        convert.to_torch(body, params, x, flattened={"head": (3, 3, 4)})
    with pytest.raises(convert.ConvertError, match=r"flattened: expected a pattern .*'tail'\. There are 'head'\."):
        convert.to_torch(body, params, x, flattened={"tail": (3, 4, 4)})
