"""State dicts of GPT-2 and of torchvision's ResNet-18; collected where torch is installed."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from renga import nets
from renga.nets import convert

from .kit import KEY, values
from .test_networks_torch import ResNet, shaken
from .test_transformer_torch import HEADS, IDS, LAYERS, LENGTH, VOCAB, WIDTH, Gpt2

NET = nets.transformer(VOCAB, WIDTH, num_layers=LAYERS, num_heads=HEADS, max_length=LENGTH)


def published(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As GPT-2's own file has them: maps as `[in, out]`, a head that is the tokens', and causal masks among them."""
    state = {}
    for name, array in module.state_dict().items():
        is_map = name.endswith(".weight") and ".c_" in name
        state[f"transformer.{name}"] = array.T if is_map else array
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, LENGTH, LENGTH) for i in range(LAYERS)}
    return state | masks | {"lm_head.weight": state["transformer.wte.weight"]}


def test_gpt2s_state_dict_gives_its_logits_and_goes_back():
    torch.manual_seed(0)
    module = Gpt2().eval()
    state = published(module)
    params = convert.from_gpt2(NET, state, IDS)
    expected = module(torch.tensor(np.asarray(IDS, np.int64))).detach().numpy()
    np.testing.assert_allclose(NET.apply(params, IDS), expected, rtol=1e-4, atol=1e-4)
    back = convert.to_gpt2(NET, params, IDS)
    assert set(back) == {name.removeprefix("transformer.") for name in state if not name.endswith(".attn.bias")} - {
        "lm_head.weight"
    }
    for name, array in back.items():
        np.testing.assert_array_equal(array, state[f"transformer.{name}"].numpy())


def test_a_head_of_its_own_is_refused():
    state = published(Gpt2()) | {"lm_head.weight": torch.zeros(VOCAB, WIDTH)}
    with pytest.raises(convert.ConvertError, match=r"expected lm_head\.weight to equal wte\.weight"):
        convert.from_gpt2(NET, state, IDS)


def test_every_missing_extra_and_mis_shaped_array_is_listed():
    state = published(Gpt2())
    del state["transformer.h.1.ln_2.bias"]
    state["transformer.h.7.ln_2.bias"] = torch.zeros(WIDTH)
    state["transformer.wpe.weight"] = torch.zeros(LENGTH, 2)
    with pytest.raises(convert.ConvertError) as caught:
        convert.from_gpt2(NET, state, IDS)
    assert str(caught.value).split("\n")[1:] == [
        "  missing h.1.ln_2.bias (16,)",
        "  extra h.7.ln_2.bias (16,)",
        "  wpe.weight: expected (12, 16), got (12, 2)",
    ]


def test_resnet_18s_state_dict_gives_its_logits_and_goes_back():
    torch.manual_seed(0)
    module = shaken(ResNet((2, 2, 2, 2), (3, 3), 8, 5)).eval()
    net, x = nets.resnet(18, 5, width=8), values(jnp.zeros((2, 32, 32, 3)))
    names = convert.torchvision_resnet
    params, state = convert.from_torch(net, module.state_dict(), x, names=names)
    expected = module(torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())).detach().numpy()
    np.testing.assert_allclose(net.apply(params, state, x)[0], expected, rtol=1e-4, atol=1e-4)

    again = ResNet((2, 2, 2, 2), (3, 3), 8, 5).eval()
    back = convert.to_torch(net, (params, state), x, names=names)
    again.load_state_dict({name: torch.tensor(array) for name, array in back.items()}, strict=True)
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), array.numpy())


def test_the_full_resnet_18_has_the_names_and_shapes_of_torchvision():
    net, x = nets.resnet(18, 1000), jnp.zeros((64, 64, 3))
    params, state = net.init(KEY, x)
    found = convert.to_torch(net, (params, state), x, names=convert.torchvision_resnet)
    expected = ResNet((2, 2, 2, 2), (3, 3), 64, 1000).state_dict()
    assert {name: array.shape for name, array in found.items()} == {n: tuple(a.shape) for n, a in expected.items()}
