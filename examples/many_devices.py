"""One transformer, trained by the same step on one device and on four, laid out over them in three ways.

A mesh and rules are all that `fit` is given besides. The four devices are threads of the CPU, unless the machine has
accelerators, of which all are taken.

    python examples/many_devices.py        45 seconds

Prints the loss after 200 steps, which is the same, and how much of the train state a device holds:

    one device       loss 0.7857  1.25 MB on each
    data-parallel    loss 0.7857  1.25 MB on each
    fully sharded    loss 0.7857  0.37 MB on each
    tensor-parallel  loss 0.7857  0.64 MB on each

Several processes, here two on one machine, are told of each other by the environment; under SLURM, `srun` does that:

    export JAX_COORDINATOR_ADDRESS=localhost:12345 JAX_NUM_PROCESSES=2
    JAX_PROCESS_ID=0 python examples/many_devices.py & JAX_PROCESS_ID=1 python examples/many_devices.py
"""

import os

import jax
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from renga import nets, optim, training

NET = nets.transformer(32, 64, num_layers=2, num_heads=4, max_length=32)
TX = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(3e-3))
BY_HEADS = {
    "blocks/attn/out/w": P(None, "model"),
    "blocks/attn/*/w": P(None, None, "model"),
    "blocks/attn/[qkv]/b": P(None, "model"),
    "blocks/mlp/up/w": P(None, None, "model"),
    "blocks/mlp/up/b": P(None, "model"),
    "blocks/mlp/down/w": P(None, "model"),
    "tokens/w": P("model"),
}


def sentences():
    """Rows of eight tokens that are said four times over."""
    return np.tile(np.random.default_rng(0).integers(0, 32, (1024, 8)), 4)


def loss_fn(params, batch, key):
    """Cross entropy of each next token."""
    return training.cross_entropy(NET.apply(params, batch[:, :-1]), batch[:, 1:])


def start():
    """The train state before the first step."""
    return training.init(NET.init(jax.random.key(0), np.zeros((1, 31), int)), TX)


def megabytes(train_state):
    """What the first device here holds."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(train_state)) / 1e6


def layouts():
    """Meshes of all devices, of which the last is two-dimensional if there is an even number, and rules."""
    num = jax.device_count()
    num_rows = num // 2 if num % 2 == 0 else num
    line = jax.make_mesh((num,), ("data",), axis_types=(AxisType.Auto,))
    square = jax.make_mesh((num_rows, num // num_rows), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    return {
        "data-parallel": (line, training.data_parallel()),
        "fully sharded": (line, training.fully_sharded()),
        "tensor-parallel": (square, training.data_parallel(BY_HEADS)),
    }


def main(num_steps=200):
    """Trains in each way; returns the losses."""
    step, feed = training.step(loss_fn, TX), training.batches(sentences(), 32, key=jax.random.key(1))
    options = {"num_steps": num_steps, "report_every": 20, "progress": False}
    found = {"one device": training.fit(step, start(), feed, **options)}
    for name, (mesh, rules) in layouts().items():
        train_state = training.init_sharded(start, mesh, rules)
        own = training.local_batches(feed, mesh, rules)
        found[name] = training.fit(step, train_state, own, mesh=mesh, rules=rules, **options)
    for name, (train_state, history) in found.items():
        if jax.process_index() == 0:
            print(f"{name:15}  loss {history[-1]['loss']:.4f}  {megabytes(train_state):.2f} MB on each")
    return {name: history[-1]["loss"] for name, (_, history) in found.items()}


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4 // int(os.environ.get("JAX_NUM_PROCESSES", "1")))
    training.initialize_distributed()
    main()
