"""Prioritised replay: steps are drawn in proportion to how much they surprised, from a sum tree in one array."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from .._checks import check_count
from ._replay import Replay, ReplayState, check_filled, replay


class PrioritizedState(NamedTuple):
    """What a prioritised replay buffer holds.

    Attributes:
      steps: the buffer of the steps themselves.
      tree: sums of priorities, `[2 * leaves]`, float32: node `i` is the sum of `2 * i` and `2 * i + 1`, the root is 1.
      total: its root, `[]`.
      largest: the largest priority so far, `[]`.
    """

    steps: ReplayState
    tree: jax.Array
    total: jax.Array
    largest: jax.Array

    @property
    def size(self) -> jax.Array:
        """How many steps there are, `[]`, int32."""
        return self.steps.size


class PrioritizedSample(NamedTuple):
    """What was drawn.

    Attributes:
      items: a pytree of arrays `[batch, ...]`.
      indices: where they stand, for `update`, `[batch]`, int32.
      weights: of importance, at most 1, `[batch]`: what each error is to be multiplied by.
    """

    items: Any
    indices: jax.Array
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class PrioritizedReplay:
    """The functions of a prioritised replay buffer, from `prioritized_replay`. All are pure.

    Attributes:
      buffer: that of the steps themselves.
      alpha: the power of priorities that chances are in proportion to.
      eps: what is added to every priority.
    """

    buffer: Replay
    alpha: float
    eps: float

    def init(self, example: Any) -> PrioritizedState:
        """An empty buffer.

        Args:
          example: one step of one environment, a pytree of arrays or of `jax.ShapeDtypeStruct`s.
        Returns:
          The state: all of its memory is taken here.
        """
        tree = jnp.zeros(2 << self._depth, jnp.float32)
        return PrioritizedState(self.buffer.init(example), tree, jnp.zeros_like(tree[0]), jnp.ones_like(tree[0]))

    def add(self, state: PrioritizedState, items: Any) -> PrioritizedState:
        """The buffer after more steps, with the largest priority so far, in place of the oldest.

        Args:
          state: the buffer.
          items: a pytree of arrays `[num, ...]`, or `[num, num_envs, ...]`, as for `Replay.add`.
        Returns:
          The next state.
        Raises:
          ValueError: naming the path, for items of another structure, shape or dtype than those of `init`.
        """
        steps = self.buffer.add(state.steps, items)
        num = next((len(leaf) for leaf in jax.tree.leaves(items)), 0)
        slots = self.buffer.next_slots(state.steps, num)
        indices = (slots[:, None] * self._num_envs + jnp.arange(self._num_envs)).reshape(-1)
        priorities = jnp.broadcast_to(state.largest**self.alpha, indices.shape)
        return PrioritizedState(steps, *self._raised(state, indices, priorities), state.largest)

    def sample(self, state: PrioritizedState, key: jax.Array, batch_size: int, *, beta: ArrayLike) -> PrioritizedSample:
        """Steps with chances in proportion to their priorities' power `alpha`, one from each of equal shares of them.

        Args:
          state: the buffer.
          key: decides which.
          batch_size: how many.
          beta: how far the weights undo that steps are not drawn evenly: 0 not at all, 1 wholly. It may be an array, of
            a schedule.
        Returns:
          `PrioritizedSample(items, indices, weights)`. The largest weight of a batch is 1.
        Raises:
          ValueError: for a count out of range, and if there is no step yet, where that is known.
        """
        check_count("PrioritizedReplay.sample", "batch_size", batch_size, at_least=1)
        check_filled("PrioritizedReplay.sample", state.steps, 1)
        share = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
        indices, found = self._found(state, share * state.total)
        chance = found / state.total
        weights = (chance * state.size * self._num_envs) ** -jnp.asarray(beta, chance.dtype)
        slots, env = jnp.divmod(indices, self._num_envs)
        items = self.buffer.take(state.steps, slots, *([] if self.buffer.num_envs is None else [env]))
        return PrioritizedSample(items, indices, weights / jnp.max(weights))

    def update(self, state: PrioritizedState, indices: jax.Array, priorities: jax.Array) -> PrioritizedState:
        """The buffer with new priorities, such as the sizes of the errors met.

        Args:
          state: the buffer.
          indices: those of a sample, `[batch]`. Of one that stands there twice the larger priority counts.
          priorities: at least 0, `[batch]`; one that is not finite counts as the largest so far.
        Returns:
          The next state.
        Raises:
          ValueError: if the shapes differ.
        """
        if jnp.shape(indices) != jnp.shape(priorities):
            raise ValueError(
                "PrioritizedReplay.update: expected a priority for each index, got shapes "
                f"{jnp.shape(indices)} and {jnp.shape(priorities)}."
            )
        found = jnp.asarray(priorities, state.largest.dtype) + self.eps
        found = jnp.where(jnp.isfinite(found), found, state.largest)
        largest = jnp.max(found, initial=state.largest)
        return PrioritizedState(state.steps, *self._raised(state, indices, found**self.alpha), largest)

    @property
    def _num_envs(self) -> int:
        return self.buffer.num_envs or 1

    @property
    def _depth(self) -> int:
        return (self.buffer.capacity * self._num_envs - 1).bit_length()

    # A donated tree is changed in place only if what reads it comes before all that writes it: so what is read comes
    # out of these loops, on whose results the next writes depend, and the root stands in the state.

    def _raised(self, state: PrioritizedState, indices: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The tree with other values in leaves and in all sums above them, and its root."""
        if indices.size == 0:
            return state.tree, state.total
        nodes = indices + (1 << self._depth)
        # Which of two writes to one place comes last is not said; the larger of them is.
        tree = state.tree.at[nodes].set(0).at[nodes].max(values.astype(state.tree.dtype))

        def up(_: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            tree, nodes, _ = carry
            nodes = nodes // 2
            sums = tree[2 * nodes] + tree[2 * nodes + 1]
            return tree.at[nodes].set(sums), nodes, sums

        tree, _, sums = lax.fori_loop(0, self._depth, up, (tree, nodes, tree[nodes]))
        return tree, sums[0]

    def _found(self, state: PrioritizedState, sums: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The leaves at which the running sum of all before them passes the sums asked for, and what they hold."""

        def down(_: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            nodes, sums, _ = carry
            left, right = state.tree[2 * nodes], state.tree[2 * nodes + 1]
            # Rounding may leave a sum a little past all that there is, and nothing of chance 0 may be drawn.
            to_right = (sums >= left) & (right > 0)
            return 2 * nodes + to_right, jnp.where(to_right, sums - left, sums), jnp.where(to_right, right, left)

        begin = jnp.ones(sums.shape, jnp.int32), sums, jnp.full(sums.shape, state.total)
        nodes, _, found = lax.fori_loop(0, self._depth, down, begin)
        return nodes - (1 << self._depth), found


def prioritized_replay(
    capacity: int, *, alpha: float = 0.6, eps: float = 1e-6, num_envs: int | None = None
) -> PrioritizedReplay:
    """A replay buffer that draws steps in proportion to a power of their priorities.

    New steps have the largest priority so far, at first 1. A sum tree makes drawing and updating a batch a few passes
    over it, as many as the capacity has binary digits.

    Source: Schaul, Quan, Antonoglou, Silver 2016, https://arxiv.org/abs/1511.05952, section 3.3, equation 1, and
    algorithm 1, proportional.

    Args:
      capacity: steps that it keeps.
      alpha: the power; with 0 all steps are as likely.
      eps: what is added to every priority, so that none is never drawn again.
      num_envs: environments that each step is of, as for `replay`; each has a priority of its own.
    Returns:
      A `PrioritizedReplay`, whose `init`, `add`, `sample` and `update` are the buffer.
    Raises:
      ValueError: for numbers out of range.

    >>> buffer = prioritized_replay(100)
    >>> state = buffer.add(buffer.init({"obs": 0.0}), {"obs": jnp.arange(3.0)})
    >>> state = buffer.update(state, jnp.arange(3), jnp.array([0.0, 0.0, 8.0]))
    >>> found = buffer.sample(state, jax.random.key(0), 4, beta=0.4)
    >>> found.items["obs"].tolist(), found.weights.tolist()
    ([2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    """
    for argument, value in (("alpha", alpha), ("eps", eps)):
        if not value >= 0:
            raise ValueError(f"prioritized_replay: expected {argument} of at least 0, got {value!r}.")
    return PrioritizedReplay(replay(capacity, num_envs=num_envs), alpha, eps)
