"""What networks with normalised weights refuse."""

from collections.abc import Callable
from typing import Any

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

linear, rows = nets.linear(3), zeros(4, 5)
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
}
