"""Layers equal torch's for the same parameters, gradients too; collected where torch is installed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from renga import nets

from .kit import floats, integers, values


def to_torch(array: jax.Array) -> torch.Tensor:
    return torch.tensor(np.asarray(array), requires_grad=bool(jnp.issubdtype(array.dtype, jnp.floating)))


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


def assert_parity(net: nets.Net, peer: Callable[[Any, torch.Tensor], torch.Tensor], x: jax.Array) -> None:
    """Outputs to 1e-5, gradients of a weighted sum of outputs to 1e-4; `peer(params, x)` is torch's."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: 0.5 + 0.5 * leaf, values(shapes))
    argnums = (0, 1) if jnp.issubdtype(x.dtype, jnp.floating) else (0,)
    y = net.apply(params, x)
    (weights,) = values(floats(*y.shape))
    grads = jax.grad(lambda params, x: (net.apply(params, x) * weights).sum(), argnums)(params, x)

    theirs, torch_x = jax.tree.map(to_torch, params), to_torch(x)
    torch_y = peer(theirs, torch_x)
    np.testing.assert_allclose(y, torch_y.detach().numpy(), rtol=1e-5, atol=1e-5)
    (torch_y * torch.tensor(np.asarray(weights))).sum().backward()
    torch_grads = jax.tree.map(lambda leaf: leaf.grad.numpy(), (theirs, torch_x)[: len(argnums)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, torch_grads)


def test_linear_equals_torch():
    (x,) = values(floats(4, 2, 5))
    assert_parity(nets.linear(3), lambda params, x: F.linear(x, params["w"].T, params["b"]), x)


@pytest.mark.parametrize(
    ("kernel", "options", "shape"),
    [
        ((3,), {"padding": 1}, (2, 7, 4)),
        ((3, 3), {"padding": 1}, (2, 6, 5, 4)),
        ((3, 2), {"padding": "valid", "stride": (2, 1)}, (2, 6, 5, 4)),
        ((3, 3), {"padding": ((2, 2), (2, 2)), "dilation": 2}, (2, 6, 5, 4)),
        ((3, 3), {"padding": 0, "groups": 2}, (2, 6, 5, 4)),
        ((2, 2, 2), {"padding": 1, "stride": 2}, (2, 4, 3, 4, 2)),
    ],
)
def test_conv_equals_torch(kernel: tuple[int, ...], options: dict, shape: tuple[int, ...]):
    torch_conv: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(kernel)]
    padding = options["padding"]
    padding = padding if isinstance(padding, str | int) else tuple(before for before, _ in padding)

    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        w = params["w"].movedim((-1, -2), (0, 1))
        options_ = (options.get("stride", 1), padding, options.get("dilation", 1), options.get("groups", 1))
        return channels_last(torch_conv(channels_first(x), w, params["b"], *options_))

    (x,) = values(floats(*shape))
    assert_parity(nets.conv(4, kernel, **options), peer, x)


@pytest.mark.parametrize(
    ("window", "options", "shape"),
    [
        ((2,), {}, (2, 6, 3)),
        ((2, 2), {}, (2, 5, 6, 3)),
        ((3, 3), {"stride": 2, "padding": 1}, (2, 6, 5, 3)),
        ((2, 2, 2), {"stride": 1}, (2, 3, 4, 3, 2)),
    ],
)
def test_pools_equal_torch(window: tuple[int, ...], options: dict, shape: tuple[int, ...]):
    num = len(window)
    torch_max = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[num]
    torch_avg = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[num]
    stride, padding = options.get("stride", window), options.get("padding", 0)
    (x,) = values(floats(*shape))

    def largest(params: dict, x: torch.Tensor) -> torch.Tensor:
        return channels_last(torch_max(channels_first(x), window, stride, padding))

    def mean(params: dict, x: torch.Tensor) -> torch.Tensor:
        return channels_last(torch_avg(channels_first(x), window, stride, padding, count_include_pad=False))

    assert_parity(nets.max_pool(window, **options), largest, x)
    assert_parity(nets.avg_pool(window, **options), mean, x)


def test_layer_norm_equals_torch():
    (x,) = values(floats(4, 3, 7))
    assert_parity(nets.layer_norm(), lambda params, x: F.layer_norm(x, (7,), params["scale"], params["offset"]), x)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_equals_torch(train: bool):
    (x,) = values(floats(3, 4, 4, 2))
    norm = nets.batch_norm()
    _, state = norm.init(jax.random.key(0), x)
    state = jax.tree.map(lambda leaf: 1.5 + 0.5 * leaf, values(state))
    fixed = nets.Net(
        lambda key, x: norm.init(key, x)[0], lambda params, x: norm.apply(params, state, x, train=train)[0]
    )

    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        mean, var = (torch.tensor(np.asarray(state[name])) for name in ("mean", "var"))
        y = F.batch_norm(channels_first(x), mean, var, params["scale"], params["offset"], train)
        return channels_last(y)

    assert_parity(fixed, peer, x)


def test_embed_equals_torch():
    (ids,) = values(integers(3, 7))
    assert_parity(nets.embed(5, 4), lambda params, ids: F.embedding(ids, params["w"]), ids)
