"""A transformer for images."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ._check import check_arrays, check_size, check_spatial, spatial_axes
from ._combine import serial
from ._define import define, param
from ._dropout import dropout
from ._errors import ShapeError
from ._initializers import normal, zeros
from ._keys import child_key
from ._linear import linear
from ._net import Net, layer
from ._norm import layer_norm
from ._stack import repeat
from ._transformer import transformer_block


@layer
def vit(
    num_classes: int,
    patch: int,
    *,
    features: int,
    num_layers: int,
    num_heads: int,
    mlp: Net | None = None,
    norm: Net | None = None,
    pool: Literal["token", "mean"] = "token",
    drop_rate: float = 0.0,
) -> Net:
    """A vision transformer: an image as a sequence of square patches.

    Each patch is mapped to a vector, row by row from the top left; learned positions are added; a head reads
    the classes off a token that was put before them, or off the mean of all. ViT-B/16 is
    `vit(1000, 16, features=768, num_layers=12, num_heads=12)`.

    Source: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, section 3.1; the mean of all: appendix D.3.

    Args:
      num_classes: features of the output.
      patch: height and width of a patch.
      features: size of the vectors between the blocks.
      num_layers: how many blocks, one scan over their stacked params.
      num_heads: as for `attention`.
      mlp: as for `transformer_block`. By default GELU is approximated by tanh.
      norm: as for `transformer_block`, but `layer_norm(eps=1e-6)` unless given; also applied after the last block.
      pool: what the head sees, "token" or "mean".
      drop_rate: as for `transformer_block`; also of the first vectors.
    Returns:
      A net from `[..., height, width, channels]` to `[..., num_classes]` with params
      `{"embed": {"w": [patch * patch * channels, features], "b"}, "token": [features], "positions":
      {"w": [tokens, features]}, "blocks", "norm", "head": {"w", "b"}}`, without "token" if the mean is pooled;
      arrays in `blocks` have a leading axis of `num_layers`.
    Raises:
      ShapeError: if height or width is no multiple of `patch`, or the images have not the number of patches or
        channels that the parameters were made for.

    >>> net = vit(10, 4, features=16, num_layers=2, num_heads=2)
    >>> images = jnp.ones((2, 8, 12, 3))
    >>> params = net.init(jax.random.key(0), images)
    >>> params["positions"]["w"].shape, net.apply(params, images).shape
    ((7, 16), (2, 10))
    """
    sizes = {"num_classes": num_classes, "patch": patch, "features": features, "num_layers": num_layers}
    for name, size in (sizes | {"num_heads": num_heads}).items():
        check_size("vit", name, size)
    if features % num_heads:
        raise ValueError(f"vit: expected features to be a multiple of num_heads = {num_heads}, got {features}")
    norm = layer_norm(eps=1e-6) if norm is None else norm
    if pool not in ("token", "mean"):
        raise ValueError(f"vit: expected pool to be 'token' or 'mean', got {pool!r}")

    @define
    def body(
        x: jax.Array,
        *,
        embed=linear(features),
        token=param((features,), zeros) if pool == "token" else serial(),
        positions=token_positions(),
        drop=dropout(drop_rate),
        blocks=repeat(transformer_block(num_heads, mlp=mlp, norm=norm, drop_rate=drop_rate), num_layers),
        norm=norm,
        head=linear(num_classes),
    ):
        x = embed(_patches(x, patch))
        if pool == "token":
            x = jnp.concatenate([jnp.zeros_like(x[..., :1, :]) + jnp.asarray(token, x.dtype), x], -2)
        x = blocks(drop(positions(x)))
        return head(norm(x[..., 0, :]) if pool == "token" else norm(x).mean(-2))

    return body


@layer
def token_positions() -> Net:
    """Adds a learned vector to each of as many tokens as there are at first."""

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        return {"w": normal(0.02)(child_key(key, "w"), x.shape[-2:], jnp.float32)}

    def apply(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (None, x.shape[-1])})
        if params["w"].shape[0] != x.shape[-2]:
            raise ShapeError(f"an image of {params['w'].shape[0]} tokens, one a position", f"{x.shape[-2]}")
        return x + params["w"].astype(x.dtype)

    return Net(init, apply)


def _patches(x: Any, patch: int) -> jax.Array:
    """The patches of an image, each flattened: `[..., patches, patch * patch * channels]`."""
    x = jnp.asarray(x)
    check_spatial(x, 2)
    *batch, height, width, channels = x.shape
    if height % patch or width % patch or not height or not width:
        raise ShapeError(f"{spatial_axes(2)} with height and width multiples of {patch}", f"{x.shape}")
    rows, columns = height // patch, width // patch
    # One axis at a time: on a mesh of explicit axes JAX does not take apart, or put together, two at once.
    x = x.reshape(*batch, rows, patch, width, channels)
    x = x.reshape(*batch, rows, patch, columns, patch, channels).swapaxes(-3, -4)
    x = x.reshape(*batch, rows, columns, patch * patch * channels)
    return x.reshape(*batch, rows * columns, patch * patch * channels)
