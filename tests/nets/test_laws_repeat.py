"""`repeat(net, n)` is `serial` of n nets with the parts of its parameters: for every network from `x` to its like."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from renga import nets

from .kit import KEY, variables
from .made import Made, over, split


def in_turn(net: nets.Net, collects: bool) -> nets.Net:
    """What `serial(net, net)` is, for networks with further inputs and outputs."""

    @nets.define
    def body(x, *others, blocks=[net, net], **given):
        ys = []
        for block in blocks:
            x = block(x, *others, **given)
            if collects:
                x, y = x
                ys.append(y)
        return (x, nets.stack(ys)) if collects else x

    return body


def along(tree: Any) -> Any:
    """A direction in which to change parameters or inputs."""
    return jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), tree)


def outcome(net: nets.Net, made: Made) -> Callable[..., tuple[Any, Any, Any]]:
    """`(params, direction, state) -> (outputs, their change in this direction, state)`, compiled.

    In training, but where random numbers are drawn: the blocks of `repeat` and of `serial` have different keys.
    """
    floats, merge = split(made.inputs)
    train = not made.case.draws

    def run(params: Any, direction: Any, state: list) -> tuple[Any, Any, Any]:
        def apply(params: Any, floats: list) -> Any:
            found = net.apply(params, *state, *merge(floats), key=KEY, train=train, **made.keywords)
            return found if state else (found, {})

        return jax.jvp(apply, (params, floats), (direction, along(floats)), has_aux=True)

    return jax.jit(run)


KINDS = (
    *("mlp", "serial", "residual", "repeat", "dropout", "batch_norm", "layer_norm", "conv over two axes", "attention"),
    *("simple rnn", "lora", "ensemble", "transformer_block", "feed_forward", "block", "remat", "linear"),
)


@over("repeat", KINDS)
def test_repeat_equals_serial_of_its_unstacked_parts_and_other_nets_are_refused(made: Made):
    whole = nets.repeat(made.net, 2)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), made.inputs[0])
    outputs = jax.eval_shape(made.run, made.variables, made.inputs, made.arrays)
    collects = isinstance(outputs, tuple) and len(outputs) == 2 and outputs[0] == like
    if outputs != like and not collects:
        with pytest.raises(nets.NetError, match="expected a block that returns what it takes"):
            whole.init(KEY, *made.inputs, **made.keywords)
        return
    simple = not (made.keywords or made.inputs[1:] or collects)
    parts = nets.serial(made.net, made.net) if simple else in_turn(made.net, collects)

    def unstacked(tree: Any) -> Any:
        if not jax.tree.leaves(tree):
            return {}
        return nets.unstack(tree, made.net.name) if simple else {"blocks": nets.unstack(tree)}

    params, *state = variables(whole, KEY, *made.inputs, **made.keywords)
    direction = along(params)
    y, change, after = outcome(whole, made)(params, direction, state)
    expected = outcome(parts, made)(unstacked(params), unstacked(direction), list(map(unstacked, state)))
    assert_close((y, change, unstacked(after)), expected)


def assert_close(tree: Any, other: Any) -> None:
    def check(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max(initial=0)))

    jax.tree.map(check, tree, other)
