"""Pipelines: the blocks of a deep network on devices in turn, which work on several parts of a batch at once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from .._call import recording
from ..nets import Net
from ._checks import check_count
from ._specs import as_axes


@recording
def pipelined(
    block: Net,
    mesh: Mesh,
    *,
    num_microbatches: int,
    axis: str = "stage",
    batch: str | tuple[str, ...] = (),
    remat: bool = False,
) -> Callable[[Any, jax.Array], jax.Array]:
    """`nets.repeat(block, num_blocks).apply`, with the blocks dealt out over one axis of a mesh in order.

    A batch is cut into microbatches. Each device applies its blocks to one and hands it on, while the one before it
    works on the next; of `num_microbatches + stages - 1` rounds a device is idle in `stages - 1`. The numbers are those
    of `repeat`, up to rounding, and so are all derivatives; it may stand in a loss, under `jax.jit`.

    Source: Huang et al. 2019 (GPipe), https://arxiv.org/abs/1811.06965, section 2.

    Args:
      block: a network without state and random numbers, from `x` to an output of the same shape and dtype.
      mesh: the devices, of explicit or automatic axes.
      num_microbatches: how many parts a batch is cut into; four times the stages keep 80 % of the devices' time busy.
      axis: the axis of the mesh that the blocks are dealt out over. Lay parameters out so, for example with
        `data_parallel({"blocks/**": PartitionSpec("stage")})`, or they are moved at every call.
      batch: the axes of the mesh that rows are spread over besides.
      remat: whether the backward pass computes each stage again instead of keeping what is inside it.
    Returns:
      `apply(params, x) -> y` for the params of `nets.repeat(block, num_blocks)`, each array with a leading axis of
      blocks, and `x [rows, ...]`. It prints, compares and hashes as the call that made it.
    Raises:
      TypeError: if the block is no network, or wants state or keys.
      ValueError: if the mesh has not these axes; when called, if blocks or rows cannot be dealt out evenly.

    >>> block = nets.residual(nets.linear(4), jnp.tanh)
    >>> net, x = nets.repeat(block, 3), jnp.ones((8, 4))
    >>> params = net.init(jax.random.key(0), x)
    >>> apply = pipelined(block, jax.make_mesh((1,), ("stage",)), num_microbatches=4)
    >>> bool(jnp.allclose(apply(params, x), net.apply(params, x), atol=1e-6))
    True
    """
    if not isinstance(block, Net) or block.core.stateful or block.core.wants_key:
        raise TypeError(f"pipelined: expected block to be a network without state and keys, got {block!r}.")
    check_count("pipelined", "num_microbatches", num_microbatches, at_least=1)
    axes = as_axes(batch)
    for each in (axis, *axes):
        if each not in mesh.shape:
            raise ValueError(f"pipelined: expected axes of the mesh, {mesh.axis_names}, got {each!r}.")
    num_stages, num_parts = mesh.shape[axis], math.prod(mesh.shape[each] for each in axes)

    def stage(params: Any, x: jax.Array) -> jax.Array:
        return lax.scan(lambda x, params: (block.apply(params, x), None), x, params)[0]

    one_stage = jax.checkpoint(stage, prevent_cse=False) if remat else stage

    def rounds(params: Any, xs: jax.Array) -> jax.Array:
        place, last = lax.axis_index(axis), num_stages - 1

        def one_round(handed: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
            own = lax.dynamic_index_in_dim(xs, jnp.minimum(count, num_microbatches - 1), keepdims=False)
            y = one_stage(params, jnp.where(place == 0, own, handed))
            return lax.ppermute(y, axis, [(at, at + 1) for at in range(last)]), y

        begin = jnp.where(place == 0, xs[0], xs[0])  # of every device its own; what is idle works on real numbers
        _, ys = lax.scan(one_round, begin, jnp.arange(num_microbatches + last))
        return lax.psum(jnp.where(place == last, ys[last:], 0), axis)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        blocks = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
        if len(blocks) != 1 or any(not size or size[0] % num_stages for size in blocks):
            raise ValueError(
                f"pipelined: expected params with a leading axis of blocks, a multiple of {num_stages}, the stages, "
                f"got {', '.join(str(size[0] if size else 'none') for size in sorted(blocks)) or 'no arrays'}."
            )
        if jnp.ndim(x) == 0 or x.shape[0] % (num_microbatches * num_parts):
            raise ValueError(
                f"pipelined: expected x to have a multiple of {num_microbatches * num_parts} rows, for "
                f"{num_microbatches} microbatches over {num_parts} parts of the mesh, got shape {jnp.shape(x)}."
            )
        rows = PartitionSpec(None, axes or None)
        known = jax.sharding.get_abstract_mesh().shape == mesh.shape  # maybe of other kinds of axes, as inside `fit`
        over_stages = jax.shard_map(
            rounds, mesh=None if known else mesh, in_specs=(PartitionSpec(axis), rows), out_specs=rows
        )
        dealt = jnp.swapaxes(x.reshape(-1, num_microbatches, *x.shape[1:]), 0, 1)
        return jnp.swapaxes(over_stages(params, dealt), 0, 1).reshape(x.shape)

    return apply
