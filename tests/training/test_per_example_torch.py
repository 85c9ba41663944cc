"""Per-example gradients against torch.func, on one set of weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

torch = pytest.importorskip("torch")

X = jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
Y = jnp.array([0, 2, 1, 2])


def test_gradients_and_norms_of_a_convolutional_network_are_those_of_torch():
    net = nets.serial(
        nets.conv(4, 3, padding="valid"),
        jax.nn.relu,
        nets.conv(6, 3, padding="valid", stride=2),
        jax.nn.relu,
        nets.max_pool(2),
        lambda x: x.reshape(*x.shape[:-3], -1),
        nets.linear(3),
    )
    params = net.init(jax.random.key(1), X)

    def loss_fn(params: Any, batch: Any, key: None) -> jax.Array:
        return training.cross_entropy(net.apply(params, batch["x"]), batch["y"])

    def to_torch(array: Any, *order: int) -> Any:
        return torch.tensor(np.asarray(array).transpose(order) if order else np.asarray(array))

    weights = {
        name: to_torch(layer["w"], *((3, 2, 0, 1) if layer["w"].ndim == 4 else (1, 0)))
        for name, layer in params.items()
    }
    biases = {name: to_torch(layer["b"]) for name, layer in params.items()}

    def loss_of_one(weights: Any, biases: Any, x: Any, y: Any) -> Any:
        f = torch.nn.functional
        x = torch.relu(f.conv2d(x[None], weights["conv"], biases["conv"]))
        x = torch.relu(f.conv2d(x, weights["conv_1"], biases["conv_1"], stride=2))
        x = f.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
        return f.cross_entropy(f.linear(x, weights["linear"], biases["linear"]), y[None])

    grad = torch.func.grad(loss_of_one, argnums=(0, 1))
    expected = torch.func.vmap(grad, in_dims=(None, None, 0, 0))(
        weights, biases, to_torch(X, 0, 3, 1, 2), to_torch(Y).long()
    )
    batch = {"x": X, "y": Y}
    found = jax.jit(training.per_example(loss_fn))(params, batch)
    for name, layer in found.items():
        w = layer["w"]
        w = w.transpose(0, 4, 3, 1, 2) if w.ndim == 5 else w.transpose(0, 2, 1)
        np.testing.assert_allclose(w, expected[0][name].numpy(), 1e-5, 1e-6)
        np.testing.assert_allclose(layer["b"], expected[1][name].numpy(), 1e-5, 1e-6)
    squares = torch.stack([g.flatten(1).square().sum(1) for part in expected for g in part.values()]).sum(0)
    norms = jax.jit(training.per_example_norms(loss_fn))(params, batch)
    np.testing.assert_allclose(norms, squares.sqrt().numpy(), 1e-5)
