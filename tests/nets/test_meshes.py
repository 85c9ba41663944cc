"""Layers on four devices, under meshes of explicit and of automatic axes, give what they give on one."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from renga import nets

key = jax.random.key(0)
x = jax.random.normal(key, (8, 4, 4, 6))
ids = jnp.arange(32).reshape(8, 4) % 10
cases = {
    "embed": (nets.embed(10, 4), ids),
    "linear": (nets.linear(3), x),
    "conv": (nets.conv(3, 3), x),
    "max_pool": (nets.max_pool(2), x),
    "avg_pool": (nets.avg_pool(2, padding="same"), x),
    "flatten": (nets.flatten(), x),
    "layer_norm": (nets.layer_norm(), x),
    "batch_norm": (nets.batch_norm(), x),
    "dropout": (nets.dropout(0.5), x),
    "repeat": (nets.repeat(nets.residual(nets.linear(6), jnp.tanh, nets.dropout(0.1)), 3), x),
    "ensemble": (nets.ensemble(nets.mlp(4, 3), 2), x),
}


def outcome(net, inputs):
    made = net.init(key, inputs)
    leading = made if isinstance(net, nets.StatefulNet) else (made,)

    def loss(params):
        out = net.apply(params, *leading[1:], inputs, key=key, train=True)
        out = out[0] if isinstance(net, nets.StatefulNet) else out
        return jnp.sum(out**2), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(leading[0])
    return jax.device_get((out, grads))


mesh = jax.make_mesh((4,), ("data",), axis_types=(getattr(AxisType, sys.argv[1]),))
for name, (net, inputs) in cases.items():
    alone = outcome(net, inputs)
    with jax.set_mesh(mesh):
        spread = outcome(net, jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("data"))))
    close = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-4, atol=1e-5)), alone, spread)
    assert all(jax.tree.leaves(close)), (name, close)
print("the same for", len(cases))
"""


@pytest.mark.parametrize("axes", ["Explicit", "Auto"])
def test_layers_on_four_devices_give_what_they_give_on_one(axes: str):
    result = subprocess.run([sys.executable, "-c", PROGRAM, axes], capture_output=True, text=True, check=False)
    assert "the same for 11" in result.stdout, result.stderr[-3000:]
