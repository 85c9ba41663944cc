"""Weights of torch's own layers, read and written."""

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

# name: (our network, torch's module, shape of the input, axes that bring it into torch's order)
LAYERS: dict[str, tuple[nets.Net, Callable[[], nn.Module], tuple[int, ...], tuple[int, ...] | None]] = {
    "linear": (nets.linear(3), lambda: nn.Linear(5, 3), (4, 5), None),
    "linear without bias": (nets.linear(3, bias=False), lambda: nn.Linear(5, 3, bias=False), (4, 5), None),
    "embed": (nets.embed(5, 4), lambda: nn.Embedding(5, 4), (3, 2), None),
    "conv of 1": (nets.conv(4, (3,), padding=1), lambda: nn.Conv1d(2, 4, 3, padding=1), (2, 6, 2), (0, 2, 1)),
    "conv of 2": (
        nets.conv(4, 3, padding=0, groups=2),
        lambda: nn.Conv2d(2, 4, 3, groups=2),
        (2, 6, 5, 2),
        (0, 3, 1, 2),
    ),
    "conv of 3": (
        nets.conv(4, (3, 2, 1), padding=0),
        lambda: nn.Conv3d(2, 4, (3, 2, 1)),
        (2, 4, 4, 3, 2),
        (0, 4, 1, 2, 3),
    ),
    "depthwise_conv": (
        nets.depthwise_conv(3, multiplier=2, padding=1),
        lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2),
        (2, 5, 5, 2),
        (0, 3, 1, 2),
    ),
    "conv_transpose": (
        nets.conv_transpose(4, (3, 2), stride=2, padding=1, groups=2),
        lambda: nn.ConvTranspose2d(2, 4, (3, 2), stride=2, padding=1, groups=2),
        (2, 4, 5, 2),
        (0, 3, 1, 2),
    ),
    "turned conv_transpose": (
        nets.conv_transpose(4, (3, 2), stride=2, padding=1, groups=2, transpose_kernel=False),
        lambda: nn.ConvTranspose2d(2, 4, (3, 2), stride=2, padding=1, groups=2),
        (2, 4, 5, 2),
        (0, 3, 1, 2),
    ),
    "layer_norm": (nets.layer_norm(), lambda: nn.LayerNorm(5), (4, 5), None),
    "rms_norm": (nets.rms_norm(), lambda: nn.RMSNorm(5, eps=1e-6), (4, 5), None),
    "batch_norm": (nets.batch_norm(), lambda: nn.BatchNorm2d(3), (2, 4, 4, 3), (0, 3, 1, 2)),
    "group_norm": (nets.group_norm(2), lambda: nn.GroupNorm(2, 4), (2, 3, 3, 4), (0, 3, 1, 2)),
    "instance_norm": (nets.instance_norm(), lambda: nn.InstanceNorm2d(4, affine=True), (2, 3, 3, 4), (0, 3, 1, 2)),
    "serial": (
        nets.serial(**{"0": nets.linear(4), "2": nets.linear(2)}),
        lambda: two_maps(nn.Linear(3, 4), nn.Linear(4, 2)),
        (5, 3),
        None,
    ),
    "repeat": (nets.repeat(nets.linear(4), 3), lambda: nn.Sequential(*map(nn.Linear, [4] * 3, [4] * 3)), (5, 4), None),
    "lstm": (nets.rnn(nets.lstm_cell(4)), lambda: nn.LSTM(3, 4, batch_first=True), (2, 5, 3), None),
    "gru": (nets.rnn(nets.gru_cell(4)), lambda: nn.GRU(3, 4, batch_first=True), (2, 5, 3), None),
    "rnn": (nets.rnn(nets.simple_cell(4)), lambda: nn.RNN(3, 4, batch_first=True), (2, 5, 3), None),
    "bidirectional lstm": (
        nets.bidirectional(nets.lstm_cell(4)),
        lambda: nn.LSTM(3, 4, batch_first=True, bidirectional=True),
        (2, 5, 3),
        None,
    ),
    "stacked gru": (
        nets.rnn(nets.stack_cells(nets.gru_cell(4), nets.gru_cell(4))),
        lambda: nn.GRU(3, 4, num_layers=2, batch_first=True),
        (2, 5, 3),
        None,
    ),
    "weight_norm": (
        nets.weight_norm(nets.linear(3)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)),
        (4, 5),
        None,
    ),
    "weight_norm of a conv": (
        nets.weight_norm(nets.conv(4, 3, padding=1)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3, padding=1)),
        (2, 4, 4, 2),
        (0, 3, 1, 2),
    ),
    "weight_norm of a transposed conv": (
        nets.weight_norm(nets.conv_transpose(4, 3, padding=1), transposed="w"),
        lambda: nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(2, 4, 3, padding=1), dim=1),
        (2, 4, 4, 2),
        (0, 3, 1, 2),
    ),
    "spectral_norm": (
        nets.spectral_norm(nets.linear(3)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, 3)),
        (4, 5),
        None,
    ),
    "spectral_norm of a conv": (
        nets.spectral_norm(nets.conv(4, (3, 2), padding=0, groups=2)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 4, (3, 2), groups=2)),
        (2, 4, 5, 6),
        (0, 3, 1, 2),
    ),
    "spectral_norm of a transposed conv": (
        nets.spectral_norm(nets.conv_transpose(4, (3, 2), padding=0), transposed="w"),
        lambda: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(6, 4, (3, 2))),
        (2, 4, 5, 6),
        (0, 3, 1, 2),
    ),
    "attention": (nets.attention(2), lambda: SelfAttention(6, 2), (2, 5, 6), None),
}  # fmt: skip


def two_maps(first: nn.Module, second: nn.Module) -> nn.Module:
    return nn.Sequential(first, nn.Identity(), second)


class SelfAttention(nn.MultiheadAttention):
    """Torch's attention of a sequence to itself."""

    def __init__(self, width: int, num_heads: int):
        super().__init__(width, num_heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, x, x, need_weights=False)[0]


def random_module(make: Callable[[], nn.Module]) -> nn.Module:
    """A module in evaluation with random weights and statistics."""
    generator = torch.Generator().manual_seed(0)
    module = make().eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.1 + torch.rand(tensor.shape, generator=generator))
    return module


def torch_output(module: nn.Module, x: Any, axes: tuple[int, ...] | None) -> np.ndarray:
    given = torch.tensor(np.asarray(x))
    y = module(given if axes is None else given.permute(axes))
    y = y[0] if isinstance(y, tuple) else y
    return (y if axes is None else y.permute(*np.argsort(axes))).detach().numpy()


@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_torch_give_torchs_outputs_and_go_back(name: str):
    net, make, shape, axes = LAYERS[name]
    dtype = jnp.int32 if name == "embed" else jnp.float32
    x = values(jax.ShapeDtypeStruct(shape, dtype))
    module = random_module(make)
    made = convert.from_torch(net, module.state_dict(), x)
    made = made if isinstance(net, nets.StatefulNet) else (made,)
    np.testing.assert_allclose(outputs(net, made, x), torch_output(module, x, axes), rtol=1e-5, atol=1e-5)

    again = make().eval()
    back = convert.to_torch(net, made if isinstance(net, nets.StatefulNet) else made[0], x)
    again.load_state_dict({key: torch.tensor(array) for key, array in back.items()}, strict=True)
    np.testing.assert_allclose(torch_output(again, x, axes), torch_output(module, x, axes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_there_and_back_is_exact(name: str):
    net, _, shape, _ = LAYERS[name]
    x = values(jax.ShapeDtypeStruct(shape, jnp.int32 if name == "embed" else jnp.float32))
    made = variables(net, KEY, x)
    given = made if isinstance(net, nets.StatefulNet) else made[0]
    again = convert.from_torch(net, convert.to_torch(net, given, x), x)
    assert jax.tree.structure(again) == jax.tree.structure(given)
    jax.tree.map(np.testing.assert_array_equal, again, given)


def test_names_say_where_the_parts_of_a_network_stand_there():
    net = nets.serial(block=nets.repeat(nets.serial(nets.linear(4), nets.layer_norm()), 2), head=nets.linear(2))
    x = jnp.ones((1, 4))
    names = {"block/*/linear": "h/*/mlp/fc", "block": "h", "head": "lm_head"}
    found = convert.to_torch(net, net.init(KEY, x), x, names=names)
    assert sorted(found) == sorted(
        [f"h.{i}.{name}.{kind}" for i in (0, 1) for name in ("mlp.fc", "layer_norm") for kind in ("weight", "bias")]
        + ["lm_head.weight", "lm_head.bias"]
    )
    params = net.init(KEY, x)
    np.testing.assert_array_equal(found["h.1.mlp.fc.weight"].T, params["block"]["linear"]["w"][1])
    same = convert.to_torch(net, net.init(KEY, x), x, names=lambda path: path.replace("block", "h"))
    assert "h.1.linear.weight" in same


def test_a_spectral_norm_of_a_table_has_the_two_vectors_the_other_way_round():
    net, ids = nets.spectral_norm(nets.embed(5, 4)), jnp.arange(3)
    module = random_module(lambda: nn.utils.parametrizations.spectral_norm(nn.Embedding(5, 4)))
    made = convert.from_torch(net, module.state_dict(), ids)
    np.testing.assert_allclose(net.apply(*made, ids)[0], torch_output(module, ids, None), rtol=1e-5)


def test_arrays_of_a_combinator_keep_their_names():
    net, x = nets.spectral_norm(nets.serial(a=nets.linear(3), b=nets.linear(2)), "a/w"), jnp.ones((2, 4))
    made = net.init(KEY, x)
    found = convert.to_torch(net, made, x)
    assert set(found) == {"a.weight", "a.bias", "b.weight", "b.bias", "vectors.a.w.u", "vectors.a.w.v"}
    jax.tree.map(np.testing.assert_array_equal, convert.from_torch(net, found, x), made)


def test_layers_inside_a_weight_norm_of_several_have_their_own_maps():
    net, x = nets.weight_norm(nets.serial(a=nets.linear(3))), jnp.ones((2, 4))
    found = convert.to_torch(net, net.init(KEY, x), x)
    assert {name: array.shape for name, array in found.items()} == {
        "net.a.weight": (3, 4),
        "net.a.bias": (3,),
        "g.a.w": (1, 3),
    }


@nets.layer
def own_linear(features: int) -> nets.Net:
    return nets.linear(features)


@nets.layer
def tower(features: int) -> nets.Net:
    return nets.repeat(own_linear(features), 3)


def test_a_constructor_of_ones_own_has_the_map_of_what_it_returns():
    x = jnp.ones((2, 4))
    net = nets.serial(own_linear(4), tower(4))
    made = net.init(KEY, x)
    found = convert.to_torch(net, made, x)
    assert sorted(found) == sorted(
        f"{path}.{name}" for path in ("own_linear", "tower.0", "tower.1", "tower.2") for name in ("weight", "bias")
    )
    np.testing.assert_array_equal(found["tower.1.weight"].T, made["tower"]["w"][1])
    jax.tree.map(np.testing.assert_array_equal, convert.from_torch(net, found, x), made)
    normed = nets.weight_norm(own_linear(3))
    assert "parametrizations.weight.original0" in convert.to_torch(normed, normed.init(KEY, x), x)


def test_torch_takes_what_it_is_given_of_bfloat16():
    net, x = nets.cast(nets.linear(3), params="bfloat16"), jnp.ones((2, 4))
    params = net.init(KEY, x)
    found = convert.to_torch(net, params, x)
    assert {name: array.dtype for name, array in found.items()} == {"weight": np.float32, "bias": np.float32}
    module = nn.Linear(4, 3)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()})
    again = convert.from_torch(net, module.state_dict(), x)
    assert again["w"].dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (torch.ones(3, 2, dtype=torch.complex64), "complex64"),
        (torch.ones(3, 2, dtype=torch.int8), "int8"),
        (np.full((3, 2), "a"), "<U1"),
    ],
)
def test_numbers_of_another_kind_are_listed(given: Any, got: str):
    with pytest.raises(convert.ConvertError, match=f"1 arrays do not fit:\n  weight: expected float32, got {got}"):
        convert.from_torch(nets.linear(3), {"weight": given, "bias": torch.ones(3)}, jnp.ones(2))


def test_torch_tensors_of_bfloat16_are_read():
    module = nn.Linear(2, 3).to(torch.bfloat16)
    params = convert.from_torch(nets.linear(3), module.state_dict(), jnp.ones(2))
    np.testing.assert_array_equal(params["w"], module.weight.detach().float().numpy().T)


def test_grouped_heads_have_the_names_of_llama():
    net, x = nets.attention(4, num_kv_heads=2, bias=False), jnp.ones((3, 8))
    found = convert.to_torch(net, net.init(KEY, x), x)
    assert {name: array.shape for name, array in found.items()} == {
        "q_proj.weight": (8, 8),
        "k_proj.weight": (4, 8),
        "v_proj.weight": (4, 8),
        "o_proj.weight": (8, 8),
    }


def test_a_memory_of_another_width_has_torchs_maps():
    net, x, memory = nets.attention(2), values(jnp.zeros((3, 4, 8))), values(jnp.zeros((3, 5, 6)))
    module = random_module(lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True))
    params = convert.from_torch(net, module.state_dict(), x, memory)
    query, source = torch.tensor(np.asarray(x)), torch.tensor(np.asarray(memory))
    expected = module(query, source, source, need_weights=False)[0].detach().numpy()
    np.testing.assert_allclose(net.apply(params, x, memory), expected, rtol=1e-5, atol=1e-5)
    back = convert.to_torch(net, params, x, memory)
    assert set(back) == set(module.state_dict())
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(back[name], array.numpy())


def test_heads_that_torch_cannot_have_get_a_map_each():
    net, x = nets.attention(2, head_size=3), jnp.ones((3, 8))
    assert "q_proj.weight" in convert.to_torch(net, net.init(KEY, x), x)
