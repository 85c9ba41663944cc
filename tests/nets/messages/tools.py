"""What the tools refuse."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from renga import nets
from renga.nets import capture, tap

from ..kit import zeros

params = {"encoder": [{"w": zeros(3, 4), "b": zeros(4)}, {}], "head": {"w": zeros(4)}}
PATHS = "There are 'encoder/0/w', 'encoder/0/b', 'head/w'."
x = zeros(3)


def twice(x: Any) -> Any:
    return tap("h", tap("h", x))


def looped(x: Any) -> Any:
    return lax.while_loop(lambda x: x.sum() < 0, lambda x: tap("h", x), x)


def branched(x: Any) -> Any:
    return lax.cond(x.sum() > 0, lambda x: tap("h", x), lambda x: x, x)


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # Patterns and paths.
    "mask_params, a pattern that matches nothing": (
        lambda: nets.mask_params(params, "**/b", "encode/**"),
        ValueError,
        "mask_params: expected a pattern that matches a path, got 'encode/**'. " + PATHS,
    ),
    "partition_params, a pattern that matches nothing": (
        lambda: nets.partition_params({f"layer_{i}": {"w": x} for i in range(15)}, "layer_12/v"),
        ValueError,
        "partition_params: expected a pattern that matches a path, got 'layer_12/v'. There are 'layer_12/w', "
        "'layer_1/w', 'layer_2/w', 'layer_10/w', 'layer_11/w', 'layer_13/w', 'layer_14/w', 'layer_0/w', 'layer_3/w', "
        "'layer_4/w', 'layer_5/w', 'layer_6/w', and 3 more.",
    ),
    "mask_params, no parameters": (
        lambda: nets.mask_params({}, "**"),
        ValueError,
        "mask_params: expected a pattern that matches a path, got '**'. There are none.",
    ),
    "mask_params, no patterns": (
        lambda: nets.mask_params(params),
        TypeError,
        "mask_params: expected patterns of paths, such as '**/w', got none",
    ),
    "partition_params, a list of patterns": (
        lambda: nets.partition_params(params, ["**/w"]),  # pyright: ignore[reportArgumentType]
        TypeError,
        "partition_params: expected a pattern of paths, such as '**/w', got ['**/w']",
    ),
    "mask_params, a tuple": (
        lambda: nets.mask_params({"pair": (x, x)}, "**"),
        TypeError,
        "mask_params: expected nested dicts and lists of arrays, got tuple at 'pair'",
    ),
    "mask_params, None": (
        lambda: nets.mask_params({"w": None}, "**"),
        TypeError,
        "mask_params: expected nested dicts and lists of arrays, got NoneType at 'w'",
    ),
    "flatten_params, a name with a slash": (
        lambda: nets.flatten_params({"block": {"a/b": x}}),
        TypeError,
        "flatten_params: expected names that are strings without a slash, got 'a/b' at 'block'",
    ),
    "unflatten_params, a list with gaps": (
        lambda: nets.unflatten_params({"layers/0/w": x, "layers/2/w": x}),
        ValueError,
        "unflatten_params: expected the positions 0 to 1 at 'layers', got ['0', '2']. Names that are integers are told "
        "from positions by like=.",
    ),
    "unflatten_params, a path in another": (
        lambda: nets.unflatten_params({"head": x, "head/w": x}),
        ValueError,
        "unflatten_params: expected paths of which none is part of another, got 'head' as one",
    ),
    "merge_params, a path twice": (
        lambda: nets.merge_params(params, {"head": {"w": x, "b": x}}),
        ValueError,
        "merge_params: expected parts without a path in common, got 2 with 'head/w'",
    ),
    "merge_params, lists of two lengths": (
        lambda: nets.merge_params(params, {"encoder": [{}, {}, {"w": x}]}),
        ValueError,
        "merge_params: expected lists of one length at 'encoder', got [2, 3]",
    ),
    # Surgery.
    "params_at, nothing there": (
        lambda: nets.params_at(params, "encoder/w"),
        ValueError,
        "params_at: expected a path of the parameters, got 'encoder/w'. There are 'encoder/0/w', 'encoder/0', "
        "'encoder/1', 'encoder', 'encoder/0/b', 'head/w', 'head'.",
    ),
    "params_at, not a path": (
        lambda: nets.params_at(params, 0),  # pyright: ignore[reportArgumentType]
        TypeError,
        "params_at: expected a path, such as 'encoder/w', got 0",
    ),
    "rename_params, nothing there": (
        lambda: nets.rename_params({"head": x}, {"heads": "out"}),
        ValueError,
        "rename_params: expected a path of the parameters, got 'heads'. There are 'head'.",
    ),
    "rename_params, a path that is taken": (
        lambda: nets.rename_params(params, {"encoder/0": "head"}),
        ValueError,
        "rename_params: expected new paths that are free, got 'head'. 'head/w' stands there.",
    ),
    "rename_params, a path twice": (
        lambda: nets.rename_params(params, {"encoder": "tail", "head": "tail/0"}),
        ValueError,
        "rename_params: expected new paths that are free, got 'tail/0'. 'tail/0/w' stands there.",
    ),
    "rename_params, a part of another": (
        lambda: nets.rename_params(params, {"encoder": "tail", "encoder/0/w": "w"}),
        ValueError,
        "rename_params: expected paths of which none is part of another, got 'encoder' and ['encoder/0/w']",
    ),
    "slice_params, too far": (
        lambda: nets.slice_params({"repeat": {"w": zeros(3, 2), "b": zeros(3)}}, "repeat", 3),
        ValueError,
        "slice_params: expected arrays at 'repeat' that are stacks with 3 in them, got {'w': (3, 2), 'b': (3,)}",
    ),
    "slice_params, none left": (
        lambda: nets.slice_params({"repeat": {"w": zeros(3, 2)}}, "repeat", slice(3, 5)),
        ValueError,
        "slice_params: expected arrays at 'repeat' that are stacks with slice(3, 5, None) in them, got {'w': (3, 2)}",
    ),
    "slice_params, no stack": (
        lambda: nets.slice_params(params, "encoder/0", 0),
        ValueError,
        "slice_params: expected arrays at 'encoder/0' that are stacks with 0 in them, got {'w': (3, 4), 'b': (4,)}",
    ),
    "slice_params, nothing there": (
        lambda: nets.slice_params({"repeat": x}, "repeats", 0),
        ValueError,
        "slice_params: expected a path of the parameters, got 'repeats'. There are 'repeat'.",
    ),
    "resize_params, other paths": (
        lambda: nets.resize_params({"w": x, "v": x}, {"w": x, "b": x}),
        ValueError,
        "resize_params: expected the paths of the initial parameters, got missing=['b'], extra=['v']",
    ),
    "resize_params, other axes": (
        lambda: nets.resize_params({"w": x}, {"w": zeros(3, 3)}),
        ValueError,
        "resize_params: expected 'w' with 2 axes, got (3,)",
    ),
    # Taps.
    "tap, no name": (
        lambda: tap(x, "h"),  # pyright: ignore[reportArgumentType]
        TypeError,
        f"tap: expected a name and a value, got {x!r} for a name",
    ),
    "capture, two taps of one name": (
        lambda: capture(twice)(x),
        ValueError,
        "capture: expected one tap of each path, got 2 of 'h'. Give each a name of its own, or call a child that is "
        "called twice inside jax.named_scope.",
    ),
    "capture, a tap in a while loop": (
        lambda: capture(looped)(x),
        ValueError,
        "capture: expected taps whose values have a known shape, got ['h'] in a while. Return them from there as "
        "outputs, or use lax.scan.",
    ),
    "capture, a tap in one branch": (
        lambda: capture(branched)(x),
        ValueError,
        "capture: expected all branches of lax.cond to have the same taps, got [[], ['h']]. Tap what it returns.",
    ),
    "capture, a pattern that matches nothing": (
        lambda: capture(lambda x: tap("hidden", x), "hiden")(x),
        ValueError,
        "capture: expected a pattern that matches a path, got 'hiden'. There are 'hidden'.",
    ),
    # Summaries.
    "summary, not a network": (
        lambda: nets.summary(3),  # pyright: ignore[reportArgumentType]
        TypeError,
        "summary: expected a network, got 3",
    ),
    "summary, no inputs": (
        lambda: nets.summary(nets.mlp(3, 3)),
        nets.NetError,
        "mlp(3, 3): expected inputs (x), got 0 inputs: missing a required argument: 'x'.",
    ),
    "summary, a shape": (
        lambda: nets.summary(nets.linear(3), (8, 4)),
        TypeError,
        "summary: expected inputs of linear(3) that are arrays or jax.ShapeDtypeStructs, got (8, 4). For a shape, pass "
        "jax.ShapeDtypeStruct((8, 4), 'float32').",
    ),
    "summary, words": (
        lambda: nets.summary(nets.linear(3), "x"),
        TypeError,
        "summary: expected inputs of linear(3) that are arrays or jax.ShapeDtypeStructs, got 'x'.",
    ),
    "summary, inputs that do not fit": (
        lambda: nets.summary(nets.conv(3, 3), jnp.zeros((4, 4))),
        nets.ShapeError,
        "conv(3, 3): expected [..., height, width, channels], got (4, 4).",
    ),
    # Drawings.
    "draw, not a network": (
        lambda: nets.draw(jnp.tanh, x),  # pyright: ignore[reportArgumentType]
        TypeError,
        f"draw: expected a network, got {jnp.tanh!r}",
    ),
    "draw, another kind of file": (
        lambda: nets.draw(nets.linear(3), x, path="net.pdf"),
        ValueError,
        "draw: expected a path that ends in .svg or .png, got 'net.pdf'",
    ),
    "draw, depth": (
        lambda: nets.draw(nets.linear(3), x, depth=-1),
        ValueError,
        "draw: expected depth to be an integer of at least 0 or None, got -1",
    ),
}
