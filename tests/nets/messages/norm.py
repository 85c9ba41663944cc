"""What norms refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np

from renga import nets
from renga.nets import ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

rows, images = zeros(4, 3), zeros(2, 4, 4, 6)
two, rms, group, instance = nets.layer_norm(num_axes=2), nets.rms_norm(), nets.group_norm(2), nets.instance_norm()
batch = nets.batch_norm()
EPS = {
    "layer_norm": nets.layer_norm,
    "rms_norm": nets.rms_norm,
    "group_norm": lambda eps: nets.group_norm(2, eps=eps),
    "instance_norm": nets.instance_norm,
    "batch_norm": nets.batch_norm,
}

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "layer_norm of two axes, rank": (
        lambda: two.init(KEY, zeros(3)),
        ShapeError,
        "layer_norm(num_axes=2): expected an input [..., any, features], got (3,).",
    ),
    "layer_norm of two axes, sizes": (
        lambda: applied(two, (rows,), zeros(2, 5, 3)),
        ShapeError,
        "layer_norm(num_axes=2): expected an input [..., 4, 3], got (2, 5, 3).",
    ),
    "layer_norm of two axes, parameters": (
        lambda: two.apply({"scale": zeros(3)}, rows),
        ShapeError,
        "layer_norm(num_axes=2): expected parameters scale [any, any], offset [any, any], got {'scale': (3,)}."
        + REMEDY,
    ),
    "layer_norm of two axes, parameters of two sizes": (
        lambda: two.apply({"scale": zeros(4, 3), "offset": zeros(4, 1)}, rows),
        ShapeError,
        "layer_norm(num_axes=2): expected an input [..., 4, 1], got (4, 3).",
    ),
    "layer_norm, num_axes": (
        lambda: nets.layer_norm(num_axes=0),
        ValueError,
        "layer_norm: expected num_axes to be an integer of at least 1, got 0",
    ),
    "plain layer_norm, parameters": (
        lambda: nets.layer_norm(scale=False, offset=False).apply({"scale": zeros(3)}, rows),
        ShapeError,
        "layer_norm(scale=False, offset=False): expected parameters none, got {'scale': (3,)}." + REMEDY,
    ),
    "rms_norm, rank": (
        lambda: rms.init(KEY, zeros()),
        ShapeError,
        "rms_norm(): expected an input [..., features], got ().",
    ),
    "rms_norm, size": (
        lambda: applied(rms, (rows,), zeros(4, 5)),
        ShapeError,
        "rms_norm(): expected an input [..., 3], got (4, 5).",
    ),
    "rms_norm, parameters": (
        lambda: rms.apply({"scale": zeros(3), "offset": zeros(3)}, rows),
        ShapeError,
        "rms_norm(): expected parameters scale [any], got {'offset': (3,), 'scale': (3,)}." + REMEDY,
    ),
    "rms_norm, num_axes": (
        lambda: nets.rms_norm(num_axes=-1),
        ValueError,
        "rms_norm: expected num_axes to be an integer of at least 1, got -1",
    ),
    "group_norm, rank": (
        lambda: group.init(KEY, rows),
        ShapeError,
        "group_norm(2): expected an input [..., any, any, features], got (4, 3).",
    ),
    "group_norm, rank at apply": (
        lambda: applied(group, (images,), zeros(4, 6)),
        ShapeError,
        "group_norm(2): expected an input [..., any, any, features], got (4, 6).",
    ),
    "group_norm, size": (
        lambda: applied(group, (images,), zeros(4, 4, 4)),
        ShapeError,
        "group_norm(2): expected an input [..., 6], got (4, 4, 4).",
    ),
    "group_norm, channels": (
        lambda: nets.serial(group).init(KEY, zeros(4, 4, 3)),
        ShapeError,
        "serial/group_norm = group_norm(2): expected channels in a multiple of 2, got (4, 4, 3).",
    ),
    "group_norm, num_groups": (
        lambda: nets.group_norm(0),
        ValueError,
        "group_norm: expected num_groups to be an integer of at least 1, got 0",
    ),
    "group_norm, num_axes": (
        lambda: nets.group_norm(2, num_axes=-1),
        ValueError,
        "group_norm: expected num_axes to be an integer of at least 0, got -1",
    ),
    "instance_norm, rank": (
        lambda: instance.init(KEY, rows),
        ShapeError,
        "instance_norm(): expected an input [..., any, any, features], got (4, 3).",
    ),
    "instance_norm, size": (
        lambda: applied(instance, (images,), zeros(4, 4, 4)),
        ShapeError,
        "instance_norm(): expected an input [..., 6], got (4, 4, 4).",
    ),
    "instance_norm, parameters": (
        lambda: instance.apply({}, images),
        ShapeError,
        "instance_norm(): expected parameters scale [any], offset [any], got nothing." + REMEDY,
    ),
    "instance_norm, num_axes": (
        lambda: nets.instance_norm(num_axes=0),
        ValueError,
        "instance_norm: expected num_axes to be an integer of at least 1, got 0",
    ),
    "batch_norm, mask of numbers": (
        lambda: applied(batch, (rows,), rows, mask=zeros(4)),
        ShapeError,
        "batch_norm(): expected a mask of booleans that broadcasts to (4,), got float32 (4,).",
    ),
    "batch_norm, mask of another length": (
        lambda: applied(batch, (rows,), rows, mask=np.ones(3, bool), train=True),
        ShapeError,
        "batch_norm(): expected a mask of booleans that broadcasts to (4,), got bool (3,).",
    ),
    "batch_norm, mask of channels": (
        lambda: applied(batch, (rows,), rows, mask=np.ones((4, 3), bool)),
        ShapeError,
        "batch_norm(): expected a mask of booleans that broadcasts to (4,), got bool (4, 3).",
    ),
    "batch_norm, state": (
        lambda: batch.apply(params_of(batch, rows)[0], {"mean": zeros(3)}, rows),
        ShapeError,
        "batch_norm(): expected state mean [3], var [3], got {'mean': (3,)}." + REMEDY,
    ),
    "batch_norm, decay_rate": (
        lambda: nets.batch_norm(decay_rate=1.5),
        ValueError,
        "batch_norm: expected decay_rate in [0, 1], got 1.5",
    ),
    "batch_norm, no decay_rate": (
        lambda: nets.batch_norm(decay_rate=None),  # pyright: ignore[reportArgumentType]
        ValueError,
        "batch_norm: expected decay_rate in [0, 1], got None",
    ),
}
for _name, _make in EPS.items():
    ERRORS[f"{_name}, eps"] = (
        lambda make=_make: make(eps=0.0),
        ValueError,
        f"{_name}: expected eps above 0, got 0.0",
    )
    ERRORS[f"{_name}, no eps"] = (
        lambda make=_make: make(eps=None),
        ValueError,
        f"{_name}: expected eps above 0, got None",
    )
for _name, _net in {"layer_norm": nets.layer_norm(), "rms_norm": rms, "group_norm": group, "batch_norm": batch}.items():
    ERRORS[f"{_name}, complex numbers at init"] = (
        lambda net=_net: net.init(KEY, images.astype("complex64")),
        ShapeError,
        f"{_net!r}: expected an input of real numbers, got complex64 (2, 4, 4, 6).",
    )
    ERRORS[f"{_name}, complex numbers"] = (
        lambda net=_net: applied(net, (images,), images.astype("complex64")),
        ShapeError,
        f"{_net!r}: expected an input of real numbers, got complex64 (2, 4, 4, 6).",
    )
