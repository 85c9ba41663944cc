"""Comparing pytrees."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def types(tree: Any) -> Any:
    """Structure, shapes and dtypes of a pytree, comparable by `==`."""
    return jax.tree.structure(tree), [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]


def assert_same(tree: Any, other: Any) -> None:
    """Bitwise, in structure, shapes and dtypes too."""
    assert types(tree) == types(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(_plain(a), _plain(b), jax.tree_util.keystr(path))


def assert_close(tree: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Up to rounding; structure, shapes and dtypes are the same."""
    assert types(tree) == types(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(_plain(a), _plain(b), rtol, atol, err_msg=jax.tree_util.keystr(path))


def _plain(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
    leaf = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return leaf.astype(np.float32) if leaf.dtype == jnp.bfloat16 else leaf


def shown(value: Any) -> str:
    """How a value prints, without addresses, which differ from process to process: a name for a test."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
