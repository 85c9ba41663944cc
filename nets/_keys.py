"""Keys by name: a child's key depends on its parent's key and its own name, and on nothing else."""

import hashlib

import jax
import jax.numpy as jnp


def child_key(key: jax.Array, name: str) -> jax.Array:
    """The key of the child called `name`: `[]` from `[]`."""
    return jax.random.fold_in(key, _number(name))


def key_at(key: jax.Array, path: tuple[str, ...]) -> jax.Array:
    """The key of what stands at a path below: `[]` from `[]`."""
    for name in path:
        key = child_key(key, name)
    return key


def indexed_keys(key: jax.Array, num: int) -> jax.Array:
    """The keys of the children called `"0"`, `"1"`, ...: `[num]` from `[]`."""
    numbers = jnp.array([_number(str(index)) for index in range(num)], jnp.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
