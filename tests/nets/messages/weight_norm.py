"""What networks with normalised weights refuse."""

from collections.abc import Callable
from typing import Any

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

linear, rows, turned = nets.linear(3), zeros(4, 5), nets.conv_transpose(4, 3)
weight, spectral = nets.weight_norm(linear), nets.spectral_norm(linear)
deep = nets.serial(nets.linear(4), nets.batch_norm())
params = {"w": zeros(5, 3), "b": zeros(3)}
vectors = {"u": zeros(3), "v": zeros(5)}

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "weight_norm, an input of another size": (
        lambda: applied(nets.weight_norm(deep), (rows,), zeros(4, 6)),
        ShapeError,
        "weight_norm/net/linear = linear(4): expected an input [..., 5], got (4, 6).",
    ),
    "weight_norm, an input of another rank at init": (
        lambda: weight.init(KEY, zeros()),
        ShapeError,
        "weight_norm/net = linear(3): expected an input [..., features], got ().",
    ),
    "weight_norm, a vector": (
        lambda: nets.serial(nets.weight_norm(linear, "*")).init(KEY, rows),
        NetError,
        "serial/weight_norm = weight_norm(linear(3), '*'): expected b to be a weight with at least one axis of inputs, "
        "and one of outputs, got float32 (3,). Say which arrays are weights by patterns of paths.",
    ),
    "weight_norm, stacked axes": (
        lambda: nets.weight_norm(linear, num_stacked=1).init(KEY, rows),
        NetError,
        "weight_norm(linear(3), num_stacked=1): expected w to be a weight with 1 stacked axes, at least one axis of "
        "inputs, and one of outputs, got float32 (5, 3). Say which arrays are weights by patterns of paths.",
    ),
    "weight_norm, no such path": (
        lambda: nets.weight_norm(linear, "head/w").init(KEY, rows),
        ValueError,
        "weight_norm: expected a pattern that matches a path, got 'head/w'. There are 'w', 'b'.",
    ),
    "weight_norm, parameters of the network inside": (
        lambda: weight.apply(params, rows),
        NetError,
        f"weight_norm(linear(3)): expected params of ['net', 'g'], got ['b', 'w'].{REMEDY}",
    ),
    "weight_norm, lengths of another network": (
        lambda: weight.apply({"net": params, "g": {"w": zeros(1, 4)}}, rows),
        ShapeError,
        f"weight_norm(linear(3)): expected parameters w [1, 3], got {{'w': (1, 4)}}.{REMEDY}",
    ),
    "weight_norm, a function": (
        lambda: nets.weight_norm(abs),  # pyright: ignore[reportArgumentType]
        TypeError,
        "weight_norm: expected a network, got <built-in function abs>",
    ),
    "weight_norm, num_stacked": (
        lambda: nets.weight_norm(linear, num_stacked=-1),
        ValueError,
        "weight_norm: expected num_stacked to be an integer of at least 0, got -1",
    ),
    "spectral_norm, an input of another size": (
        lambda: applied(nets.spectral_norm(deep), (rows,), zeros(4, 6)),
        ShapeError,
        "spectral_norm/linear = linear(4): expected an input [..., 5], got (4, 6).",
    ),
    "spectral_norm, a vector": (
        lambda: nets.spectral_norm(linear, "b").init(KEY, rows),
        NetError,
        "spectral_norm(linear(3), 'b'): expected b to be a weight with at least one axis of inputs, and one of "
        "outputs, got float32 (3,). Say which arrays are weights by patterns of paths.",
    ),
    "spectral_norm, no weights": (
        lambda: nets.spectral_norm(nets.layer_norm()).init(KEY, rows),
        ValueError,
        "spectral_norm: expected a pattern that matches a path, got '**/w'. There are 'offset', 'scale'.",
    ),
    "spectral_norm, state": (
        lambda: spectral.apply(params, {}, rows),
        NetError,
        "spectral_norm(linear(3)): expected state of ['vectors'], got []. Make it with this network's own "
        "init(key, x).",
    ),
    "spectral_norm, no state of the network inside": (
        lambda: nets.spectral_norm(deep).apply(params_of(deep, rows)[0], {"vectors": {"linear": {"w": vectors}}}, rows),
        NetError,
        "spectral_norm(serial(linear(4), batch_norm())): expected state of ['vectors', 'net'], got ['vectors']. Make "
        "it with this network's own init(key, x).",
    ),
    "spectral_norm, vectors of another network": (
        lambda: spectral.apply(params, {"vectors": {"w": {"u": zeros(3), "v": zeros(4)}}}, rows),
        ShapeError,
        "spectral_norm(linear(3)): expected state w/u [3], w/v [5], got {'w/u': (3,), 'w/v': (4,)}." + REMEDY,
    ),
    "spectral_norm, parameters": (
        lambda: spectral.apply({"w": zeros(5, 3)}, {"vectors": {"w": vectors}}, rows),
        ShapeError,
        f"spectral_norm = linear(3): expected parameters w [any, 3], b [3], got {{'w': (5, 3)}}.{REMEDY}",
    ),
    "spectral_norm, num_steps": (
        lambda: nets.spectral_norm(linear, num_steps=0),
        ValueError,
        "spectral_norm: expected num_steps to be an integer of at least 1, got 0",
    ),
    "spectral_norm, eps": (
        lambda: nets.spectral_norm(linear, eps=0.0),
        ValueError,
        "spectral_norm: expected eps above 0, got 0.0",
    ),
    "weight_norm, transposed kernels": (
        lambda: nets.weight_norm(nets.serial(turned)).init(KEY, zeros(2, 4, 4, 3)),
        NetError,
        f"weight_norm(serial({turned!r})): expected conv_transpose/w to end in the axes of inputs and outputs, got a "
        f"kernel of {turned!r}, which ends in those of outputs and inputs. Pass transposed='conv_transpose/w', or "
        "build the layer with transpose_kernel=False.",
    ),
    "weight_norm, repeated": (
        lambda: nets.weight_norm(nets.serial(deeper=nets.repeat(nets.linear(5), 2))).init(KEY, rows),
        NetError,
        "weight_norm(serial(deeper=repeat(linear(5), 2))): expected deeper/w to have 0 stacked axes, got 1, of "
        "repeat(linear(5), 2). Pass num_stacked=1, or choose weights outside of it by patterns of paths.",
    ),
    "spectral_norm, an ensemble of repeated ones": (
        lambda: nets.spectral_norm(nets.ensemble(nets.repeat(nets.linear(5), 2), 3), num_stacked=1).init(KEY, rows),
        NetError,
        "spectral_norm(ensemble(repeat(linear(5), 2), 3), num_stacked=1): expected w to have 1 stacked axes, got 2, of "
        "repeat(linear(5), 2). Pass num_stacked=2, or choose weights outside of it by patterns of paths.",
    ),
    "weight_norm, num_outputs": (
        lambda: nets.weight_norm(linear, num_outputs=0),
        ValueError,
        "weight_norm: expected num_outputs to be an integer of at least 1, got 0",
    ),
}
