"""Networks whose weights are normalised before they are used."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._check import at_least_float32, check_arrays, check_children, check_size
from ._core import Options, Plan, run, trace, within
from ._errors import NetError, shape_of
from ._keys import key_at
from ._moments import check_eps
from ._net import Net, StatefulNet, layer, net_from
from ._paths import paths_of
from ._weight_axes import Axes, layout_of
from ._wrap import check_net


@layer
def weight_norm(
    net: Net, *patterns: str, num_stacked: int = 0, num_outputs: int = 1, transposed: str | Sequence[str] = ()
) -> Net:
    """Learns the length and the direction of weights apart: `w = g * v / |v|`, a length for each output.

    At first the network is the one that it wraps, with the same key.

    Source: Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2.

    Args:
      net: the network.
      *patterns: paths of weights; `"**/w"` unless given.
      num_stacked: how many leading axes of a weight run over networks, as those in `repeat` and `ensemble` do;
        each has lengths of its own.
      num_outputs: how many trailing axes of a weight are outputs: 2 for the `q`, `k` and `v` of attention, which
        are `[in, heads, head_size]`, as many as it makes for `linear_general`.
      transposed: paths of weights among them that end in `[outputs, in]`: those of `conv_transpose`, unless made
        with `transpose_kernel=False`.
    Returns:
      A net with params `{"net": the network's, with v in place of w, "g": {path: g}}`, the paths as nested
      dicts, and each g of the shape of its weight with 1 for every axis but the stacked and the outputs.
    Raises:
      ValueError: if a pattern matches no path, with the paths that there are.
      NetError: if a matching array has too few axes, is stacked deeper than `num_stacked`, or is one of
        `conv_transpose` that `transposed` does not name.

    >>> net = weight_norm(mlp(8, 2))
    >>> params = net.init(jax.random.key(0), jnp.ones(3))
    >>> jax.tree.map(jnp.shape, params["g"])
    {'layers': {'0': {'w': (1, 8)}, '1': {'w': (1, 2)}}}
    """
    check_net("weight_norm", net)
    layout = layout_of("weight_norm", patterns, num_stacked, num_outputs, transposed)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        with within(net, "net"):
            outputs, planned = trace(net, inputs, options)
        layout.check(planned)

        def build(key: jax.Array) -> tuple[Any, Any]:
            params, state = planned.build(key)
            found = layout.weights(params)
            lengths = {path: _length(w, axes) for path, (w, axes) in found.items()}
            # An output of zeros has no direction of its own; with one, its length can grow.
            directions = {path: jnp.where(lengths[path] > 0, w, 1) for path, (w, _) in found.items()}
            return {"net": _replaced(params, directions), "g": _nested(lengths)}, state

        return outputs, build, {"net": planned}

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        check_children(params, ("net", "g"))
        found = layout.weights(params["net"])
        lengths = paths_of(params["g"])
        check_arrays(lengths, {path: _length_shape(v, axes) for path, (v, axes) in found.items()})
        made = {path: _with_length(v, lengths[path], axes) for path, (v, axes) in found.items()}
        with within(net, "net"):
            return run(net, _replaced(params["net"], made), state, inputs, options)

    return net_from(net.core._replace(apply=core_apply, init=None, trace=core_trace, is_array=False), None)


@layer
def spectral_norm(
    net: Net,
    *patterns: str,
    num_steps: int = 1,
    eps: float = 1e-12,
    num_stacked: int = 0,
    num_outputs: int = 1,
    transposed: str | Sequence[str] = (),
) -> StatefulNet:
    """Divides weights by their largest singular value, as power iteration estimates it from step to step.

    A weight is a matrix from all its other axes to those of outputs. In training its two singular vectors move
    `num_steps` iterations on; otherwise they stay. They start 15 iterations from random ones. Gradients see
    the vectors as constants.

    Source: Miyato et al. 2018, https://arxiv.org/abs/1802.05957, algorithm 1.

    Args:
      net: the network.
      *patterns: paths of weights; `"**/w"` unless given.
      num_steps: iterations at each application in training, at least 1.
      eps: the least length that a vector is divided by.
      num_stacked: as for `weight_norm`; each has a singular value of its own.
      num_outputs: as for `weight_norm`.
      transposed: as for `weight_norm`.
    Returns:
      A stateful net with the network's own params, and state `{"vectors": {path: {"u": [*stacked, out], "v":
      [*stacked, in]}}}`, the paths as nested dicts, beside the network's own state as `"net"` where it has any.
    Raises:
      ValueError: if a pattern matches no path, with the paths that there are.
      NetError: as for `weight_norm`.

    >>> net = spectral_norm(linear(3, bias=False))
    >>> x = jnp.eye(4)
    >>> params, state = net.init(jax.random.key(0), x)
    >>> w, _ = net.apply(params, state, x)
    >>> round(jnp.linalg.norm(w, 2).item(), 2)
    1.0
    """
    check_net("spectral_norm", net)
    check_size("spectral_norm", "num_steps", num_steps)
    check_eps("spectral_norm", eps)
    layout = layout_of("spectral_norm", patterns, num_stacked, num_outputs, transposed)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        outputs, planned = trace(net, inputs, options)
        layout.check(planned)

        def build(key: jax.Array) -> tuple[Any, Any]:
            params, state = planned.build(key)
            made = {}
            for path, (w, axes) in layout.weights(params).items():
                matrix = _matrix(w, axes)
                place = key_at(key, ("vectors", *path.split("/")))
                made[path] = _settled(matrix, jax.random.normal(place, matrix[..., 0, :].shape, matrix.dtype), eps)
            return params, {"vectors": _nested(made)} | ({"net": state} if net.core.stateful else {})

        return outputs, build, planned.children

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        found = layout.weights(params)
        matrices = {path: _matrix(w, axes) for path, (w, axes) in found.items()}
        vectors = _check_vectors(state, matrices, net.core.stateful)
        if options.train:
            vectors = {path: _iterated(matrices[path], vectors[path]["u"], num_steps, eps) for path in matrices}
        values = {path: _singular_value(matrices[path], vectors[path]) for path in found}
        made = {path: _weight(matrices[path] / values[path], w, axes) for path, (w, axes) in found.items()}
        outputs, inner = run(net, _replaced(params, made), state.get("net", {}), inputs, options)
        after = {"vectors": _nested(vectors) if options.train else state["vectors"]}
        return outputs, after | ({"net": inner} if "net" in state else {})

    core = net.core._replace(apply=core_apply, init=None, trace=core_trace, stateful=True)
    return net_from(core, None)  # pyright: ignore[reportReturnType]


def _length(w: jax.Array, axes: Axes) -> jax.Array:
    return jnp.sqrt(jnp.square(w.astype(at_least_float32(w.dtype))).sum(axes.inputs, keepdims=True)).astype(w.dtype)


def _length_shape(w: Any, axes: Axes) -> tuple[int, ...]:
    return tuple(1 if axis in axes.inputs else size for axis, size in enumerate(w.shape))


def _with_length(v: jax.Array, length: jax.Array, axes: Axes) -> jax.Array:
    wide = v.astype(at_least_float32(v.dtype))
    square = jnp.square(wide).sum(axes.inputs, keepdims=True)
    return (wide * (length * lax.rsqrt(jnp.where(square > 0, square, 1)))).astype(v.dtype)


def _matrix(w: jax.Array, axes: Axes) -> jax.Array:
    """A weight as `[*stacked, in, out]`."""
    sizes = [[w.shape[axis] for axis in group] for group in axes]
    ordered = w.astype(at_least_float32(w.dtype)).transpose((*axes.stacked, *axes.inputs, *axes.outputs))
    return ordered.reshape(*sizes[0], math.prod(sizes[1]), math.prod(sizes[2]))


def _weight(matrix: jax.Array, like: jax.Array, axes: Axes) -> jax.Array:
    """The inverse of `_matrix`."""
    order = (*axes.stacked, *axes.inputs, *axes.outputs)
    ordered = matrix.reshape([like.shape[axis] for axis in order])
    return ordered.transpose([order.index(axis) for axis in range(like.ndim)]).astype(like.dtype)


def _settled(matrix: jax.Array, u: jax.Array, eps: float) -> dict[str, jax.Array]:
    first = _iterated(matrix, u, 1, eps)
    return lax.fori_loop(1, 15, lambda _, vectors: _iterated(matrix, vectors["u"], 1, eps), first)


def _iterated(matrix: jax.Array, u: jax.Array, num_steps: int, eps: float) -> dict[str, jax.Array]:
    matrix = lax.stop_gradient(matrix)

    def left(u: jax.Array) -> jax.Array:
        return _unit(jnp.einsum("...ij,...j->...i", matrix, u), eps)

    def right(v: jax.Array) -> jax.Array:
        return _unit(jnp.einsum("...ij,...i->...j", matrix, v), eps)

    for _ in range(num_steps - 1):
        u = right(left(u))
    v = left(u)
    return {"u": right(v), "v": v}


def _unit(vector: jax.Array, eps: float) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), eps)


def _singular_value(matrix: jax.Array, vectors: dict[str, jax.Array]) -> jax.Array:
    """`v @ matrix @ u` as `[*stacked, 1, 1]`; 1 for a weight of zeros."""
    value = jnp.einsum("...i,...ij,...j->...", vectors["v"], matrix, vectors["u"])[..., None, None]
    return jnp.where(value == 0, 1, value)


def _check_vectors(state: Any, matrices: dict[str, jax.Array], stateful: bool) -> dict[str, dict[str, jax.Array]]:
    """The singular vectors by path."""
    names = ["vectors", "net"] if stateful else ["vectors"]
    if not isinstance(state, dict) or set(state) != set(names):
        got = str(list(state)) if isinstance(state, dict) else shape_of(state)
        raise NetError(f"state of {names}", got, "Make it with this network's own init(key, x).")
    flat, shapes = paths_of(state["vectors"]), {}
    for path, matrix in matrices.items():
        *stacked, rows, columns = matrix.shape
        shapes |= {f"{path}/u": (*stacked, columns), f"{path}/v": (*stacked, rows)}
    check_arrays(flat, shapes, "state")
    return {path: {name: flat[f"{path}/{name}"] for name in ("u", "v")} for path in matrices}


def _replaced(tree: Any, arrays: dict[str, jax.Array]) -> Any:
    """The tree with other arrays at some paths."""

    def at(path: Any, leaf: Any) -> Any:
        return arrays.get(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)

    return jax.tree_util.tree_map_with_path(at, tree)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for path, item in flat.items():
        *parents, name = path.split("/")
        functools.reduce(lambda place, parent: place.setdefault(parent, {}), parents, made)[name] = item
    return made
