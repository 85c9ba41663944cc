"""Cells whose derivative is left to autodiff: the plain one, the minimal gated one, and one over images."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._cell import Cell, Parts, cell, cell_from
from ._check import check_arrays, check_last_axis, check_size, check_spatial, dtype_for
from ._conv import slide
from ._define import Initializer
from ._hoisted import split
from ._initializers import lecun_normal, orthogonal
from ._keys import child_key
from ._lstm import as_carry, by_gate, nothing


@cell
def simple_cell(
    features: int,
    *,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    w_init: Initializer = lecun_normal(),
    u_init: Initializer = orthogonal(),
) -> Cell:
    """The plain recurrent cell: `h = activation(x @ w + h @ u + b)`.

    Source: Elman 1990, https://doi.org/10.1207/s15516709cog1402_1.

    Args:
      features: size of `h`.
      activation: applied to each element.
      w_init: `w_init(key, [in, features], dtype)`.
      u_init: `u_init(key, [features, features], dtype)`.
    Returns:
      A cell from `[..., in]` to `[..., features]` with carry `h` and float32 params
      `{"w": [in, features], "u": [features, features], "b": [features]}`.
    Raises:
      ShapeError: if the last axis of `x` is not the one that the parameters were made for.

    >>> net = rnn(simple_cell(8))
    >>> net.apply(net.init(jax.random.key(0), jnp.ones((5, 3))), jnp.ones((5, 3))).shape
    (5, 8)
    """
    check_size("simple_cell", "features", features)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        w = w_init(child_key(key, "w"), (x.shape[-1], features), jnp.float32)
        u = u_init(child_key(key, "u"), (features, features), jnp.float32)
        return {"w": w, "u": u, "b": jnp.zeros((features,), jnp.float32)}

    def initial_carry(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, {"w": (None, features), "u": (features, features), "b": (features,)})
        return nothing(params, x, features)

    def step(params: dict, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, h, x = as_carry(params, carry, x)
        h = activation(x @ params["w"] + h @ params["u"] + params["b"])
        return h, h

    return cell_from(Parts(init, initial_carry, step))


@cell
def mgu_cell(
    features: int,
    *,
    forget_bias: float = 1.0,
    w_init: Initializer = lecun_normal(),
    u_init: Initializer = orthogonal(),
) -> Cell:
    """Minimal gated unit: `f = sigmoid(x @ w_f + h @ u_f + b_f)`, `h = (1 - f) n + f h`, with one gate for all.

    The candidate is `n = tanh(x @ w_n + b_n + f (h @ u_n + b_h))`, the gate after the matmul, as in Flax; the
    paper has it before. The parts stand in the order f, n.

    Source: Zhou et al. 2016, https://arxiv.org/abs/1603.09420; there `f` is the share that is replaced.

    Args:
      features: size of `h`.
      forget_bias: initial value of the gate's part of `b`; the others are 0.
      w_init: `w_init(key, [in, features], dtype)`, for each part.
      u_init: `u_init(key, [features, features], dtype)`, for each part.
    Returns:
      A cell from `[..., in]` to `[..., features]` with carry `h` and float32 params
      `{"w": [in, 2 * features], "u": [features, 2 * features], "b": [2 * features], "b_h": [features]}`.
    Raises:
      ShapeError: if the last axis of `x` is not the one that the parameters were made for.

    >>> net = rnn(mgu_cell(8))
    >>> net.apply(net.init(jax.random.key(0), jnp.ones((5, 3))), jnp.ones((5, 3))).shape
    (5, 8)
    """
    check_size("mgu_cell", "features", features)
    shapes = {"w": (None, 2 * features), "u": (features, 2 * features), "b": (2 * features,), "b_h": (features,)}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        return {
            "w": by_gate(w_init, child_key(key, "w"), (x.shape[-1], features), 2),
            "u": by_gate(u_init, child_key(key, "u"), (features, features), 2),
            "b": jnp.zeros((2 * features,), jnp.float32).at[:features].set(forget_bias),
            "b_h": jnp.zeros((features,), jnp.float32),
        }

    def initial_carry(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, shapes)
        return nothing(params, x, features)

    def step(params: dict, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, h, x = as_carry(params, carry, x)
        f_x, n_x = split(x @ params["w"] + params["b"], features, features)
        f_h, n_h = split(h @ params["u"], features, features)
        f = jax.nn.sigmoid(f_x + f_h)
        n = jnp.tanh(n_x + f * (n_h + params["b_h"]))
        h = n + f * (h - n)
        return h, h

    return cell_from(Parts(init, initial_carry, step))


@cell
def conv_lstm_cell(
    features: int,
    kernel: int | Sequence[int],
    *,
    forget_bias: float = 1.0,
    w_init: Initializer = lecun_normal(),
    u_init: Initializer = lecun_normal(),
) -> Cell:
    """Long short-term memory over images: `lstm_cell` with convolutions in place of its matmuls.

    Convolutions keep the size ("same" padding), so that `c` and `h` have the spatial axes of `x`. The gates stand
    in the order i, f, g, o; there are no peepholes, as in Haiku and Flax.

    Source: Shi et al. 2015, https://arxiv.org/abs/1506.04214.

    Args:
      features: channels of `c` and `h`.
      kernel: sizes of the window over one to three spatial axes, as for `conv`. An integer is a square in two.
      forget_bias: initial value of the forget gate's part of `b`; the others are 0.
      w_init: `w_init(key, [*kernel, in, features], dtype)`, for each gate.
      u_init: `u_init(key, [*kernel, features, features], dtype)`, for each gate.
    Returns:
      A cell from `[..., *spatial, in]` to `[..., *spatial, features]` with carry `(c, h)` and float32 params
      `{"w": [*kernel, in, 4 * features], "u": [*kernel, features, 4 * features], "b": [4 * features]}`.
    Raises:
      ShapeError: if `x` has too few axes, or not the channels that the parameters were made for.

    >>> net = rnn(conv_lstm_cell(4, 3))
    >>> images = jnp.ones((2, 5, 8, 8, 1))
    >>> net.apply(net.init(jax.random.key(0), images), images).shape
    (2, 5, 8, 8, 4)
    """
    check_size("conv_lstm_cell", "features", features)
    sizes = _window(kernel)
    num = len(sizes)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_spatial(x, num)
        b = jnp.zeros((4 * features,), jnp.float32).at[features : 2 * features].set(forget_bias)
        w = by_gate(w_init, child_key(key, "w"), (*sizes, x.shape[-1], features), 4)
        return {"w": w, "u": by_gate(u_init, child_key(key, "u"), (*sizes, features, features), 4), "b": b}

    def initial_carry(params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        check_arrays(
            params,
            {"w": (*sizes, None, 4 * features), "u": (*sizes, features, 4 * features), "b": (4 * features,)},
        )
        check_spatial(x, num, params["w"].shape[-2])
        dtype = dtype_for(x, params["w"])
        zeros = jnp.zeros_like(_conv(x.astype(dtype), params["w"][..., :features].astype(dtype)))
        return zeros, zeros

    def step(params: dict, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        params, (c, h), x = as_carry(params, carry, x)
        z = _conv(x, params["w"]) + _conv(h, params["u"]) + params["b"]
        i, f, g, o = split(z, *(features,) * 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    return cell_from(Parts(init, initial_carry, step, num_axes=num + 1))


def _window(kernel: Any) -> tuple[int, ...]:
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    if not isinstance(sizes, Sequence) or not 1 <= len(sizes) <= 3:
        raise ValueError(f"conv_lstm_cell: expected kernel for one to three spatial axes, got {kernel!r}")
    for size in sizes:
        check_size("conv_lstm_cell", "kernel", size)
    return tuple(sizes)


def _conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolution that keeps the size, over any number of batch axes."""
    num = w.ndim - 2
    return slide({"w": w}, x, num, 1, window_strides=(1,) * num, padding="SAME")
