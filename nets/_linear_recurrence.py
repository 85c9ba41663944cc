"""Cells whose carry is linear in itself: a whole sequence is one scan of `h = a h + b`, parallel where that is faster.

A sequential scan does the least work, an associative one the fewest steps in a row. On one core of a CPU the sequential
scan was 4 to 10 times faster and compiled in a fifteenth of the time (`benchmarks/recurrence.py linear`); accelerators
take the associative one. `linear_scan` is the one place that chooses.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._cell import Cell, Parts, Steps, cell, cell_from, over, where, zeros_like
from ._check import at_least_float32, check_arrays, check_last_axis, check_size, dtype_for
from ._define import Initializer
from ._hoisted import split
from ._initializers import lecun_normal
from ._keys import child_key
from ._lstm import by_gate


@cell
def min_gru_cell(features: int, *, w_init: Initializer = lecun_normal()) -> Cell:
    """Minimal gated recurrent unit: `z = sigmoid(x @ w_z + b_z)`, `h = (1 - z) h + z (x @ w_h + b_h)`.

    Gate and candidate see the input alone, so that a sequence can be taken in parallel. They stand in the order z,
    h. `h` is carried in at least float32.

    Source: Feng et al. 2024, https://arxiv.org/abs/2410.01201, minGRU without the logarithms: a product of numbers
    in (0, 1) needs none.

    Args:
      features: size of `h`.
      w_init: `w_init(key, [in, features], dtype)`, for gate and candidate.
    Returns:
      A cell from `[..., in]` to `[..., features]` with carry `h` and float32 params
      `{"w": [in, 2 * features], "b": [2 * features]}`.
    Raises:
      ShapeError: if the last axis of `x` is not the one that the parameters were made for.

    >>> net = rnn(min_gru_cell(8))
    >>> net.apply(net.init(jax.random.key(0), jnp.ones((5, 3))), jnp.ones((5, 3))).shape
    (5, 8)
    """
    check_size("min_gru_cell", "features", features)

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        w = by_gate(w_init, child_key(key, "w"), (x.shape[-1], features), 2)
        return {"w": w, "b": jnp.zeros((2 * features,), jnp.float32)}

    def recurrence(params: dict, xs: jax.Array) -> tuple[jax.Array, jax.Array]:
        check_arrays(params, {"w": (None, 2 * features), "b": (2 * features,)})
        check_last_axis(xs, params["w"].shape[0])
        dtype = dtype_for(xs, params["w"])
        pre_activations = xs.astype(dtype) @ params["w"].astype(dtype) + params["b"].astype(dtype)
        z, candidate = split(pre_activations.astype(at_least_float32(dtype)), features, features)
        # sigmoid(-z) and not 1 - sigmoid(z), which is 0 where a gate is nearly open.
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * candidate

    def read(params: dict, hs: jax.Array, xs: jax.Array) -> jax.Array:
        return hs.astype(dtype_for(xs, params["w"]))

    return linear_cell(init, recurrence, read)


@cell
def lru_cell(
    features: int,
    *,
    state_size: int | None = None,
    min_radius: float = 0.9,
    max_radius: float = 0.999,
    max_phase: float = 2 * np.pi,
) -> Cell:
    """Linear recurrent unit: `h = λ h + s (x @ b)`, `y = Re(h @ c) + x @ d`, with complex `λ` for each element of `h`.

    `λ = exp(-exp(nu) + i exp(theta))` and `s = exp(gamma)`; at first `λ` is drawn evenly from a ring, and
    `s = sqrt(1 - |λ|²)`. `h` is carried as complex numbers of at least single precision.

    Source: Orvieto et al. 2023, https://arxiv.org/abs/2303.06349, section 3; `d` is a matrix here, so that `features`
    may differ from the input's.

    Args:
      features: size of `y`.
      state_size: size of `h`; `features` unless given.
      min_radius: inner radius of the ring that `λ` is drawn from.
      max_radius: its outer radius, below 1.
      max_phase: the largest angle of `λ` at first.
    Returns:
      A cell from `[..., in]` to `[..., features]` with carry `h: [..., state_size]` and float32 params
      `{"nu", "theta", "gamma": [state_size], "b_re", "b_im": [in, state_size], "c_re", "c_im": [state_size, features],
      "d": [in, features]}`.
    Raises:
      ShapeError: if the last axis of `x` is not the one that the parameters were made for.

    >>> net = rnn(lru_cell(8, state_size=16))
    >>> net.apply(net.init(jax.random.key(0), jnp.ones((5, 3))), jnp.ones((5, 3))).shape
    (5, 8)
    """
    check_size("lru_cell", "features", features)
    size = features if state_size is None else state_size
    check_size("lru_cell", "state_size", size)
    if not 0 <= min_radius < max_radius < 1:
        raise ValueError(f"lru_cell: expected 0 <= min_radius < max_radius < 1, got {min_radius!r} and {max_radius!r}")
    if not max_phase > 0:
        raise ValueError(f"lru_cell: expected max_phase above 0, got {max_phase!r}")
    shapes = {name: (size,) for name in ("nu", "theta", "gamma")}
    shapes |= {"b_re": (None, size), "b_im": (None, size), "c_re": (size, features), "c_im": (size, features)}
    shapes |= {"d": (None, features)}

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        check_last_axis(x)
        num_in = x.shape[-1]
        keys = {name: child_key(key, name) for name in shapes}

        def uniform(name: str, low: float, high: float) -> jax.Array:
            return jax.random.uniform(keys[name], (size,), jnp.float32, low, high)

        def normal(name: str, rows: int, columns: int, variance: float) -> jax.Array:
            return variance**0.5 * jax.random.normal(keys[name], (rows, columns), jnp.float32)

        inner = max(min_radius, min(1e-3, max_radius / 2))
        nu = jnp.log(-0.5 * jnp.log(uniform("nu", inner**2, max_radius**2)))
        return {
            "nu": nu,
            "theta": jnp.log(uniform("theta", 1e-3 * max_phase, max_phase)),
            "gamma": 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu))),
            "b_re": normal("b_re", num_in, size, 1 / (2 * num_in)),
            "b_im": normal("b_im", num_in, size, 1 / (2 * num_in)),
            "c_re": normal("c_re", size, features, 1 / size),
            "c_im": normal("c_im", size, features, 1 / size),
            "d": normal("d", num_in, features, 1 / num_in),
        }

    def recurrence(params: dict, xs: jax.Array) -> tuple[jax.Array, jax.Array]:
        check_arrays(params, shapes)
        check_last_axis(xs, params["d"].shape[0])
        dtype = at_least_float32(dtype_for(xs, params["d"]))
        params = {name: leaf.astype(dtype) for name, leaf in params.items()}
        inputs = xs.astype(dtype)
        scale = jnp.exp(params["gamma"])
        b = lax.complex(inputs @ params["b_re"] * scale, inputs @ params["b_im"] * scale)
        eigenvalues = jnp.exp(lax.complex(-jnp.exp(params["nu"]), jnp.exp(params["theta"])))
        return jnp.broadcast_to(eigenvalues, b.shape), b

    def read(params: dict, hs: jax.Array, xs: jax.Array) -> jax.Array:
        dtype = hs.real.dtype
        c_re, c_im, d = (params[name].astype(dtype) for name in ("c_re", "c_im", "d"))
        ys = hs.real @ c_re - hs.imag @ c_im + xs.astype(dtype) @ d
        return ys.astype(dtype_for(xs, params["d"]))

    return linear_cell(init, recurrence, read)


def linear_cell(init: Callable[..., Any], recurrence: Callable[..., Any], read: Callable[..., Any]) -> Cell:
    """A cell with `h = a h + b`.

    Args:
      init: as that of a `Cell`.
      recurrence: `(params, xs) -> (a, b)`, over any leading axes.
      read: `(params, hs, xs) -> ys`, over any leading axes.
    """

    def initial_carry(params: Any, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(recurrence(params, x)[1])

    def step(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, b = recurrence(params, x)
        carry = a * carry + b
        return carry, read(params, carry, x)

    def scan(params: Any, carry: jax.Array, initial: jax.Array, xs: jax.Array, steps: Steps) -> tuple[Any, Any]:
        a, b = recurrence(params, xs)
        reset = steps.reset
        if reset is not None:
            b = where(reset, b + a * initial, b)
            a = where(reset, zeros_like(a), a)
        if steps.alive is not None:
            a, b = where(steps.alive, a, jnp.ones_like(a)), where(steps.alive, b, zeros_like(b))
            reset = None if reset is None else reset & steps.alive
        hs = linear_scan(a, b, carry, steps.reverse, steps.unroll, reset)
        ys = read(params, hs, xs)
        ys = ys if steps.alive is None else jnp.where(over(steps.alive, ys.ndim), ys, 0)
        return hs[0 if steps.reverse else -1], ys

    return cell_from(Parts(init, initial_carry, step, scan=scan))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def linear_scan(
    a: jax.Array, b: jax.Array, h: jax.Array, reverse: bool, unroll: int, reset: jax.Array | None = None
) -> jax.Array:
    """All carries of `h = a h + b` over the first axis of `a` and `b`, from the last step if `reverse`.

    Where `reset`, of leading axes of `a`, is true, `a` is to be 0, and nothing of `h` is taken, NaN included.
    """
    scans = {"cpu": sequential, "default": associative}
    chosen = {name: functools.partial(scan, reverse=reverse, unroll=unroll) for name, scan in scans.items()}
    return lax.platform_dependent(a, b, h, reset, **chosen)


@linear_scan.defjvp
def _linear_scan_jvp(reverse: bool, unroll: int, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    a, b, h, reset = primals
    da, db, dh, _ = tangents
    hs = linear_scan(a, b, h, reverse, unroll, reset)
    # The derivative is a scan of the same kind; that by `a`, a product for all steps, stays outside of it.
    before = _unless(reset, jnp.concatenate((hs[1:], h[None]) if reverse else (h[None], hs[:-1])))
    return hs, linear_scan(a, da * before + db, dh, reverse, unroll, reset)


def sequential(
    a: jax.Array, b: jax.Array, h: jax.Array, reset: jax.Array | None = None, *, reverse: bool, unroll: int
) -> jax.Array:
    """`linear_scan`, one step after the other."""

    def step(h: jax.Array, at: tuple) -> tuple[jax.Array, jax.Array]:
        a, b, reset = at
        h = a * _unless(reset, h) + b
        return h, h

    return lax.scan(step, h, (a, b, reset), reverse=reverse, unroll=unroll)[1]


def associative(
    a: jax.Array, b: jax.Array, h: jax.Array, reset: jax.Array | None = None, *, reverse: bool, unroll: int
) -> jax.Array:
    """`linear_scan`, pairs of neighbours at a time; there is nothing to unroll."""

    def compose(first: tuple, second: tuple) -> tuple:
        (a1, b1, reset1), (a2, b2, reset2) = first, second
        either = None if reset2 is None else reset1 | reset2
        return _unless(either, a1 * a2), a2 * _unless(reset2, b1) + b2, either

    first = -1 if reverse else 0
    b = b.at[first].add(a[first] * _unless(None if reset is None else reset[first], h))
    return lax.associative_scan(compose, (a, b, reset), reverse=reverse)[1]


def _unless(reset: jax.Array | None, array: jax.Array) -> jax.Array:
    """The array, 0 where `reset` is true: a product would keep NaN."""
    return array if reset is None else where(reset, zeros_like(array), array)
