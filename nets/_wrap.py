"""The same network with other memory, other numbers, or parameters that stay as they are."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._patterns import matching
from ._core import Options, Plan, run, trace
from ._net import Net, layer, net_from
from ._paths import paths_of
from ._sealed import sealed


@layer
def remat(net: Net, *, policy: Callable[..., bool] | None = None) -> Net:
    """Computes what is inside a network again in the backward pass, instead of keeping it: `jax.checkpoint`.

    Within `repeat`, its own argument `remat` does the same for every block.

    Args:
      net: the network.
      policy: what is kept all the same, one of `jax.checkpoint_policies`; nothing unless given.
    Returns:
      A net with the same params (and state), outputs and gradients.

    >>> net = remat(mlp(64, 64, 1))
    >>> params = net.init(jax.random.key(0), jnp.ones(3))
    >>> jax.grad(lambda params: net.apply(params, jnp.ones(3)).sum())(params)["layers"][2]["b"].item()
    1.0
    """
    check_net("remat", net)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        outputs, planned = trace(net, inputs, options)
        return outputs, planned.build, planned.children

    core_apply = functools.partial(sealed, functools.partial(jax.checkpoint, policy=policy), net)
    return net_from(net.core._replace(apply=core_apply, init=None, trace=core_trace), None)


@layer
def cast(net: Net, *, params: Any = None, compute: Any = None, outputs: Any = None) -> Net:
    """The precision that a network is kept, run and read in.

    Only floating-point arrays are cast. Statistics of the network's state stay as they are, and the layers here
    take sums, means and softmax of half precision in float32.

    Args:
      net: the network.
      params: dtype of the initial parameters; unless given, as the network makes them, float32.
      compute: dtype to which parameters, inputs and keyword inputs are cast in `apply`; gradients of parameters
        have the dtype of the parameters.
      outputs: dtype to which outputs are cast.
    Returns:
      A net with params (and state) of the same structure.
    Raises:
      TypeError: if a dtype is not one of floating-point numbers.

    >>> net = cast(mlp(64, 1), compute="bfloat16", outputs="float32")
    >>> params = net.init(jax.random.key(0), jnp.ones(3))
    >>> params["layers"][0]["w"].dtype, net.apply(params, jnp.ones(3)).dtype
    (dtype('float32'), dtype('float32'))
    """
    check_net("cast", net)
    for name, dtype in {"params": params, "compute": compute, "outputs": outputs}.items():
        if dtype is not None and not _is_float(dtype):
            raise TypeError(f"cast: expected {name} to be a floating-point dtype, got {dtype!r}")

    def computed(inputs: tuple, options: Options) -> tuple[tuple, Options]:
        return _cast(inputs, compute), options._replace(keywords=_cast(dict(options.keywords), compute))

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        found, planned = trace(net, *computed(inputs, options))

        def build(key: jax.Array) -> tuple[Any, Any]:
            made, state = planned.build(key)
            return _cast(made, params), state

        return _cast(found, outputs), build, planned.children

    def core_apply(given: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        found, state = run(net, _cast(given, compute), state, *computed(inputs, options))
        return _cast(found, outputs), state

    return net_from(net.core._replace(apply=core_apply, init=None, trace=core_trace), None)


@layer
def frozen(net: Net, *patterns: str) -> Net:
    """Keeps parameters out of the gradient: that of those that match is zero.

    A link that moves parameters without a gradient, such as weight decay, still does; leave them out of the chain
    by a mask, or out of the differentiated part by `partition_params`.

    Args:
      net: the network.
      *patterns: paths of parameters, such as `"encoder/**"` or `"**/b"`; all of them unless given.
    Returns:
      A net with the same params (and state) and outputs.
    Raises:
      ValueError: if a pattern matches no path, with the paths that there are.

    >>> net = frozen(linear(1), "w")
    >>> params = net.init(jax.random.key(0), jnp.ones(2))
    >>> grads = jax.grad(lambda params: net.apply(params, jnp.ones(2)).sum())(params)
    >>> grads["w"].tolist(), grads["b"].tolist()
    ([[0.0], [0.0]], [1.0])
    """
    check_net("frozen", net)

    def stopped(params: Any) -> Any:
        if not patterns:
            return jax.tree.map(jax.lax.stop_gradient, params)
        return map_matching(jax.lax.stop_gradient, params, patterns, "frozen")

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        outputs, planned = trace(net, inputs, options)
        jax.eval_shape(stopped, planned.shapes[0])
        return outputs, planned.build, planned.children

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        return run(net, stopped(params), state, inputs, options)

    return net_from(net.core._replace(apply=core_apply, init=None, trace=core_trace), None)


def check_net(name: str, net: Any) -> None:
    """Refuses what is not a network.

    Raises:
      TypeError: naming the combinator.
    """
    if not isinstance(net, Net):
        raise TypeError(f"{name}: expected a network, got {net!r}")


def map_matching(function: Callable[[Any], Any], tree: Any, patterns: tuple[str, ...], what: str) -> Any:
    """Applies a function to the arrays of a tree whose path matches a pattern.

    Raises:
      ValueError: if a pattern matches no path; `what` says who asks.
    """
    chosen = matching(paths_of(tree), patterns, what)

    def at(path: Any, leaf: Any) -> Any:
        return function(leaf) if jax.tree_util.keystr(path, simple=True, separator="/") in chosen else leaf

    return jax.tree_util.tree_map_with_path(at, tree)


def _is_float(dtype: Any) -> bool:
    try:
        return bool(jnp.issubdtype(jnp.dtype(dtype), jnp.floating))
    except TypeError:
        return False


def _cast(tree: Any, dtype: Any) -> Any:
    if dtype is None:
        return tree

    def to(leaf: Any) -> Any:
        return leaf.astype(dtype) if hasattr(leaf, "dtype") and _is_float(leaf.dtype) else leaf

    return jax.tree.map(to, tree)
