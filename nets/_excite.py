"""Channels weighed by what they hold all over the input."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ._check import at_least_float32, check_arrays, check_children, check_size, check_spatial, dtype_for
from ._define import Initializer
from ._initializers import lecun_normal
from ._keys import child_key
from ._linear import linear
from ._net import Net, layer


@layer
def squeeze_excite(
    ratio: int = 16,
    *,
    hidden: int | None = None,
    num_axes: int = 2,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    w_init: Initializer = lecun_normal(),
) -> Net:
    """Scales each channel by a gate that a small network computes from the means of all channels.

    `x * gate(excite(activation(squeeze(mean of x))))`, with two `linear` layers.

    Source: Hu, Shen, Sun 2018, https://arxiv.org/abs/1709.01507, section 3.

    Args:
      ratio: how many times fewer features than channels lie between the two layers, at least one feature.
      hidden: the number of these features, in place of `ratio`.
      num_axes: how many spatial axes the mean is taken over, one to three.
      activation: between the two layers.
      gate: after them; what the channels are multiplied by.
      w_init: `w_init(key, shape, dtype) -> w` of both.
    Returns:
      A net from `[..., *spatial, channels]` to the same with float32 params
      `{"squeeze": {"w": [channels, hidden], "b": [hidden]}, "excite": {"w": [hidden, channels], "b": [channels]}}`.
    Raises:
      ShapeError: if the input has too few axes, or not the channels that the parameters were made for.

    >>> net = squeeze_excite(4)
    >>> x = jnp.ones((2, 5, 5, 8))
    >>> params = net.init(jax.random.key(0), x)
    >>> net.apply(params, x).shape, params["squeeze"]["w"].shape
    ((2, 5, 5, 8), (8, 2))
    """
    check_size("squeeze_excite", "ratio", ratio)
    if hidden is not None:
        check_size("squeeze_excite", "hidden", hidden)
    if num_axes not in (1, 2, 3):
        raise ValueError(f"squeeze_excite: expected num_axes to be 1, 2 or 3, got {num_axes!r}")

    def layers(channels: int) -> tuple[Net, Net]:
        between = max(channels // ratio, 1) if hidden is None else hidden
        return linear(between, w_init=w_init), linear(channels, w_init=w_init)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_spatial(x, num_axes)
        squeeze, excite = layers(x.shape[-1])
        params = {"squeeze": squeeze.init(child_key(key, "squeeze"), jax.ShapeDtypeStruct(x.shape[-1:], x.dtype))}
        features = jax.ShapeDtypeStruct(params["squeeze"]["b"].shape, x.dtype)
        return params | {"excite": excite.init(child_key(key, "excite"), features)}

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check_spatial(x, num_axes, _check_pair(params, ratio, hidden))
        squeeze, excite = layers(x.shape[-1])
        dtype, axes = dtype_for(x), tuple(range(-num_axes - 1, -1))
        mean = x.astype(at_least_float32(dtype)).mean(axes).astype(dtype)
        scale = gate(excite.apply(params["excite"], activation(squeeze.apply(params["squeeze"], mean))))
        return x.astype(dtype) * jnp.expand_dims(scale, axes)

    return Net(init, apply)


def _check_pair(params: dict, ratio: int, hidden: int | None) -> int:
    """The channels that parameters were made for; refuses those of another network."""
    check_children(params, ("squeeze", "excite"))
    items = [(name, child.items() if isinstance(child, dict) else [("", child)]) for name, child in params.items()]
    flat = {f"{name}/{leaf}": array for name, child in items for leaf, array in child}
    first = getattr(flat.get("squeeze/w"), "shape", ())
    channels = first[0] if len(first) == 2 else None
    between = hidden if hidden or channels is None else max(channels // ratio, 1)
    shapes = {"squeeze/w": (channels, between), "squeeze/b": (between,)}
    check_arrays(flat, shapes | {"excite/w": (between, channels), "excite/b": (channels,)})
    return flat["squeeze/w"].shape[0]
