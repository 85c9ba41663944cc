"""Arrays laid out over devices, those of other processes too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def put(leaf: Any, sharding: Any) -> jax.Array:
    """An array where it has to be, from one that every process has whole.

    `jax.device_put` takes no random keys to other processes' devices, and sends all else there to be compared.

    Args:
      leaf: an array, or one that lies over several processes already.
      sharding: where.
    Returns:
      The array, of which each process has its own part.
    """
    if sharding.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])
