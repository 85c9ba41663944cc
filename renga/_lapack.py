"""Factorizations of matrices that may stand side by side in one program.

On CPUs jaxlib gives parts of a batch of matrices to the threads of a pool, and waits for them on a thread of that pool.
As many such calls at a time as the pool has threads wait for ever: two, on two cores (`ParallelBatchMap` in
`lapack_kernels.cc` of jaxlib 0.10). A matrix alone stays on its thread.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def in_turn(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls LAPACK, whose batches under `vmap` a CPU takes one member after another.

    Other backends take whole batches, and so do CPUs where a batch is spread over devices under explicit axes.

    Args:
      fn: `fn(*arrays)`; it has no reverse-mode derivative in what `in_turn` returns.
    Returns:
      A function of the same arguments and results.
    """
    alone = jax.custom_batching.custom_vmap(fn)

    @alone.def_vmap
    def _(axis_size: int, batched: list, *args: Any) -> tuple[Any, Any]:
        mapped = [arg for each, arg in zip(batched, args, strict=True) if each]
        spread = any(jax.typeof(arg).sharding.spec[0] is not None for arg in mapped)
        at_once = jax.vmap(fn, [0 if each else None for each in batched], axis_size=axis_size)

        def one_by_one(*args: Any) -> Any:
            def one(mapped: list) -> Any:
                rest = iter(mapped)
                return alone(*(next(rest) if each else arg for each, arg in zip(batched, args, strict=True)))

            return lax.map(one, [arg for each, arg in zip(batched, args, strict=True) if each])

        out = at_once(*args) if spread else lax.platform_dependent(*args, cpu=one_by_one, default=at_once)
        return out, jax.tree.map(lambda _: True, out)

    return alone


def after(x: jax.Array, other: jax.Array) -> jax.Array:
    """The numbers `x`, not before `other` is there: it keeps apart two factorizations that have derivatives.

    Args:
      x: floats, of any shape.
      other: floats, of any shape.
    Returns:
      `x`; NaN in its place if the first number of `other` is.
    """
    return jnp.where(jnp.isnan(other.ravel()[0]), jnp.nan, x)
