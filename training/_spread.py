"""Steps over many devices: where their arrays lie, and how the rows of every process make one batch."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ._checks import path_of
from ._data import Resumable
from ._put import put
from ._sharding import ShardingRules, data_parallel, laid_out, shardings_of
from ._specs import as_axes, check_axes
from ._state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a run lie.

    Attributes:
      mesh: the devices.
      batch: the mesh's axes that rows are spread over.
      shardings: of the train state's arrays, in the order of its leaves.
      structure: of the train state.
    """

    mesh: Mesh
    batch: tuple[str, ...]
    shardings: tuple[NamedSharding, ...]
    structure: Any

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.mesh, self.batch, self.shardings, self.structure))

    @property
    def tree(self) -> TrainState:
        """Where each array of the train state lies."""
        return jax.tree.unflatten(self.structure, self.shardings)

    def put(self, train_state: TrainState) -> TrainState:
        """A train state, each array where it has to be."""
        return jax.tree.map(put, train_state, self.tree)

    def spread(self, batches: Any, *, steps: int | None = None) -> Any:
        """Rows of this process `[rows, ...]`, or `[steps, rows, ...]`, as those of all processes, each on its device.

        Raises:
          ValueError: if the rows cannot be dealt out evenly.
        """
        leading = () if steps is None else (None,)
        parts = num_own_parts(self.mesh, self.batch)

        def one(path: Any, leaf: Any) -> jax.Array:
            shape = np.shape(leaf)[len(leading) :]
            is_whole = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
            if shape and not is_whole and shape[0] % parts:
                raise ValueError(_uneven(f"batch/{path_of(path)}".rstrip("/"), shape[0], parts, self.batch))
            spec = PartitionSpec(*leading, *([self.batch] if shape else []))
            sharding = NamedSharding(self.mesh, spec)
            if is_whole or jax.process_count() == 1:
                return jax.device_put(leaf, sharding)
            return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

        return jax.tree_util.tree_map_with_path(one, batches)


@dataclasses.dataclass(frozen=True)
class SpreadStep:
    """A step whose train state stays where it lies, and whose metrics are whole on every device."""

    step: Step
    layout: Layout

    def __call__(self, train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """Makes the step."""
        mesh, whole = self.layout.mesh, NamedSharding(self.layout.mesh, PartitionSpec())
        return laid_out(self.step, mesh, (self.layout.tree, whole))(train_state, batch)


def layout_of(train_state: TrainState, mesh: Mesh | None, rules: ShardingRules | None) -> Layout | None:
    """Where the arrays of a run lie; None for a run without a mesh.

    Raises:
      ValueError: for rules without a mesh, or as `ShardingRules` says.
      TypeError: for what is no mesh, or no rules.
    """
    if mesh is None:
        if rules is not None:
            raise ValueError(
                "fit: expected a mesh where there are rules, got None. Give mesh=jax.make_mesh((4,), ('data',)), say."
            )
        return None
    rules = data_parallel() if rules is None else rules
    for name, value, kind in (("mesh", mesh, Mesh), ("rules", rules, ShardingRules)):
        if not isinstance(value, kind):
            made = "jax.make_mesh((4,), ('data',))" if kind is Mesh else "training.fully_sharded()"
            raise TypeError(f"fit: expected {name} to be such as {made}, got {type(value).__name__}.")
    check_axes("batches", as_axes(rules.batch), mesh)
    leaves, structure = jax.tree.flatten(shardings_of(train_state, mesh, rules))
    return Layout(mesh, as_axes(rules.batch), tuple(leaves), structure)


@dataclasses.dataclass(frozen=True, eq=False)
class LocalBatches:
    """The rows of batches that are this process's, from `local_batches`.

    Attributes:
      feed: the batches, whole.
      mesh: the devices of all processes.
      batch: the mesh's axes that rows are spread over.
    """

    feed: Resumable
    mesh: Mesh
    batch: tuple[str, ...]

    def __iter__(self) -> Iterator[Any]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[Any]:
        """The batches from a step on.

        Raises:
          ValueError: if the rows cannot be dealt out evenly.
        """
        for batch in self.feed.starting_at(step):
            yield jax.tree_util.tree_map_with_path(self._own, batch)

    def _own(self, path: Any, leaf: Any) -> Any:
        if not np.ndim(leaf):
            return leaf
        parts = check_axes("batches", self.batch, self.mesh)
        if len(leaf) % parts:
            raise ValueError(_uneven(f"batch/{path_of(path)}".rstrip("/"), len(leaf), parts, self.batch))
        rows = len(leaf) // parts
        chosen = [np.arange(start * rows, (start + 1) * rows) for start in _own_parts(self.mesh, self.batch)]
        return leaf[np.concatenate(chosen)]


def local_batches(feed: Resumable, mesh: Mesh, rules: ShardingRules | None = None) -> LocalBatches:
    """This process's rows of batches that every process could read whole; in one process all of them.

    So the same script trains on the same batches in one process and in several, and goes on after a change of their
    number where it stopped.

    Args:
      feed: what has a method `starting_at(step)`, such as `training.batches`, the same in every process.
      mesh: the devices of all processes.
      rules: whose `batch` says which axes of the mesh rows are spread over; `data_parallel()` unless given.
    Returns:
      Batches for `fit`, to be taken up at any step.
    Raises:
      TypeError: for a feed without that method.
      ValueError: for an axis that the mesh does not have; while iterating, if the rows cannot be dealt out evenly.

    >>> feed = batches(jnp.arange(10), 4, key=jax.random.key(0))
    >>> next(iter(local_batches(feed, jax.make_mesh((1,), ("data",))))).shape
    (4,)
    """
    if not isinstance(feed, Resumable):
        raise TypeError(
            f"local_batches: expected batches with a method starting_at(step), got {type(feed).__name__}. "
            "Give training.batches, or a class with this method."
        )
    axes = as_axes((rules or data_parallel()).batch)
    check_axes("batches", axes, mesh)
    return LocalBatches(feed, mesh, axes)


def num_own_parts(mesh: Mesh, axes: tuple[str, ...]) -> int:
    """Over how many parts, of those that a batch is cut into, this process's rows are dealt out."""
    return len(_own_parts(mesh, axes))


def _own_parts(mesh: Mesh, axes: tuple[str, ...]) -> list[int]:
    parts = check_axes("batches", axes, mesh)
    places = NamedSharding(mesh, PartitionSpec(axes)).addressable_devices_indices_map((parts,))
    return sorted({(index or (slice(None),))[0].start or 0 for index in places.values()})


def _uneven(place: str, rows: int, parts: int, axes: tuple[str, ...]) -> str:
    named = ", ".join(map(repr, axes))
    return (
        f"fit: expected {place} to have a multiple of {parts} rows, one share for each part of the mesh along {named}, "
        f"got {rows}. Make batches of another size."
    )
