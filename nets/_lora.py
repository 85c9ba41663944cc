"""Low-rank changes to some parameters of any network."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._patterns import matching
from ._check import check_arrays, check_children, check_size
from ._core import Options, Plan, run, trace, within
from ._errors import NetError
from ._initializers import variance_scaling
from ._keys import child_key, key_at
from ._net import Net, layer, net_from
from ._paths import paths_of
from ._weight_axes import check_stacked
from ._wrap import check_net


@layer
def lora(
    net: Net, *patterns: str, rank: int, alpha: float | None = None, num_stacked: int = 0, num_outputs: int = 1
) -> Net:
    """Learns low-rank changes to the parameters that match, `w + alpha / rank * a @ b`; all others stay as they are.

    `b` is zero at first, so the network then is the one that it wraps. Gradients of the wrapped network's own
    parameters are zero; take them from a trained network, and merge the change into them by `merge_lora`.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1.

    Args:
      net: the network.
      *patterns: paths of arrays, such as `"**/q/w"`, each with at least one input and one output axis.
      rank: of the change, at least 1.
      alpha: scale of the change times the rank; the rank unless given.
      num_stacked: how many leading axes of a matching array run over networks, as those in `repeat` do; each
        has a change of its own.
      num_outputs: how many trailing axes of a matching array are outputs of the map; those between are inputs.
    Returns:
      A net with params `{"net": the network's, "lora": {path: {"a": [*stacked, in, rank], "b": [*stacked, rank,
      out]}}}`, the paths as nested dicts.
    Raises:
      ValueError: if a pattern matches no path, with the paths that there are.
      NetError: if a matching array is stacked deeper by `repeat` or `ensemble` than `num_stacked`, or has too few axes
        to be a map.

    >>> net = lora(mlp(16, 4), "layers/*/w", rank=2)
    >>> params = net.init(jax.random.key(0), jnp.ones(3))
    >>> params["lora"]["layers"]["0"]["w"]["a"].shape, params["lora"]["layers"]["0"]["w"]["b"].shape
    ((3, 2), (2, 16))
    """
    check_net("lora", net)
    check_size("lora", "rank", rank)
    check_size("lora", "num_stacked", num_stacked, at_least=0)
    check_size("lora", "num_outputs", num_outputs)
    if not patterns:
        raise ValueError("lora: expected at least one pattern of paths, such as '**/w', got none")

    change = _Change(patterns, rank, rank if alpha is None else alpha, num_stacked, num_outputs)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        with within(net, "net"):
            outputs, planned = trace(net, inputs, options)
        changed = change.nets(planned.shapes[0])
        check_stacked(planned, changed, num_stacked)
        products = {path: trace(low_rank, (), Options())[1] for path, low_rank in changed.items()}

        def build(key: jax.Array) -> tuple[Any, Any]:
            params, state = planned.build(child_key(key, "net"))
            made: dict[str, Any] = {}
            for path, product in products.items():
                *parents, name = path.split("/")
                place = functools.reduce(lambda place, parent: place.setdefault(parent, {}), parents, made)
                place[name] = product.build(key_at(key, ("lora", *parents, name)))[0]
            return {"net": params, "lora": made}, state

        return outputs, build, {"net": planned} | {f"lora/{path}": product for path, product in products.items()}

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        merged = change.merged(params)
        with within(net, "net"):
            return run(net, merged, state, inputs, options)

    core = net.core._replace(apply=core_apply, init=None, trace=core_trace, has_params=True, is_array=False)
    return net_from(core, None)


def merge_lora(net: Net, params: Any) -> Any:
    """The parameters of the network inside `lora`, with the changes added to them.

    Args:
      net: what `lora` returned.
      params: its parameters.
    Returns:
      Parameters of the network that `lora` wraps, which gives the same outputs with them.
    Raises:
      TypeError: if the network is not one that `lora` returned.

    >>> base = mlp(16, 4)
    >>> net = lora(base, "layers/*/w", rank=2)
    >>> merged = merge_lora(net, net.init(jax.random.key(0), jnp.ones(3)))
    >>> base.apply(merged, jnp.ones(3)).shape
    (4,)
    """
    if not isinstance(net, Net) or net.call is None or net.call.function is not lora:
        raise TypeError(f"merge_lora: expected a network that lora returned, got {net!r}")
    (_, *patterns), given = net.call.args, net.call.kwargs
    alpha, stacked, outputs = (
        given.get("alpha", given["rank"]),
        given.get("num_stacked", 0),
        given.get("num_outputs", 1),
    )
    return _Change(tuple(patterns), given["rank"], alpha, stacked, outputs).merged(params)


class _Change(NamedTuple):
    """Which arrays change, and how."""

    patterns: tuple[str, ...]
    rank: int
    alpha: float
    num_stacked: int
    num_outputs: int

    def nets(self, params: Any) -> dict[str, Net]:
        """The change of every array that matches, as a network without inputs."""
        leaves = paths_of(params)
        found = matching(leaves, self.patterns, "lora")
        return {path: self._net(path, leaf) for path, leaf in leaves.items() if path in found}

    def merged(self, params: Any) -> Any:
        """The parameters of the network that is changed, with the changes added."""
        check_children(params, ("net", "lora"))
        changes = {}
        for path, low_rank in self.nets(params["net"]).items():
            given = params["lora"]
            for name in path.split("/"):
                given = given.get(name, {}) if isinstance(given, dict) else {}
            with within(low_rank, "lora", *path.split("/")):
                changes[path] = self.alpha / self.rank * run(low_rank, given, {}, (), Options())[0]

        def change(path: Any, leaf: jax.Array) -> jax.Array:
            leaf = jax.lax.stop_gradient(leaf)
            found = changes.get(jax.tree_util.keystr(path, simple=True, separator="/"))
            return leaf if found is None else leaf + found.astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(change, params["net"])

    def _net(self, path: str, leaf: Any) -> Net:
        if leaf.ndim <= self.num_stacked + self.num_outputs or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise NetError(
                f"{path} to have {self.num_stacked} stacked, at least one input, and {self.num_outputs} output axes",
                f"{leaf.dtype} {tuple(leaf.shape)}",
                "Say how its axes are meant with num_stacked= and num_outputs=.",
            )
        return _low_rank(tuple(leaf.shape), self.rank, self.num_stacked, self.num_outputs)


@layer
def _low_rank(shape: tuple[int, ...], rank: int, num_stacked: int, num_outputs: int) -> Net:
    """An array that is a product of two thin matrices, one for each index of its stacked axes."""
    cut = len(shape) - num_outputs
    stacked, rows, columns = shape[:num_stacked], math.prod(shape[num_stacked:cut]), math.prod(shape[cut:])
    # The spread of `a` is that of the authors' own code, uniform within 1/sqrt(inputs).
    a_init = variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=tuple(range(num_stacked)))

    def init(key: jax.Array) -> dict:
        a = a_init(child_key(key, "a"), (*stacked, rows, rank), jnp.float32)
        return {"a": a, "b": jnp.zeros((*stacked, rank, columns), jnp.float32)}

    def apply(params: dict) -> jax.Array:
        check_arrays(params, {"a": (*stacked, rows, rank), "b": (*stacked, rank, columns)})
        return (params["a"] @ params["b"]).reshape(shape)

    return Net(init, apply)
