"""What positions refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import nets
from renga.nets import ShapeError

from ..kit import KEY, REMEDY, applied, zeros

heads, steps = zeros(2, 3, 1, 4), zeros(2, 3, 4)
rotary, learned, sinusoidal, alibi = (
    nets.rotary(),
    nets.learned_positions(4),
    nets.sinusoidal_positions(),
    nets.alibi(2),
)
places = np.zeros((2, 3), np.int32)

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "rotary, rank": (
        lambda: rotary(zeros(3, 4)),
        ShapeError,
        "rotary(): expected an input [..., time, heads, head_size] with an even number of features a head, got (3, 4).",
    ),
    "rotary, rank at init": (
        lambda: nets.serial(rotary).init(KEY, zeros(3, 4)),
        ShapeError,
        "serial/rotary = rotary(): expected an input [..., time, heads, head_size] with an even number of features a "
        "head, got (3, 4).",
    ),
    "rotary, odd size": (
        lambda: rotary(zeros(3, 1, 5)),
        ShapeError,
        "rotary(): expected an input [..., time, heads, head_size] with an even number of features a head, got "
        "(3, 1, 5).",
    ),
    "partial rotary, size": (
        lambda: nets.rotary(num_features=6)(heads),
        ShapeError,
        "rotary(num_features=6): expected an input [..., time, heads, head_size] with at least 6 features a head, got "
        "(2, 3, 1, 4).",
    ),
    "rotary, positions of floats": (
        lambda: rotary(heads, zeros(2, 3)),
        ShapeError,
        "rotary(): expected positions [..., time] of integers that broadcast to (2, 3), got float32 (2, 3).",
    ),
    "rotary, positions of another length": (
        lambda: rotary(heads, np.zeros((2, 1), np.int32)),
        ShapeError,
        "rotary(): expected positions [..., time] of integers that broadcast to (2, 3), got int32 (2, 1).",
    ),
    "rotary, positions with axes of their own": (
        lambda: rotary(heads[0], positions=places),
        ShapeError,
        "rotary(): expected positions [..., time] of integers that broadcast to (3,), got int32 (2, 3).",
    ),
    "rotary, one position": (
        lambda: rotary(heads, 3),
        ShapeError,
        "rotary(): expected positions [..., time] of integers that broadcast to (2, 3), got int32 ().",
    ),
    "rotary, theta": (
        lambda: nets.rotary(theta=0.0),
        ValueError,
        "rotary: expected theta to be a number above 0, got 0.0",
    ),
    "rotary, num_features": (
        lambda: nets.rotary(num_features=0),
        ValueError,
        "rotary: expected num_features to be an integer of at least 1, got 0",
    ),
    "rotary, odd num_features": (
        lambda: nets.rotary(num_features=3),
        ValueError,
        "rotary: expected num_features to be even, got 3",
    ),
    "rotary, layout": (
        lambda: nets.rotary(layout="thirds"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "rotary: expected layout to be 'halves' or 'pairs', got 'thirds'",
    ),
    "rotary, parameters": (
        lambda: rotary.apply({"w": zeros(3)}, heads),
        ShapeError,
        "rotary(): expected parameters none, got {'w': (3,)}." + REMEDY,
    ),
    "alibi, floats": (
        lambda: alibi(zeros(3), np.arange(3, dtype=np.int32)),
        ShapeError,
        "alibi(2): expected query_positions [..., length] of integers, got float32 (3,).",
    ),
    "alibi, rank": (
        lambda: alibi(jnp.arange(3), jnp.int32(3)),
        ShapeError,
        "alibi(2): expected key_positions [..., length] of integers, got int32 ().",
    ),
    "alibi, batches of two sizes": (
        lambda: alibi(np.zeros((2, 3), np.int32), np.zeros((3, 3), np.int32)),
        ShapeError,
        "alibi(2): expected positions whose leading axes broadcast together, got (2, 3) and (3, 3).",
    ),
    "alibi, heads": (
        lambda: nets.alibi(0),
        ValueError,
        "alibi: expected num_heads to be an integer of at least 1, got 0",
    ),
    "learned_positions, rank": (
        lambda: learned.init(KEY, zeros(3)),
        ShapeError,
        "learned_positions(4): expected an input [..., time, features], got (3,).",
    ),
    "learned_positions, too long at init": (
        lambda: learned.init(KEY, zeros(2, 5, 4)),
        ShapeError,
        "learned_positions(4): expected an input [..., time, features] of at most 4 steps, got (2, 5, 4).",
    ),
    "learned_positions, too long": (
        lambda: applied(learned, (steps,), zeros(5, 4)),
        ShapeError,
        "learned_positions(4): expected an input [..., time, features] of at most 4 steps, got (5, 4).",
    ),
    "learned_positions, size": (
        lambda: applied(learned, (steps,), zeros(2, 3, 5)),
        ShapeError,
        "learned_positions(4): expected an input [..., time, 4], got (2, 3, 5).",
    ),
    "learned_positions, positions of floats": (
        lambda: applied(learned, (steps,), steps, positions=zeros(2, 3)),
        ShapeError,
        "learned_positions(4): expected positions [..., time] of integers that broadcast to (2, 3), got float32 "
        "(2, 3).",
    ),
    "learned_positions, parameters": (
        lambda: learned.apply({"w": zeros(3, 4)}, steps),
        ShapeError,
        "learned_positions(4): expected parameters w [4, any], got {'w': (3, 4)}." + REMEDY,
    ),
    "learned_positions, max_length": (
        lambda: nets.learned_positions(0),
        ValueError,
        "learned_positions: expected max_length to be an integer of at least 1, got 0",
    ),
    "sinusoidal_positions, rank": (
        lambda: sinusoidal(zeros(3)),
        ShapeError,
        "sinusoidal_positions(): expected an input [..., time, features], got (3,).",
    ),
    "sinusoidal_positions, positions of another length": (
        lambda: sinusoidal(steps, positions=jnp.arange(4)),
        ShapeError,
        "sinusoidal_positions(): expected positions [..., time] of integers that broadcast to (2, 3), got int32 (4,).",
    ),
    "sinusoidal_positions, parameters": (
        lambda: sinusoidal.apply({"w": jax.numpy.zeros(3)}, steps),
        ShapeError,
        "sinusoidal_positions(): expected parameters none, got {'w': (3,)}." + REMEDY,
    ),
    "sinusoidal_positions, max_period": (
        lambda: nets.sinusoidal_positions(max_period=float("nan")),
        ValueError,
        "sinusoidal_positions: expected max_period to be a number above 0, got nan",
    ),
}
