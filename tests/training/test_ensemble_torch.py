"""An ensemble against torch.func's `stack_module_state` and `vmap`, on the same weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training

torch = pytest.importorskip("torch")

X = np.sin(np.arange(96.0, dtype=np.float32)).reshape(3, 8, 4)
LABELS = np.arange(24).reshape(3, 8) % 2
NET = nets.mlp(6, 2, activation=jnp.tanh)


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return training.cross_entropy(NET.apply(params, batch["x"]), batch["y"])


@pytest.mark.parametrize("shared", [True, False])
def test_an_ensemble_descends_as_torchs_tutorial_does(shared):
    models = [torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(models)
    stacked = {name: leaf.detach() for name, leaf in stacked.items()}
    as_ours = [
        {
            "w": jnp.swapaxes(jnp.asarray(stacked[f"{i}.weight"].numpy()), 1, 2),
            "b": jnp.asarray(stacked[f"{i}.bias"].numpy()),
        }
        for i in (0, 2)
    ]
    x, y = (X[0], LABELS[0]) if shared else (X, LABELS)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(torch.func.functional_call(models[0], params, (x,)), y)

    axes = (0, None, None) if shared else (0, 0, 0)
    for _ in range(3):
        grads = torch.func.vmap(torch.func.grad(loss), axes)(stacked, torch.tensor(x), torch.tensor(y))
        stacked = {name: leaf - 0.5 * grads[name] for name, leaf in stacked.items()}

    tx = optim.sgd(0.5)
    step = jax.jit(training.ensemble(training.step(loss_fn, tx), 3, batches="shared" if shared else "own"))
    train_states = jax.vmap(lambda params: training.init(params, tx))({"layers": as_ours})
    for _ in range(3):
        train_states, _ = step(train_states, {"x": x, "y": y})
    for index, layer in zip((0, 2), train_states.params["layers"], strict=True):
        np.testing.assert_allclose(jnp.swapaxes(layer["w"], 1, 2), stacked[f"{index}.weight"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer["b"], stacked[f"{index}.bias"], rtol=1e-5, atol=1e-5)
