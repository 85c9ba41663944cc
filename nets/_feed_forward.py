"""What a transformer does to each position by itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ._check import check_last_axis, check_size
from ._define import Initializer, define
from ._dropout import dropout
from ._initializers import lecun_normal, zeros
from ._net import Net, layer
from ._projection import check_drop_rate, projection


@layer
def feed_forward(
    hidden_size: int | None = None,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu,
    bias: bool = True,
    drop_rate: float = 0.0,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Up to more features, an activation, and down to those of the input.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.3. The activation is by default the
    approximation of GELU by tanh, as in GPT-2.

    Args:
      hidden_size: how many features the activation sees; 4 times those of the input unless given.
      activation: what is applied between the maps.
      bias: whether the two maps have a `b`.
      drop_rate: the share of what the activation gives that is dropped in training.
      w_init: `w_init(key, shape, dtype)` makes each `w`.
      b_init: `b_init(key, shape, dtype)` makes each `b`.
    Returns:
      A net from `[..., features]` to the same with float32 params `{"up": {"w": [features, hidden_size],
      "b": [hidden_size]}, "down": {"w": [hidden_size, features], "b": [features]}}`.
    Raises:
      ShapeError: if the last axis is not the one that the parameters were made for.

    >>> net = feed_forward()
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> net.apply(params, jnp.ones((2, 3))).shape, params["up"]["w"].shape
    ((2, 3), (3, 12))
    """
    if hidden_size is not None:
        check_size("feed_forward", "hidden_size", hidden_size)
    check_drop_rate("feed_forward", drop_rate)
    project = projection(bias=bias, w_init=w_init, b_init=b_init)
    # What an activation has inside is sooner computed again than kept; it may be a callable without a hash.
    activate = jax.checkpoint(lambda hidden: activation(hidden))

    @define
    def body(x: jax.Array, *, up=project, down=project, drop=dropout(drop_rate)):
        x = jnp.asarray(x)
        check_last_axis(x)
        hidden = activate(up(x, sizes=(hidden_size or 4 * x.shape[-1],)))
        return down(drop(hidden), sizes=x.shape[-1:])

    return body


@layer
def swiglu(
    hidden_size: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.silu,
    bias: bool = False,
    drop_rate: float = 0.0,
    w_init: Initializer = lecun_normal(),
    b_init: Initializer = zeros,
) -> Net:
    """Up to more features, gated by an activation of others, and down to those of the input.

    That is `down(activation(gate(x)) * up(x))`, as in Llama.

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202, section 2.

    Args:
      hidden_size: how many features are gated.
      activation: what makes the gate; with `jax.nn.gelu` it is GEGLU, with `jax.nn.sigmoid` GLU.
      bias: whether the three maps have a `b`.
      drop_rate: the share of the gated features that is dropped in training.
      w_init: `w_init(key, shape, dtype)` makes each `w`.
      b_init: `b_init(key, shape, dtype)` makes each `b`.
    Returns:
      A net from `[..., features]` to the same with float32 params `{"gate": {"w": [features, hidden_size]},
      "up": {"w": [features, hidden_size]}, "down": {"w": [hidden_size, features]}}`.
    Raises:
      ShapeError: if the last axis is not the one that the parameters were made for.

    >>> net = swiglu(8)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> net.apply(params, jnp.ones((2, 3))).shape, params["gate"]["w"].shape
    ((2, 3), (3, 8))
    """
    check_size("swiglu", "hidden_size", hidden_size)
    check_drop_rate("swiglu", drop_rate)
    project = projection(bias=bias, w_init=w_init, b_init=b_init)
    gated_by = jax.checkpoint(lambda gate, up: activation(gate) * up)

    @define
    def body(x: jax.Array, *, gate=project, up=project, down=project, drop=dropout(drop_rate)):
        x = jnp.asarray(x)
        check_last_axis(x)
        gated = gated_by(gate(x, sizes=(hidden_size,)), up(x, sizes=(hidden_size,)))
        return down(drop(gated), sizes=x.shape[-1:])

    return body
