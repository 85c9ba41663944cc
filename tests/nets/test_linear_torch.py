"""Bilinear maps equal torch's for the same parameters, gradients too; collected where torch is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from renga import nets

from .kit import KEY, floats, values


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear_equals_torch(bias: bool):
    net, inputs = nets.bilinear(3, bias=bias), values(floats(4, 2, 5) + floats(4, 2, 6))
    params = jax.tree.map(lambda leaf: 0.5 + 0.5 * leaf, values(jax.eval_shape(net.init, KEY, *inputs)))
    weights = values(floats(4, 2, 3))[0]

    peer = torch.nn.Bilinear(5, 6, 3, bias=bias)
    with torch.no_grad():
        peer.weight.copy_(torch.tensor(np.moveaxis(params["w"], -1, 0).copy()))
        if bias:
            peer.bias.copy_(torch.tensor(np.asarray(params["b"])))
    given = [torch.tensor(np.asarray(x), requires_grad=True) for x in inputs]
    theirs = peer(*given)
    (theirs * torch.tensor(np.asarray(weights))).sum().backward()

    np.testing.assert_allclose(net.apply(params, *inputs), theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    loss = lambda params, *inputs: jnp.sum(net.apply(params, *inputs) * weights)  # noqa: E731
    grads, *of_inputs = jax.grad(loss, (0, 1, 2))(params, *inputs)
    assert peer.weight.grad is not None
    pairs = [(grads["w"], np.moveaxis(peer.weight.grad.numpy(), 0, -1))]
    pairs += [(grads["b"], peer.bias.grad)] if bias else []
    pairs += zip(of_inputs, [x.grad for x in given], strict=True)
    for ours, their in pairs:
        np.testing.assert_allclose(ours, np.asarray(their), rtol=1e-4, atol=1e-4)
