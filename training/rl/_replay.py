"""A replay buffer: the last steps of many environments as one pytree of arrays on the device."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .._checks import check_count, path_of


class ReplayState(NamedTuple):
    """What a replay buffer holds.

    Attributes:
      data: a pytree of arrays `[capacity, ...]`, or `[capacity, num_envs, ...]`.
      position: where the next step goes, `[]`, int32.
      size: how many steps there are, `[]`, int32.
    """

    data: Any
    position: jax.Array
    size: jax.Array


@dataclasses.dataclass(frozen=True)
class Replay:
    """The functions of a replay buffer, from `replay`. All are pure, and stand under `jit`, `vmap` and in a scan.

    Attributes:
      capacity: steps that it keeps.
      num_envs: environments that each step is of, or None for steps of one.
    """

    capacity: int
    num_envs: int | None = None

    def init(self, example: Any) -> ReplayState:
        """An empty buffer.

        Args:
          example: one step of one environment, a pytree of arrays or of `jax.ShapeDtypeStruct`s.
        Returns:
          The state, of zeros: all of its memory is taken here.
        """
        shape = (self.capacity, *self._envs)
        data = jax.tree.map(lambda leaf: jnp.zeros((*shape, *jnp.shape(leaf)), jnp.result_type(leaf)), example)
        return ReplayState(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def add(self, state: ReplayState, items: Any) -> ReplayState:
        """The buffer after more steps, which take the place of the oldest.

        Where the state is donated or carried in a scan, this happens in place.

        Args:
          state: the buffer.
          items: a pytree of arrays `[num, ...]`, or `[num, num_envs, ...]`, in the order of time. If they are more than
            fit, the last ones stay.
        Returns:
          The next state.
        Raises:
          ValueError: naming the path, for items of another structure, shape or dtype than those of `init`.
        """
        num = self._num(state, items)
        slots = self.next_slots(state, num)

        def put(leaf: jax.Array, new: Any) -> jax.Array:
            return leaf.at[slots].set(
                jnp.asarray(new)[num - len(slots) :], mode="promise_in_bounds", unique_indices=True
            )

        data = jax.tree.map(put, state.data, items)
        position = (state.position + num) % self.capacity
        return ReplayState(data, position, jnp.minimum(state.size + num, self.capacity))

    def sample(self, state: ReplayState, key: jax.Array, batch_size: int, *, sequence_length: int | None = None) -> Any:
        """Steps, or sequences of steps, drawn evenly and with replacement from what was added.

        A sequence is of steps of one environment that were added one after another: it may go over the end of an
        episode, which its own flags tell, but never from the newest step to the oldest.

        Args:
          state: the buffer.
          key: decides which.
          batch_size: how many.
          sequence_length: steps in each sequence.
        Returns:
          A pytree of arrays `[batch, ...]`, or `[sequence_length, batch, ...]`.
        Raises:
          ValueError: for counts out of range, and if there are fewer steps than a sequence has. Under `jit` that is not
            known, and what is drawn too early is zeros in part.
        """
        check_count("Replay.sample", "batch_size", batch_size, at_least=1)
        length = 1 if sequence_length is None else sequence_length
        check_count("Replay.sample", "sequence_length", length, at_least=1)
        if length > self.capacity:
            raise ValueError(
                f"Replay.sample: expected a sequence_length of at most the capacity, {self.capacity}, got {length}."
            )
        check_filled("Replay.sample", state, length)
        step_key, env_key = jax.random.split(key)
        age = jax.random.randint(step_key, (batch_size,), 0, jnp.maximum(state.size - length + 1, 1))
        slots = (state.position - state.size + age + jnp.arange(length)[:, None]) % self.capacity
        envs = [jax.random.randint(env_key, (batch_size,), 0, num) for num in self._envs]
        return self.take(state, slots[0] if sequence_length is None else slots, *envs)

    def take(self, state: ReplayState, slots: jax.Array, *envs: jax.Array) -> Any:
        """The steps that stand in slots, of one environment each if there are many.

        Args:
          state: the buffer.
          slots: integers `[...]` in `[0, capacity)`.
          *envs: integers that broadcast with them, in `[0, num_envs)`, if there are many.
        Returns:
          A pytree of arrays `[..., ...]`.
        """
        return jax.tree.map(lambda leaf: leaf.at[slots, *envs].get(mode="promise_in_bounds"), state.data)

    def next_slots(self, state: ReplayState, num: int) -> jax.Array:
        """Where the next so many steps go: of more than fit, the last."""
        return (state.position + jnp.arange(max(num - self.capacity, 0), num)) % self.capacity

    @property
    def _envs(self) -> tuple[int, ...]:
        return () if self.num_envs is None else (self.num_envs,)

    def _num(self, state: ReplayState, items: Any) -> int:
        """How many steps are to be added."""
        wanted, given = jax.tree.structure(state.data), jax.tree.structure(items)
        if wanted != given:
            raise ValueError(f"Replay.add: expected items of the structure of init's example, {wanted}, got {given}.")
        num = next((jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(items)), (0,))
        for path, leaf, new in _pairs(state.data, items):
            expected = f"{leaf.dtype.name}[{', '.join(map(str, (*(num or ('num',)), *leaf.shape[1:])))}]"
            if (jnp.shape(new), jnp.result_type(new)) != ((*num, *leaf.shape[1:]), leaf.dtype) or not num:
                raise ValueError(
                    f"Replay.add: expected items of {expected} at {path!r}, got "
                    f"{jnp.result_type(new).name}{list(jnp.shape(new))}. Give steps as in init's example, time first."
                )
        return num[0]


def replay(capacity: int, *, num_envs: int | None = None) -> Replay:
    """A replay buffer of the last steps.

    With `num_envs`, a step is of that many environments at once, as a rollout of `vectorize` gives them, time first,
    and each sample is of one of them. Without, steps are of one environment; those of several may be flattened into
    time where no sequences are to be drawn.

    Args:
      capacity: steps that it keeps.
      num_envs: environments that each step is of.
    Returns:
      A `Replay`, whose `init`, `add` and `sample` are the buffer.
    Raises:
      ValueError: for counts out of range.

    >>> buffer = replay(100, num_envs=2)
    >>> state = buffer.init({"obs": jnp.zeros(3), "reward": 0.0})
    >>> state = buffer.add(state, {"obs": jnp.ones((5, 2, 3)), "reward": jnp.ones((5, 2))})
    >>> state.size.item(), buffer.sample(state, jax.random.key(0), 8)["obs"].shape
    (5, (8, 3))
    >>> buffer.sample(state, jax.random.key(0), 8, sequence_length=4)["obs"].shape
    (4, 8, 3)
    """
    check_count("replay", "capacity", capacity, at_least=1)
    if num_envs is not None:
        check_count("replay", "num_envs", num_envs, at_least=1)
    return Replay(capacity, num_envs)


def check_filled(name: str, state: ReplayState, num: int) -> None:
    """Refuses a buffer of fewer steps, where how many it has is known.

    Raises:
      ValueError: naming who asks.
    """
    if not isinstance(state.size, Tracer) and (size := int(state.size)) < num:
        raise ValueError(
            f"{name}: expected at least {num} {'step' if num == 1 else 'steps'} in the buffer, got {size}. Add more "
            "before the first sample."
        )


def _pairs(data: Any, items: Any) -> Iterator[tuple[str, jax.Array, Any]]:
    flat = jax.tree_util.tree_leaves_with_path(data)
    for (path, leaf), new in zip(flat, jax.tree.leaves(items), strict=True):
        yield path_of(path), leaf, new
