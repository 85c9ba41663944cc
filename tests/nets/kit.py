"""What the tables of networks are written with: cases, inputs, and what `init` and `apply` make of them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renga import nets

KEY = jax.random.key(0)
REMEDY = " Make them with this network's own init(key, x)."


class Case(NamedTuple):
    """A network, and inputs with a leading batch axis.

    Attributes:
      build: makes the network; called twice, it makes two that are equal.
      inputs: shapes and dtypes of a batch.
      in_axis: the batch axis of the inputs, where another one runs over the members of an ensemble.
      out_axis: the batch axis of the outputs, or a tree of axes for those of several outputs.
      draws: whether it draws random numbers in training.
      constant: whether its initial values are the same for every key.
      keywords: what `init` and `apply` are given by name: arrays, or their shapes, with a leading batch axis
        (those without axes are shared by the batch), and flags.
      normalises: whether it takes the mean away and divides by the standard deviation, so that its outputs
        are of size 1 and exact far from zero.
      long: whether its laws are left to `pytest -m long`: a variant, of parts that stand in the registry by themselves.
      exempt: the laws that do not hold for it, `{law: why}`; the tests make sure that they really do not.
    """

    build: Callable[[], nets.Net]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    in_axis: int = 0
    out_axis: Any = 0
    draws: bool = False
    constant: bool = False
    keywords: Mapping[str, Any] = MappingProxyType({})
    normalises: bool = False
    long: bool = False
    exempt: Mapping[str, str] = MappingProxyType({})


def floats(*shape: int) -> tuple[jax.ShapeDtypeStruct]:
    return (jax.ShapeDtypeStruct(shape, jnp.float32),)


def integers(*shape: int) -> tuple[jax.ShapeDtypeStruct]:
    return (jax.ShapeDtypeStruct(shape, jnp.int32),)


def values(shapes: Any) -> Any:
    """Arrays of these shapes: the same ones always, floats distinct in [-1, 1], integers in [0, 5), two of three True.

    Arrays and flags stay as they are.
    """

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf
        count = np.arange(np.prod(leaf.shape, dtype=int)).reshape(leaf.shape)
        if leaf.dtype == bool:
            return jnp.asarray(count % 3 != 1)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(np.sin(1.7 * count + 0.3) if floating else count % 5, leaf.dtype)

    return jax.tree.map(fill, shapes)


def variables(net: nets.Net, key: jax.Array, *inputs: Any, **keywords: Any) -> tuple:
    """What `init` makes, as the leading arguments of `apply`: `(params,)` or `(params, state)`."""
    made = net.init(key, *inputs, **keywords)
    return made if isinstance(net, nets.StatefulNet) else (made,)


def outputs(net: nets.Net, made: tuple, *inputs: Any, **keywords: Any) -> Any:
    """What `apply` returns, without the state."""
    result = net.apply(*made, *inputs, **keywords)
    return result[0] if isinstance(net, nets.StatefulNet) else result


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


def params_of(net: nets.Net, *inputs: Any) -> Any:
    """What `init` makes for these inputs, filled with zeros."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(net.init, KEY, *inputs))


def applied(net: nets.Net, made_for: tuple, *given: Any, **keywords: Any) -> Any:
    """Applies a network, with parameters made for some inputs, to others."""
    made = params_of(net, *made_for)
    leading = made if isinstance(net, nets.StatefulNet) else (made,)
    return net.apply(*leading, *given, **keywords)
