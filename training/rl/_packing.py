"""Trajectories cut into sequences for networks with a carry, and into minibatches."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._checks import check_count, path_of


class Packed(NamedTuple):
    """Sequences of one environment each, in rows: what `nets.rnn` and a loss take.

    Attributes:
      data: a pytree of arrays `[sequences, length, ...]`, 0 where there is no step.
      mask: which steps are there to be learned from, `[sequences, length]`.
      carries: what a recurrent policy carried into the first step of each, `[sequences, ...]`; None if not given.
    """

    data: Any
    mask: jax.Array
    carries: Any


def pack_episodes(data: Any, first: ArrayLike, length: int, *, num_sequences: int, carries: Any = None) -> Packed:
    """The episodes of a trajectory as sequences of one length, padded; those that are longer go on in the next row.

    Where an episode goes on, in a longer one's next row or from before the trajectory, its sequence has the carry that
    stood there; one that begins with its episode has the initial carry, if that is what the policy was given.

    Args:
      data: a pytree of arrays `[time, envs, ...]`.
      first: where an observation begins an episode, Booleans `[time, envs]`.
      length: steps of a sequence.
      num_sequences: how many rows there are. There may be as many sequences as environments times `time / length`,
        rounded up, and one for each further episode. Rows too many are empty; of sequences too many, the last are left
        out, and the sum of the mask is below the number of steps.
      carries: a pytree of arrays `[time, envs, ...]`: what the policy carried into each step.
    Returns:
      A `Packed`, whose sequences stand in the order of environments, and within one in that of time.
    Raises:
      ValueError: for counts out of range, and arrays that do not have the two axes in common.
      TypeError: if `first` is not of Booleans.

    >>> first = jnp.array([[True], [False], [False], [True], [False]])
    >>> packed = pack_episodes({"t": jnp.arange(5)[:, None]}, first, 2, num_sequences=4)
    >>> packed.data["t"].tolist()
    [[0, 1], [2, 0], [3, 4], [0, 0]]
    >>> packed.mask.astype(int).tolist()
    [[1, 1], [1, 0], [1, 1], [0, 0]]
    """
    check_count("pack_episodes", "length", length, at_least=1)
    check_count("pack_episodes", "num_sequences", num_sequences, at_least=1)
    if jnp.result_type(first) != jnp.bool_:
        raise TypeError(f"pack_episodes: expected first as Booleans, got {jnp.result_type(first)}.")
    num_steps, _ = _two_axes("pack_episodes", {"data": data, "first": first, "carries": carries})
    time = jnp.arange(num_steps)[:, None]
    begin = jax.lax.cummax(jnp.where(jnp.asarray(first) | (time == 0), time, 0), axis=0)
    starts = ((time - begin) % length == 0).T.reshape(-1)
    row = jnp.cumsum(starts) - 1
    places = jnp.nonzero(starts, size=num_sequences, fill_value=0)[0]
    env, start = jnp.divmod(places, num_steps)
    steps = start[:, None] + jnp.arange(length)
    inside = jnp.minimum(steps, num_steps - 1)
    same = row[env[:, None] * num_steps + inside] == jnp.arange(num_sequences)[:, None]
    mask = same & (steps < num_steps) & (jnp.arange(num_sequences) <= row[-1])[:, None]
    return _gathered(data, carries, inside, env, mask)


def chunks(data: Any, length: int, *, stride: int | None = None, burn_in: int = 0, carries: Any = None) -> Packed:
    """A trajectory as sequences of one length at even distances, over the ends of episodes, which `first` tells.

    The first steps of each, the burn-in, are there to bring a carry up to date, and are not in the mask: run the
    network over them from the stored carry, and over the others from `jax.lax.stop_gradient` of where that led.

    Source: Kapturowski, Ostrovski, Quan, Munos, Dabney 2019, https://openreview.net/forum?id=r1lyTjAqYX, section 3.

    Args:
      data: a pytree of arrays `[time, envs, ...]`.
      length: steps of a sequence, those of the burn-in among them.
      stride: steps from one to the next; `length - burn_in` unless given, so that each step is learned from once, but
        those of the first burn-in.
      burn_in: how many of them are burn-in.
      carries: a pytree of arrays `[time, envs, ...]`: what the policy carried into each step.
    Returns:
      A `Packed` with as many rows as there are sequences, in the order of time, and within one time in that of
      environments. Together they reach the end of the trajectory; the last ones are padded.
    Raises:
      ValueError: for counts out of range, and arrays that do not have the two axes in common.

    >>> packed = chunks({"t": jnp.arange(6)[:, None]}, 4, burn_in=1)
    >>> packed.data["t"].tolist(), packed.mask.astype(int).tolist()
    ([[0, 1, 2, 3], [3, 4, 5, 0]], [[0, 1, 1, 1], [0, 1, 1, 0]])
    """
    check_count("chunks", "length", length, at_least=1)
    if isinstance(burn_in, bool) or not isinstance(burn_in, int) or not 0 <= burn_in < length:
        raise ValueError(f"chunks: expected burn_in to be an integer in [0, {length}), got {burn_in!r}.")
    stride = length - burn_in if stride is None else stride
    check_count("chunks", "stride", stride, at_least=1)
    num_steps, num_envs = _two_axes("chunks", {"data": data, "carries": carries})
    num_starts = 1 + max(0, -(-(num_steps - length) // stride))
    start, env = jnp.divmod(jnp.arange(num_starts * num_envs), num_envs)
    steps = (start * stride)[:, None] + jnp.arange(length)
    there = steps < num_steps
    found = _gathered(data, carries, jnp.minimum(steps, num_steps - 1), env, there)
    return found._replace(mask=there & (jnp.arange(length) >= burn_in))


def minibatches(key: jax.Array, data: Any, num: int, *, axes: int = 2) -> Any:
    """All steps of a trajectory in random order, as minibatches of one size: what a scan over updates takes.

    Args:
      key: decides the order.
      data: a pytree of arrays `[time, envs, ...]`, as many of whose first axes are taken together as `axes` says.
      num: how many minibatches.
      axes: 2 for steps of many environments, 1 for rows such as those of `Packed`.
    Returns:
      A pytree of arrays `[num, size, ...]`.
    Raises:
      ValueError: for counts out of range, if the steps cannot be shared out evenly, and for arrays that do not have the
        first axes in common.

    >>> minibatches(jax.random.key(0), {"t": jnp.arange(6).reshape(3, 2)}, 2)["t"].tolist()
    [[0, 1, 5], [4, 3, 2]]
    """
    check_count("minibatches", "num", num, at_least=1)
    check_count("minibatches", "axes", axes, at_least=1)
    shape = _leading("minibatches", {"data": data}, axes)
    size = math.prod(shape)
    order = _shared_out("minibatches", key, size, num, "steps")
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (size, *jnp.shape(leaf)[axes:]))[order], data)


def sequence_minibatches(key: jax.Array, data: Any, num: int, *, carries: Any = None) -> Packed:
    """The environments of a trajectory in random order, as minibatches of whole sequences, in rows.

    Args:
      key: decides the order.
      data: a pytree of arrays `[time, envs, ...]`.
      num: how many minibatches.
      carries: what a recurrent policy carried into the first step of each environment, a pytree of arrays
        `[envs, ...]`: the `carry` of the state that the rollout went on from.
    Returns:
      A `Packed` with `num` as a further axis in front: data `[num, size, time, ...]`, carries `[num, size, ...]`, and a
      mask that is true.
    Raises:
      ValueError: for a count out of range, if the environments cannot be shared out evenly, and for arrays that do not
        have the axes in common.

    >>> sequence_minibatches(jax.random.key(0), {"t": jnp.arange(8).reshape(2, 4)}, 2).data["t"].tolist()
    [[[0, 4], [1, 5]], [[3, 7], [2, 6]]]
    """
    check_count("sequence_minibatches", "num", num, at_least=1)
    num_steps, num_envs = _two_axes("sequence_minibatches", {"data": data})
    for path, leaf in jax.tree_util.tree_leaves_with_path({"carries": carries}):
        if jnp.shape(leaf)[:1] != (num_envs,):
            raise ValueError(
                f"sequence_minibatches: expected carries of {num_envs} environments, [envs, ...], got "
                f"{jnp.shape(leaf)} at {path_of(path)!r}."
            )
    order = _shared_out("sequence_minibatches", key, num_envs, num, "environments")
    rows = jax.tree.map(lambda leaf: jnp.moveaxis(jnp.asarray(leaf)[:, order], 0, 2), data)
    held = jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], carries)
    return Packed(rows, jnp.ones((*order.shape, num_steps), bool), held)


def _gathered(data: Any, carries: Any, steps: jax.Array, env: jax.Array, mask: jax.Array) -> Packed:
    """Rows of steps of one environment each, 0 outside the mask."""

    def row(leaf: ArrayLike) -> jax.Array:
        found = jnp.asarray(leaf)[steps, env[:, None]]
        return jnp.where(mask.reshape(*mask.shape, *[1] * (found.ndim - 2)), found, jnp.zeros_like(found))

    carried = jax.tree.map(lambda leaf: jnp.asarray(leaf)[steps[:, 0], env], carries)
    return Packed(jax.tree.map(row, data), mask, carried)


def _shared_out(name: str, key: jax.Array, size: int, num: int, what: str) -> jax.Array:
    """A random order of so many, as `[num, size / num]`."""
    if size % num:
        raise ValueError(
            f"{name}: expected a number of {what} that {num} minibatches share evenly, got {size}. Choose num among "
            "its divisors."
        )
    return jax.random.permutation(key, size).reshape(num, -1)


def _two_axes(name: str, trees: dict[str, Any]) -> tuple[int, int]:
    num_steps, num_envs = _leading(name, trees, 2)
    return num_steps, num_envs


def _leading(name: str, trees: dict[str, Any], num: int) -> tuple[int, ...]:
    """The first axes, which all arrays must have in common."""
    leaves = [(path_of(path), jnp.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(trees)]
    shape = leaves[0][1][:num] if leaves else ()
    for path, found in leaves:
        if found[:num] != shape or len(found) < num or not all(found[:num]):
            raise ValueError(
                f"{name}: expected arrays [{', '.join(['time', 'envs'][:num])}, ...] alike in the first "
                f"{'axis' if num == 1 else f'{num} axes'}, got {found} at {path!r} and {leaves[0][1]} at "
                f"{leaves[0][0]!r}."
            )
    if not leaves:
        raise ValueError(f"{name}: expected arrays, got none.")
    return shape
