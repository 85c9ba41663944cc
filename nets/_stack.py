"""One network many times: in depth by a scan, side by side by a vmap; parameters are stacked."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._check import check_size
from ._core import Core, Options, Plan, run, struct, trace
from ._errors import NetError, ShapeError, shape_of
from ._keys import indexed_keys
from ._net import Net, layer, net_from


@layer
def repeat(block: Net, num_blocks: int) -> Net:
    """Applies a block `num_blocks` times, each time with parameters of its own, by one `lax.scan`.

    Trace and compile time do not grow with depth. State and keys are each block's own. The initial values
    are those of a list of blocks, stacked.

    Args:
      block: a network from `x` to an output of the same shapes and dtypes. Further inputs go to each block
        as they are.
      num_blocks: how often, at least 1.
    Returns:
      A net with the block's params (and state), each array with a leading axis of `num_blocks`.
    Raises:
      ShapeError: if the block does not return what it takes.

    >>> net = repeat(residual(linear(4), jnp.tanh), 3)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["linear"]["w"].shape, net.apply(params, jnp.ones((2, 4))).shape
    ((3, 4, 4), (2, 4))
    """
    _check_net("repeat", block)
    check_size("repeat", "num_blocks", num_blocks)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        outputs, planned = trace(block, inputs, options)
        _check_carry(inputs[0], outputs)
        return outputs, _stacked(planned.build, num_blocks), planned.children

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        _check_stack("parameters", params, num_blocks)
        _check_stack("state", state, num_blocks)
        if not inputs:
            raise NetError("inputs (x, ...)", "0 inputs")
        x, *constants = inputs
        keys = _keys(block, options, num_blocks)

        def step(x: Any, of_block: tuple) -> tuple[Any, Any]:
            params, state, key = of_block
            outputs, state = run(block, params, state, (x, *constants), options._replace(key=key))
            _check_carry(x, outputs)
            return outputs, state

        return lax.scan(step, x, (params, state, keys), length=num_blocks)

    return net_from(_like(block, core_apply, core_trace), None)


@layer
def ensemble(net: Net, num_members: int, *, in_axes: int | None = None) -> Net:
    """Applies `num_members` copies of a network, each with parameters of its own, by one `jax.vmap`.

    State and keys are each member's own. The initial values are those of a list of networks, stacked.

    Args:
      net: the network.
      num_members: how many, at least 1.
      in_axes: the axis of the inputs that runs over members, or None if all see the same inputs.
    Returns:
      A net with the params (and state) of `net`, and its outputs, each array with a leading axis of
      `num_members`.

    >>> net = ensemble(linear(3), 5)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["w"].shape, net.apply(params, jnp.ones((2, 4))).shape
    ((5, 4, 3), (5, 2, 3))
    """
    _check_net("ensemble", net)
    check_size("ensemble", "num_members", num_members)

    def over_members(function: Callable[..., Any], axes: tuple) -> Callable[..., Any]:
        return jax.vmap(function, axes, axis_size=num_members)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        noted: list[Plan] = []

        def member(*inputs: Any) -> Any:
            outputs, planned = trace(net, inputs, options)
            noted.append(planned)
            return outputs

        outputs = over_members(member, (in_axes,) * len(inputs))(*inputs)
        return outputs, _stacked(noted[0].build, num_members), noted[0].children

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        _check_stack("parameters", params, num_members)
        _check_stack("state", state, num_members)

        def member(params: Any, state: Any, key: Any, *inputs: Any) -> Any:
            return run(net, params, state, inputs, options._replace(key=key))

        keys = _keys(net, options, num_members)
        return over_members(member, (0, 0, 0) + (in_axes,) * len(inputs))(params, state, keys, *inputs)

    return net_from(_like(net, core_apply, core_trace), None)


def _like(net: Net, apply: Callable[..., Any], trace: Callable[..., Any]) -> Core:
    return net.core._replace(apply=apply, init=None, trace=trace)


def _stacked(build: Callable[[jax.Array], Any], num: int) -> Callable[[jax.Array], Any]:
    return lambda key: jax.vmap(build, axis_size=num)(indexed_keys(key, num))


def _keys(net: Net, options: Options, num: int) -> jax.Array | None:
    if options.key is None or not net.core.wants_key:
        return None
    return indexed_keys(options.key, num)


def _check_net(name: str, net: Any) -> None:
    if not isinstance(net, Net):
        raise TypeError(f"{name}: expected a network, got {net!r}")


def _check_carry(x: Any, outputs: Any) -> None:
    wanted, given = struct(x), struct(outputs)
    if jax.tree.structure(wanted) != jax.tree.structure(given) or wanted != given:
        raise ShapeError(
            f"a block that returns what it takes, {_in_words(wanted)}",
            _in_words(given),
            "A block is applied to its own output.",
        )


def _in_words(tree: Any) -> str:
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)).replace("'", "")


def _check_stack(what: str, tree: Any, num: int) -> None:
    wrong = [leaf for leaf in jax.tree.leaves(tree) if jnp.shape(leaf)[:1] != (num,)]
    if wrong:
        raise NetError(
            f"{what} with a leading axis of {num}",
            shape_of(tree),
            "Make them with this network's own init(key, x).",
        )
