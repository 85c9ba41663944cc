"""One network many times: in depth by a scan, side by side by a vmap; parameters are stacked."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._check import check_size
from ._core import Core, Options, Plan, holds_arrays, run, struct, trace
from ._errors import NetError, ShapeError, shape_of
from ._keys import indexed_keys
from ._net import Net, layer, net_from
from ._sealed import sealed

# A scan stacks what each block keeps for the backward pass. On CPUs a transformer of 4 blocks is 1.15 times faster
# unrolled, and compiles as fast: benchmarks/nets.py transformer.
_UNROLLED = 4


@layer
def repeat(block: Net, num_blocks: int, *, per_block: str | Sequence[str] = (), remat: bool = False) -> Net:
    """Applies a block `num_blocks` times, each time with parameters of its own, by one `lax.scan`.

    Trace and compile time do not grow with depth; up to four blocks are unrolled. State and keys are each
    block's own. The initial values are those of a list of blocks, stacked; `unstack` gives the list, `stack`
    makes it one again.

    A block may return a pair `(x, y)`: `x` goes to the next block, and the `y`s of all come back stacked.

    Args:
      block: a network from `x` to an output of the same shapes and dtypes. Further inputs go to each block
        as they are.
      num_blocks: how often, at least 1.
      per_block: names of keyword inputs whose arrays have a leading axis of `num_blocks`, one part for each
        block, such as caches. A value without arrays goes to every block as it is.
      remat: whether the backward pass computes each block again instead of keeping what is inside it.
    Returns:
      A net with the block's params (and state), each array with a leading axis of `num_blocks`, from `x` to
      `x`, or to `(x, ys)` where the block returns `(x, y)`.
    Raises:
      ShapeError: if the block does not return what it takes, or an input of `per_block` has not one part
        for each.

    >>> net = repeat(residual(linear(4), jnp.tanh), 3)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["linear"]["w"].shape, net.apply(params, jnp.ones((2, 4))).shape
    ((3, 4, 4), (2, 4))
    """
    _check_net("repeat", block)
    check_size("repeat", "num_blocks", num_blocks)
    names = _names(per_block)
    again = functools.partial(sealed, functools.partial(jax.checkpoint, prevent_cse=False)) if remat else run

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        _check_inputs(inputs)
        options, parts = _split(options, names, num_blocks, "block")
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        outputs, planned = trace(block, inputs, options._replace(keywords={**options.keywords, **first}))
        x, ys, collects = _next(inputs[0], outputs)
        ys = jax.tree.map(lambda y: jnp.broadcast_to(y, (num_blocks, *jnp.shape(y))), ys)
        return (x, ys) if collects else x, _stacked(planned.build, num_blocks), planned.children

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        _check_stack("parameters", params, num_blocks)
        _check_stack("state", state, num_blocks)
        _check_inputs(inputs)
        x, *constants = inputs
        options, parts = _split(options, names, num_blocks, "block")
        keys = _keys(block, options, num_blocks)
        collects = False

        def step(x: Any, of_block: tuple) -> tuple[Any, Any]:
            nonlocal collects
            params, state, key, part = of_block
            given = options._replace(key=key, keywords={**options.keywords, **part})
            outputs, state = again(block, params, state, (x, *constants), given)
            x, y, collects = _next(x, outputs)
            return x, (state, y)

        unroll = num_blocks if num_blocks <= _UNROLLED else 1
        x, (state, ys) = lax.scan(step, x, (params, state, keys, parts), length=num_blocks, unroll=unroll)
        return (x, ys) if collects else x, state

    return net_from(_like(block, core_apply, core_trace), None)


@layer
def ensemble(net: Net, num_members: int, *, in_axes: int | None = None, per_member: str | Sequence[str] = ()) -> Net:
    """Applies `num_members` copies of a network, each with parameters of its own, by one `jax.vmap`.

    State and keys are each member's own. The initial values are those of a list of networks, stacked.

    Args:
      net: the network.
      num_members: how many, at least 1.
      in_axes: the axis of the inputs that runs over members, or None if all see the same inputs.
      per_member: names of keyword inputs whose arrays have a leading axis of `num_members`, one part for each
        member, such as masks. All others go to every member as they are.
    Returns:
      A net with the params (and state) of `net`, and its outputs, each array with a leading axis of
      `num_members`.
    Raises:
      ShapeError: if an input does not hold one part for each member along `in_axes`, or one of `per_member` along
        its first axis.

    >>> net = ensemble(linear(3), 5)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["w"].shape, net.apply(params, jnp.ones((2, 4))).shape
    ((5, 4, 3), (5, 2, 3))
    """
    _check_net("ensemble", net)
    check_size("ensemble", "num_members", num_members)
    names = _names(per_member)

    def check_members(inputs: tuple) -> None:
        if in_axes is None:
            return
        for shape in map(jnp.shape, jax.tree.leaves(inputs)):
            if not -len(shape) <= in_axes < len(shape) or shape[in_axes] != num_members:
                raise ShapeError(f"inputs with {num_members} members along axis {in_axes}", str(shape))

    def over_members(function: Callable[..., Any], axes: tuple) -> Callable[..., Any]:
        return jax.vmap(function, axes, axis_size=num_members)

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        check_members(inputs)
        options, parts = _split(options, names, num_members, "member")
        noted: list[Plan] = []

        def member(part: dict[str, Any], *inputs: Any) -> Any:
            outputs, planned = trace(net, inputs, options._replace(keywords={**options.keywords, **part}))
            noted.append(planned)
            return outputs

        outputs = over_members(member, (0,) + (in_axes,) * len(inputs))(parts, *inputs)
        return outputs, _stacked(noted[0].build, num_members), noted[0].children

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        _check_stack("parameters", params, num_members)
        _check_stack("state", state, num_members)
        check_members(inputs)
        options, parts = _split(options, names, num_members, "member")

        def member(params: Any, state: Any, key: Any, part: dict[str, Any], *inputs: Any) -> Any:
            given = options._replace(key=key, keywords={**options.keywords, **part})
            return run(net, params, state, inputs, given)

        keys = _keys(net, options, num_members)
        return over_members(member, (0, 0, 0, 0) + (in_axes,) * len(inputs))(params, state, keys, parts, *inputs)

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


def _check_inputs(inputs: tuple) -> None:
    if not inputs:
        raise NetError("inputs (x, ...)", "0 inputs")
    for leaf in jax.tree.leaves(inputs):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise NetError("arrays as inputs of every block", repr(leaf))


def _next(x: Any, outputs: Any) -> tuple[Any, Any, bool]:
    """What goes to the next block, what is collected, and whether anything is."""
    if _alike(x, outputs):
        return outputs, None, False
    if type(outputs) is tuple and len(outputs) == 2 and _alike(x, outputs[0]):
        return *outputs, True
    raise ShapeError(
        f"a block that returns what it takes, {_in_words(struct(x))}",
        _in_words(struct(outputs)),
        "A block is applied to its own output.",
    )


def _alike(x: Any, other: Any) -> bool:
    wanted, given = struct(x), struct(other)
    return jax.tree.structure(wanted) == jax.tree.structure(given) and wanted == given


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _split(options: Options, names: tuple[str, ...], num: int, of: str) -> tuple[Options, dict[str, Any]]:
    """Options without the keyword inputs that are split, and these."""
    parts = {name: options.keywords[name] for name in names if holds_arrays(options.keywords.get(name))}
    for name, part in parts.items():
        if any(jnp.shape(leaf)[:1] != (num,) for leaf in jax.tree.leaves(part)):
            raise ShapeError(f"{name} with a leading axis of {num}, one part for each {of}", shape_of(part))
    return options._replace(keywords={k: v for k, v in options.keywords.items() if k not in parts}), parts


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
