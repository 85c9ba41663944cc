"""Normalised weights equal torch's; collected where torch is installed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrizations

from renga import nets

from .kit import floats, values
from .test_first_torch import assert_parity, channels_first, channels_last


def normed(v: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """What `torch.nn.utils.parametrizations.weight_norm` computes, outputs first."""
    return parametrizations._WeightNorm(0)(g, v)


def test_weight_norm_of_linear_equals_torch():
    def peer(params: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, normed(params["net"]["w"].T, params["g"]["w"].T), params["net"]["b"])

    assert_parity(nets.weight_norm(nets.linear(3)), peer, values(floats(4, 5))[0])


def test_weight_norm_of_conv_equals_torch():
    def peer(params: Any, x: torch.Tensor) -> torch.Tensor:
        v, g = (array["w"].movedim((-1, -2), (0, 1)) for array in (params["net"], params["g"]))
        return channels_last(F.conv2d(channels_first(x), normed(v, g), params["net"]["b"], padding=1))

    assert_parity(nets.weight_norm(nets.conv(4, 3)), peer, values(floats(2, 5, 4, 3))[0])


@pytest.mark.parametrize("train", [False, True])
def test_spectral_norm_of_linear_equals_torch(train: bool):
    net, (x,) = nets.spectral_norm(nets.linear(3)), values(floats(4, 5))
    params, state = net.init(jax.random.key(0), x)
    torch.manual_seed(0)
    module: Any = torch.nn.Linear(5, 3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.asarray(params["w"].T)))
        module.bias.copy_(torch.tensor(np.asarray(params["b"])))
    module = parametrizations.spectral_norm(module).train(train)
    norm = module.parametrizations.weight[0]
    steps = 100 if train else 0  # torch's iteration is half a step ahead of ours until both have settled
    apply = jax.jit(net.apply, static_argnames="train")
    for _ in range(steps):
        module(torch.tensor(np.asarray(x)))
        _, state = apply(params, state, x, train=True)
    if not train:
        vectors = {"u": jnp.asarray(norm._u.numpy()), "v": jnp.asarray(norm._v.numpy())}
        state = {"vectors": {"w": vectors}}

    torch_x = torch.tensor(np.asarray(x), requires_grad=True)
    torch_y = module(torch_x)
    (torch_y**2).sum().backward()
    y, _ = net.apply(params, state, x, train=train)
    np.testing.assert_allclose(y, torch_y.detach().numpy(), rtol=1e-5, atol=1e-5)
    grads = jax.grad(lambda params, x: (net.apply(params, state, x, train=train)[0] ** 2).sum(), (0, 1))(params, x)
    expected = module.parametrizations.weight.original.grad.numpy().T
    np.testing.assert_allclose(grads[0]["w"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads[0]["b"], module.bias.grad.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads[1], np.asarray(torch_x.grad), rtol=1e-4, atol=1e-4)
