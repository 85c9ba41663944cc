"""What dropouts refuse."""

from collections.abc import Callable
from typing import Any

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, zeros

rows = zeros(4, 3)
RATES = {
    "dropout": nets.dropout,
    "drop_path": lambda rate: nets.drop_path(rate, num_axes=1),
    "alpha_dropout": nets.alpha_dropout,
}
NETS = {
    "dropout(0.5, broadcast_axes=(-2,))": nets.dropout(0.5, broadcast_axes=(-2,)),
    "drop_path(0.5, num_axes=1)": nets.drop_path(0.5, num_axes=1),
    "alpha_dropout(0.5)": nets.alpha_dropout(0.5),
}
AXES = "dropout: expected broadcast_axes to be a tuple of negative integers, counted from the last axis, -1"

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "dropout, broadcast axes": (
        lambda: nets.dropout(0.5, broadcast_axes=(-1, 0)),
        ValueError,
        f"{AXES}, got (-1, 0)",
    ),
    "dropout, one broadcast axis": (
        lambda: nets.dropout(0.5, broadcast_axes=-1),  # pyright: ignore[reportArgumentType]
        ValueError,
        f"{AXES}, got -1",
    ),
    "dropout, rank": (
        lambda: nets.dropout(0.5, broadcast_axes=(-1, -3))(rows, key=KEY, train=True),
        ShapeError,
        "dropout(0.5, broadcast_axes=(-1, -3)): expected an input of at least 3 axes, got (4, 3).",
    ),
    "drop_path, rank": (
        lambda: nets.serial(nets.drop_path(0.5, num_axes=3)).init(KEY, rows),
        ShapeError,
        "serial/drop_path = drop_path(0.5, num_axes=3): expected an input of at least 3 axes, got (4, 3).",
    ),
    "drop_path, num_axes": (
        lambda: nets.drop_path(0.5, num_axes=0),
        ValueError,
        "drop_path: expected num_axes to be an integer of at least 1, got 0",
    ),
}
for _name, _make in RATES.items():
    for _rate in (1.0, -0.1, "0.5", None):
        ERRORS[f"{_name}, rate {_rate}"] = (
            lambda make=_make, rate=_rate: make(rate),
            ValueError,
            f"{_name}: expected rate, the share that is dropped, in [0, 1), got {_rate!r}",
        )
for _name, _net in NETS.items():
    ERRORS[f"{_name}, no key"] = (
        lambda net=_net: net(rows, train=True),
        NetError,
        f"{_name}: expected a key in training, got None. Pass key= to apply.",
    )
    ERRORS[f"{_name}, parameters"] = (
        lambda net=_net: net.apply({"w": zeros(3)}, rows),
        ShapeError,
        f"{_name}: expected parameters none, got {{'w': (3,)}}." + REMEDY,
    )
