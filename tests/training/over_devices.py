"""The meta-gradient of tasks that are sharded over eight devices equals that of one: run by `test_maml.py`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from renga import nets, optim, training


def main() -> None:
    """Compares both."""
    assert jax.device_count() == 8
    net = nets.mlp(8, 8, 1)
    x = jax.random.normal(jax.random.key(0), (16, 5, 1))
    tasks = {"support": {"x": x, "y": jnp.sin(x)}, "query": {"x": -x, "y": jnp.sin(-x)}}
    params = net.init(jax.random.key(1), x)

    def loss_fn(params, batch, key):
        return training.squared_error(net.apply(params, batch["x"]), batch["y"])

    meta_grad = jax.jit(jax.value_and_grad(training.maml(loss_fn, optim.adam(0.01), 3)))
    expected = meta_grad(params, tasks)
    mesh = Mesh(np.array(jax.devices()), ("tasks",))
    spread = jax.device_put(tasks, NamedSharding(mesh, PartitionSpec("tasks")))
    everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    found = meta_grad(everywhere, spread)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    assert "all-reduce" in str(meta_grad.lower(everywhere, spread).compile().as_text())


if __name__ == "__main__":
    main()
