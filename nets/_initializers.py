"""JAX's own initializers, recorded: `normal(0.1) == normal(0.1)`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from .._call import recording
from .._lapack import in_turn


@functools.partial(jax.jit, static_argnames=("constructor", "column_axis", "shape", "dtype", "out_sharding"))
def _unscaled(
    key: jax.Array, constructor: Any, column_axis: int, shape: tuple[int, ...], dtype: Any, out_sharding: Any
) -> jax.Array:
    """What an initializer draws; compiled, so that batches of it outside of `jit` need one compiled loop, not many."""
    return in_turn(lambda key: constructor(1.0, column_axis)(key, shape, dtype, out_sharding))(key)


def _factorizing(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """The constructor of an initializer that calls LAPACK; derivatives by its scale are as before."""

    @functools.wraps(constructor)
    def construct(scale: Any = 1.0, column_axis: int = -1, dtype: Any = None) -> Any:
        def init(key: jax.Array, shape: Any, dtype: Any = dtype, out_sharding: Any = None) -> jax.Array:
            unscaled = _unscaled(key, constructor, column_axis, tuple(shape), dtype, out_sharding)
            return jnp.array(scale, unscaled.dtype) * unscaled

        return init

    return construct


constant = recording(initializers.constant, home=__name__)
delta_orthogonal = recording(_factorizing(initializers.delta_orthogonal), home=__name__)
glorot_normal = recording(initializers.glorot_normal, home=__name__)
glorot_uniform = recording(initializers.glorot_uniform, home=__name__)
he_normal = recording(initializers.he_normal, home=__name__)
he_uniform = recording(initializers.he_uniform, home=__name__)
lecun_normal = recording(initializers.lecun_normal, home=__name__)
lecun_uniform = recording(initializers.lecun_uniform, home=__name__)
normal = recording(initializers.normal, home=__name__)
orthogonal = recording(_factorizing(initializers.orthogonal), home=__name__)
truncated_normal = recording(initializers.truncated_normal, home=__name__)
uniform = recording(initializers.uniform, home=__name__)
variance_scaling = recording(initializers.variance_scaling, home=__name__)
ones = initializers.ones
zeros = initializers.zeros
