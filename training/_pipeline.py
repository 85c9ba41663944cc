"""Pipelines: the blocks of a deep network on devices in turn, which work on several parts of a batch at once."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, reshard

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
) -> Callable[..., jax.Array]:
    """`nets.repeat(block, num_blocks).apply`, with the blocks dealt out over one axis of a mesh in order.

    A batch is cut into microbatches. Each device applies its blocks to one and hands it on, while the one before it
    works on the next; of `num_microbatches + stages - 1` rounds a device is idle in `stages - 1`. The numbers are those
    of `repeat`, up to rounding, and so are all derivatives; it may stand in a loss, under `jax.jit`.

    Source: Huang et al. 2019 (GPipe), https://arxiv.org/abs/1811.06965, section 2.

    Args:
      block: a network without state, from `x` to an output of the same shape and dtype.
      mesh: the devices, of explicit or automatic axes.
      num_microbatches: how many parts a batch is cut into; four times the stages keep 80 % of the devices' time busy.
      axis: the axis of the mesh that the blocks are dealt out over. Lay parameters out so, for example with
        `data_parallel({"blocks/**": PartitionSpec("stage")})`, or they are moved at every call.
      batch: the axes of the mesh that rows are spread over besides.
      remat: whether the backward pass computes each stage again instead of keeping what is inside it.
    Returns:
      `apply(params, x, *, key=None, train=False) -> y` for the params of `nets.repeat(block, num_blocks)`, each array
      with a leading axis of blocks, and `x [rows, ...]`. Every block gets another key for every microbatch. It prints,
      compares and hashes as the call that made it.
    Raises:
      TypeError: if the block is no network, or has state.
      ValueError: if the mesh has not these axes, or one comes twice; when called, if blocks or rows cannot be dealt out
        evenly.

    >>> block = nets.residual(nets.linear(4), jnp.tanh)
    >>> net, x = nets.repeat(block, 3), jnp.ones((8, 4))
    >>> params = net.init(jax.random.key(0), x)
    >>> apply = pipelined(block, jax.make_mesh((1,), ("stage",)), num_microbatches=4)
    >>> bool(jnp.allclose(apply(params, x), net.apply(params, x), atol=1e-6))
    True
    """
    if not isinstance(block, Net) or block.core.stateful:
        raise TypeError(f"pipelined: expected block to be a network without state, got {block!r}.")
    check_count("pipelined", "num_microbatches", num_microbatches, at_least=1)
    axes = as_axes(batch)
    for each in (axis, *axes):
        if each not in mesh.shape:
            raise ValueError(f"pipelined: expected axes of the mesh, {mesh.axis_names}, got {each!r}.")
    if len({axis, *axes}) < 1 + len(axes):
        raise ValueError(f"pipelined: expected axis and batch to be different axes, got {axis!r} and {batch!r}.")
    num_stages, num_parts = mesh.shape[axis], math.prod(mesh.shape[each] for each in axes)

    def rounds(train: bool, params: Any, xs: jax.Array, key: jax.Array | None) -> jax.Array:
        place, last = lax.axis_index(axis), num_stages - 1
        part = lax.axis_index(axes) if axes else 0  # of the rows, which have other keys
        num_blocks = len(jax.tree.leaves(params)[0])

        def stage(params: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
            def apply(x: jax.Array, of_block: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
                params, number = of_block
                own = None if key is None else jax.random.fold_in(key, number)
                return block.apply(params, x, key=own, train=train), None

            return lax.scan(apply, x, (params, place * num_blocks + jnp.arange(num_blocks)))[0]

        one_stage = jax.checkpoint(stage, prevent_cse=False) if remat else stage

        def one_round(handed: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
            own = lax.dynamic_index_in_dim(xs, jnp.minimum(count, num_microbatches - 1), keepdims=False)
            of_part = None if key is None else jax.random.fold_in(key, (count - place) * num_parts + part)
            y = one_stage(params, jnp.where(place == 0, own, handed), of_part)
            return lax.ppermute(y, axis, [(at, at + 1) for at in range(last)]), y

        begin = jnp.where(place == 0, xs[0], xs[0])  # of every device its own; what is idle works on real numbers
        _, ys = lax.scan(one_round, begin, jnp.arange(num_microbatches + last))
        return lax.psum(jnp.where(place == last, ys[last:], 0), axis)

    def apply(params: Any, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        blocks = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
        if len(blocks) != 1 or any(not size or size[0] % num_stages for size in blocks):
            raise ValueError(
                f"pipelined: expected params with a leading axis of blocks, a multiple of {num_stages}, the stages, "
                f"got {', '.join(str(size[0] if size else 'none') for size in sorted(blocks)) or 'no arrays'}."
            )
        if jnp.ndim(x) == 0 or x.shape[0] == 0 or x.shape[0] % (num_microbatches * num_parts):
            raise ValueError(
                f"pipelined: expected x to have a multiple of {num_microbatches * num_parts} rows, for "
                f"{num_microbatches} microbatches over {num_parts} parts of the mesh, got shape {jnp.shape(x)}."
            )
        context, rows = jax.sharding.get_abstract_mesh(), PartitionSpec(None, axes or None)
        is_set = context.shape == mesh.shape  # maybe with axes of another kind, as in `fit`
        dealt = jnp.swapaxes(x.reshape(-1, num_microbatches, *x.shape[1:]), 0, 1)
        if AxisType.Explicit in (context if is_set else mesh).axis_types:
            put = reshard if is_set else lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec))
            params, dealt = jax.tree.map(lambda leaf: put(leaf, PartitionSpec(axis)), params), put(dealt, rows)
        over_stages = jax.shard_map(
            functools.partial(rounds, train), mesh=None if is_set else mesh,
            in_specs=(PartitionSpec(axis), rows, PartitionSpec()), out_specs=rows,
        )  # fmt: skip
        return jnp.swapaxes(over_stages(params, dealt, key), 0, 1).reshape(x.shape)

    return apply
