"""Arrays of any pytree on disk, by Orbax."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ._checks import path_of
from ._put import put

Arrays = list[np.ndarray]
MOST = 30
AS_BYTES = {"float8_e4m3", "float6_e2m3fn", "float6_e3m2fn", "int1", "uint1", "uint2", "uint4"}
"""Dtypes of a byte that Orbax does not know."""


class Leaf(NamedTuple):
    """What is known of a leaf without its values.

    Attributes:
      path: its place in the tree, names joined by slashes.
      shape: of the array.
      dtype: its name; of random keys one that names their implementation.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def leaves_of(tree: Any) -> list[Leaf]:
    """What the arrays of a tree are, in its order.

    Raises:
      TypeError: for a leaf that is neither an array of numbers or keys nor a number, by its path.
    """
    return [_leaf(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _leaf(path: str, leaf: Any) -> Leaf:
    shaped = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    if not any(jnp.issubdtype(shaped.dtype, kind) for kind in (np.number, np.bool_, jax.dtypes.prng_key)):
        raise TypeError(
            f"checkpoints: expected arrays and numbers, got {type(leaf).__name__} at {path!r}. "
            "What is no array may be kept as extra."
        )
    return Leaf(path, tuple(shaped.shape), str(shaped.dtype))


def check_same(path: Path, saved: Sequence[Leaf], given: Sequence[Leaf]) -> None:
    """Refuses arrays that are not those that were saved.

    Raises:
      ValueError: with what differs, path by path.
    """
    if list(saved) == list(given):
        return
    old, new = ({leaf.path: leaf for leaf in leaves} for leaves in (saved, given))
    lines = [
        f"  {name}: saved {old.get(name, 'nothing')}, given {new.get(name, 'nothing')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    more = [f"  and {len(lines) - MOST} more"] if lines[MOST:] else []
    raise ValueError(
        "\n".join([f"checkpoints: expected the arrays of {path}, got others:", *lines[:MOST], *more])
        + "\nGive a train state of the network and the chain that were saved."
    )


def copied(tree: Any) -> Arrays:
    """The leaves on the host, as they are now: buffers may be reused thereafter."""
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    arrays = [np.array(leaf, copy=True) for leaf in jax.device_get(list(map(_gathered, leaves)))]
    return [array.view(np.uint8) if str(array.dtype) in AS_BYTES else array for array in arrays]


def write(path: Path, arrays: Arrays) -> None:
    """Leaves arrays as a new directory; Orbax knows none without elements."""
    ocp = load_orbax()
    full = {_name(place): array for place, array in enumerate(arrays) if array.size}
    with _in_silence(), _checkpointer(ocp) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(full or {"none": np.zeros(1)}))


def read(path: Path, like: Any, leaves: Sequence[Leaf]) -> Any:
    """A tree such as `like` from what was written, each array where that of `like` is."""
    ocp = load_orbax()
    wanted, structure = jax.tree.flatten(like)
    full = {_name(place): leaf for place, leaf in enumerate(wanted) if 0 not in leaves[place].shape}
    options = {name: _restore_args(ocp, leaf) for name, leaf in full.items()}
    found: dict[str, Any] = {}
    if full:
        with _in_silence(), _checkpointer(ocp) as checkpointer:
            targets = {name: np.zeros(()) for name in full}
            found = checkpointer.restore(path, args=ocp.args.PyTreeRestore(targets, restore_args=options))
    made = [
        _as(leaf, found[_name(place)] if _name(place) in found else np.zeros(leaves[place].shape, _plain(leaf)))
        for place, leaf in enumerate(wanted)
    ]
    return jax.tree.unflatten(structure, made)


def load_orbax() -> Any:
    """The library that reads and writes arrays.

    Raises:
      ImportError: naming the extra that installs it.
    """
    try:
        import orbax.checkpoint
    except ImportError:
        raise ImportError(
            "checkpoints: expected orbax-checkpoint to be installed, got none. "
            "Install it with pip install 'renga[checkpoint]'."
        ) from None
    return orbax.checkpoint


def _name(place: int) -> str:
    return f"{place:06}"


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.dtype:
    """The dtype of the numbers that a leaf is written as."""
    if _is_key(leaf):
        return np.dtype(np.uint32)
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _sharding(leaf: Any) -> Any:
    """Where a leaf has to be; None where it may be anywhere, as what nobody has put on a device."""
    return getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None


def _checkpointer(ocp: Any) -> Any:
    """Orbax for this process alone, where there are several: it would wait for all of them."""
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _gathered(leaf: Any) -> Any:
    """An array whole in every process, if parts of it are in others."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    return np.asarray(jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec())))  # pyright: ignore


def _restore_args(ocp: Any, leaf: Any) -> Any:
    sharding = _sharding(leaf)
    if sharding is None or _is_key(leaf) or str(_plain(leaf)) in AS_BYTES or not sharding.is_fully_addressable:
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding)


def _as(like: Any, found: Any) -> Any:
    """What was found, as the kind of leaf that `like` is."""
    found = found.view(_plain(like)) if str(_plain(like)) in AS_BYTES else found
    if isinstance(like, np.ndarray):
        return found
    if isinstance(like, np.generic):
        return found[()]
    if not hasattr(like, "dtype"):
        return type(like)(found.item())
    found = jax.random.wrap_key_data(jnp.asarray(found), impl=_implementation(like)) if _is_key(like) else found
    return jnp.asarray(found) if _sharding(like) is None else put(found, _sharding(like))


def _implementation(key: Any) -> Any:
    return jax.random.key_impl(key if isinstance(key, jax.Array) else jnp.empty(0, key.dtype))


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Orbax logs the tracebacks of its threads, beside raising what they raised."""
    quiet = logging.getLogger("absl")
    quiet.addFilter(_none)
    try:
        yield
    finally:
        quiet.removeFilter(_none)


def _none(record: logging.LogRecord) -> bool:
    return False
