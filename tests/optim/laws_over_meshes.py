"""Every link of the registry, on a batch spread over four devices, against one device: run by `test_sharding.py`.

    python -m tests.optim.laws_over_meshes Auto|Explicit

Prints the names of the links whose parameters or states differ after two steps, and why.
"""

import sys
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from renga import training

from .registry import LINKS
from .test_laws import BATCH, PARAMS, copy_of, step_with

NUM_DEVICES = 4


def after_two_steps(tx: Any, batch: Any) -> Any:
    """Parameters and state."""
    step, train_state = jax.jit(step_with(tx)), training.init(copy_of(PARAMS), tx)
    for _ in range(2):
        train_state, _ = step(train_state, batch)
    return train_state


def main(kind: str) -> None:
    """Runs every link."""
    assert jax.device_count() == NUM_DEVICES
    jax.config.update("jax_disable_most_optimizations", True)
    mesh = jax.make_mesh((NUM_DEVICES,), ("data",), axis_types=(getattr(AxisType, kind),))
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    batch = {name: jnp.tile(BATCH[name], (NUM_DEVICES, 1)) for name in ("x", "y")} | {"c": BATCH["c"]}
    spread = {name: jax.device_put(leaf, whole if name == "c" else rows) for name, leaf in batch.items()}
    for name, build in LINKS.items():
        try:
            expected = after_two_steps(build(), batch)
            with jax.set_mesh(mesh):
                found = after_two_steps(build(), spread)
            jax.tree.map(_compare, found, expected)
        except Exception as error:
            traceback.print_exc()
            print(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}", flush=True)
        jax.clear_caches()


def _compare(one: Any, other: Any) -> None:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
