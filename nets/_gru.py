"""The gated recurrent unit, in the two forms that are in use."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from ._cell import Cell, Parts, cell, cell_from
from ._check import check_arrays, check_last_axis, check_size
from ._define import Initializer
from ._hoisted import Derivative, changes, columns, hoisted, split, times
from ._initializers import lecun_normal, orthogonal
from ._keys import child_key
from ._lstm import as_carry, by_gate, nothing


@cell
def gru_cell(
    features: int,
    *,
    reset: Literal["after", "before"] = "after",
    w_init: Initializer = lecun_normal(),
    u_init: Initializer = orthogonal(),
) -> Cell:
    """Gated recurrent unit: `r, z = sigmoid(x @ w + h @ u + b)`, `h = (1 - z) n + z h`, with one of two candidates `n`.

    Reset after the matmul, as in torch, cuDNN and Flax: `n = tanh(x @ w_n + b_n + r (h @ u_n + b_h))`. Reset before
    it, as in the paper and in Haiku: `n = tanh(x @ w_n + b_n + (r h) @ u_n)`. One cannot be turned into the other by
    a change of parameters. The gates stand in the order r, z, n, as in torch; Haiku's `z` is `1 - z` here.

    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078; there, as here, `z` is the share that is kept.

    Args:
      features: size of `h`.
      reset: whether the reset gate comes after or before the matmul.
      w_init: `w_init(key, [in, features], dtype)`, for each gate.
      u_init: `u_init(key, [features, features], dtype)`, for each gate.
    Returns:
      A cell from `[..., in]` to `[..., features]` with carry `h` and float32 params
      `{"w": [in, 3 * features], "u": [features, 3 * features], "b": [3 * features]}`, and `"b_h": [features]` where
      the reset comes after.
    Raises:
      ShapeError: if the last axis of `x` is not the one that the parameters were made for.

    >>> net = rnn(gru_cell(8))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 5, 3)))
    >>> net.apply(params, jnp.ones((2, 5, 3))).shape
    (2, 5, 8)
    """
    check_size("gru_cell", "features", features)
    if reset not in ("after", "before"):
        raise ValueError(f"gru_cell: expected reset to be 'after' or 'before', got {reset!r}")
    derivative = _AFTER if reset == "after" else _BEFORE
    shapes = {"w": (None, 3 * features), "u": (features, 3 * features), "b": (3 * features,)}
    shapes |= {"b_h": (features,)} if reset == "after" else {}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        biases = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items() if name not in ("w", "u")}
        w = by_gate(w_init, child_key(key, "w"), (x.shape[-1], features), 3)
        return {"w": w, "u": by_gate(u_init, child_key(key, "u"), (features, features), 3)} | biases

    def initial_carry(params: dict, x: jax.Array) -> jax.Array:
        check_arrays(params, shapes)
        return nothing(params, x, features)

    def step(params: dict, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return derivative.step(*as_carry(params, carry, x))[0]

    return cell_from(Parts(init, initial_carry, step, scan=hoisted(derivative)))


def _gates(pre_activations: jax.Array) -> tuple[jax.Array, jax.Array]:
    r, z = split(jax.nn.sigmoid(pre_activations), *(pre_activations.shape[-1] // 2,) * 2)
    return r, z


def _step_after(params: dict, h: jax.Array, x: jax.Array) -> Any:
    sizes = 2 * h.shape[-1], h.shape[-1]
    (gates_x, n_x), (gates_h, n_h) = (split(x @ params["w"] + params["b"], *sizes), split(h @ params["u"], *sizes))
    r, z = _gates(gates_x + gates_h)
    q = n_h + params["b_h"]
    n = jnp.tanh(n_x + r * q)
    after = n + z * (h - n)
    return (after, after), {"h": h, "r": r, "z": z, "n": n, "q": q}


def _perturb_after(params: dict, dparams: dict, kept: dict, xs: jax.Array, dxs: Any) -> Any:
    hs, size = kept["h"], kept["h"].shape[-1]
    (w, w_n), (dw, dw_n) = columns(params["w"], 2 * size, size), columns(dparams["w"], 2 * size, size)
    (du, du_n), (db, db_n) = columns(dparams["u"], 2 * size, size), columns(dparams["b"], 2 * size, size)
    by_reset = kept["r"] * changes((hs, du_n), bias=dparams["b_h"], num=size)
    return (
        changes((xs, dw), (hs, du), (dxs, w), bias=db, num=2 * size),
        changes((xs, dw_n), (dxs, w_n), bias=db_n, num=size) + by_reset,
    )


def _tangent_after(params: dict, dh: jax.Array, eps: Any, kept: dict) -> Any:
    size = dh.shape[-1]
    h, r, z, n, q = (kept[name] for name in "hrznq")
    gates, dq = split(times(dh, params["u_t"]), 2 * size, size)
    dr, dz = split(eps[0] + gates, size, size)
    dn = eps[1] + q * r * (1 - r) * dr + r * dq
    dh = z * dh + (h - n) * z * (1 - z) * dz + (1 - z) * (1 - n * n) * dn
    return dh, dh


def _step_before(params: dict, h: jax.Array, x: jax.Array) -> Any:
    sizes = 2 * h.shape[-1], h.shape[-1]
    u, u_n = split(params["u"], *sizes)
    gates_x, n_x = split(x @ params["w"] + params["b"], *sizes)
    r, z = _gates(gates_x + h @ u)
    n = jnp.tanh(n_x + (r * h) @ u_n)
    after = n + z * (h - n)
    return (after, after), {"h": h, "r": r, "z": z, "n": n}


def _perturb_before(params: dict, dparams: dict, kept: dict, xs: jax.Array, dxs: Any) -> Any:
    hs, size = kept["h"], kept["h"].shape[-1]
    (w, w_n), (dw, dw_n) = columns(params["w"], 2 * size, size), columns(dparams["w"], 2 * size, size)
    (du, du_n), (db, db_n) = columns(dparams["u"], 2 * size, size), columns(dparams["b"], 2 * size, size)
    return (
        changes((xs, dw), (hs, du), (dxs, w), bias=db, num=2 * size),
        changes((xs, dw_n), (kept["r"] * hs, du_n), (dxs, w_n), bias=db_n, num=size),
    )


def _tangent_before(params: dict, dh: jax.Array, eps: Any, kept: dict) -> Any:
    size = dh.shape[-1]
    h, r, z, n = (kept[name] for name in "hrzn")
    u_t, u_n_t = lax.split(params["u_t"], (2 * size, size))
    dr, dz = split(eps[0] + times(dh, u_t), size, size)
    dn = eps[1] + times(h * r * (1 - r) * dr + r * dh, u_n_t)
    dh = z * dh + (h - n) * z * (1 - z) * dz + (1 - z) * (1 - n * n) * dn
    return dh, dh


def _prepare(params: dict, xs: jax.Array) -> dict:
    return params | {"u_t": params["u"].T}


_AFTER = Derivative(_step_after, _perturb_after, _tangent_after, _prepare)
_BEFORE = Derivative(_step_before, _perturb_before, _tangent_before, _prepare)
