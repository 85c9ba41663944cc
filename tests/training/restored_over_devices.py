"""What was saved on one set of devices comes back on another: run by `test_checkpoints.py`."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from renga import training


def main() -> None:
    """Saves on one device, on four, and restores on one, two, four and the host."""
    devices = jax.devices()
    assert len(devices) == 4
    four, two = jax.make_mesh((4,), ("d",)), jax.make_mesh((2,), ("d",), devices=devices[:2])
    rows, columns = NamedSharding(four, PartitionSpec("d")), NamedSharding(two, PartitionSpec(None, "d"))
    one = SingleDeviceSharding(devices[3])
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    keys = jax.random.split(jax.random.key(0), 8)
    spread = {"w": jax.device_put(values, rows), "keys": jax.device_put(keys, rows)}
    places = {"rows": rows, "columns": columns, "one": one}
    for tree in (spread, {"w": jnp.asarray(values), "keys": keys}):
        with training.Checkpoints(tempfile.mkdtemp()) as checkpoints:
            checkpoints.save(1, tree)
        for sharding in places.values():
            of_keys = sharding if sharding is not columns else one
            like = {
                "w": jax.ShapeDtypeStruct((8, 8), np.float32, sharding=sharding),
                "keys": jax.ShapeDtypeStruct((8,), keys.dtype, sharding=of_keys),
            }
            found = checkpoints.restore(like)
            assert (found["w"].sharding, found["keys"].sharding) == (sharding, of_keys)
            np.testing.assert_array_equal(found["w"], values)
            assert (jax.random.key_data(found["keys"]) == jax.random.key_data(keys)).all()
        like = {"w": jnp.zeros((8, 8)), "keys": keys}
        found = checkpoints.restore(like)
        assert not found["w"].committed
        assert not found["keys"].committed
        found = checkpoints.restore(spread)
        assert found["w"].sharding == rows
        assert [shard.data.shape for shard in found["w"].addressable_shards] == [(2, 8)] * 4


if __name__ == "__main__":
    main()
