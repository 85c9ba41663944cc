"""Pictures of environments, and the animation of an episode."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, FINE = 300, 200, 2  # drawn twice as large, and made smaller
INK, ACCENT = (40, 40, 40), (200, 80, 40)


def episode(name: str, obs: np.ndarray, actions: np.ndarray, path: Path, *, num_frames: int = 120) -> None:
    """Draws an episode, evenly spaced steps of it if it is long.

    Args:
      name: of the environment, one of `PICTURES`.
      obs: `[time, ...]`.
      actions: `[time, ...]`.
      path: of the GIF.
      num_frames: the most that is drawn.
    """
    from PIL import Image, ImageDraw

    steps = np.unique(np.linspace(0, len(obs) - 1, min(num_frames, len(obs))).round().astype(int))
    frames = []
    for step in steps:
        image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), "white")
        PICTURES[name](ImageDraw.Draw(image), obs[step], actions[step])
        frames.append(image.resize((WIDTH, HEIGHT)))
    duration = 400 if len(frames) < 30 else 50
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0)


def _cart_pole(draw: Any, obs: np.ndarray, action: np.ndarray) -> None:
    """The cart on its track, and the pole."""
    x, _, angle, _ = obs
    middle, ground = FINE * (WIDTH / 2 + x / 2.4 * WIDTH * 0.4), FINE * HEIGHT * 0.75
    draw.line((0, ground, FINE * WIDTH, ground), fill=INK, width=FINE)
    draw.rectangle((middle - 25 * FINE, ground - 20 * FINE, middle + 25 * FINE, ground), fill=INK)
    _rod(draw, (middle, ground - 20 * FINE), float(angle), 90)
    push = 45 if action else -45
    draw.line((middle, ground + 15 * FINE, middle + push * FINE, ground + 15 * FINE), fill=ACCENT, width=3 * FINE)


def _pendulum(draw: Any, obs: np.ndarray, action: np.ndarray) -> None:
    """The rod, and the torque as a bar."""
    centre = (FINE * WIDTH / 2, FINE * HEIGHT / 2)
    _rod(draw, centre, -math.atan2(obs[1], obs[0]), 75)
    end, low = centre[0] + float(np.clip(action[0], -1, 1)) * 100 * FINE, FINE * (HEIGHT - 12)
    draw.line((centre[0], low, end, low), fill=INK, width=4 * FINE)


def _rod(draw: Any, start: tuple[float, float], angle: float, length: float) -> None:
    end = (start[0] + math.sin(angle) * length * FINE, start[1] - math.cos(angle) * length * FINE)
    draw.line((*start, *end), fill=ACCENT, width=6 * FINE)
    draw.ellipse((*(at - 5 * FINE for at in start), *(at + 5 * FINE for at in start)), fill=INK)


def _recall(draw: Any, obs: np.ndarray, action: np.ndarray) -> None:
    """A box for each cue, filled if it is shown; under the question, what is answered."""
    *cues, asked = obs
    size = FINE * WIDTH / (len(cues) + 1)
    for place, shown in enumerate(cues):
        left = size * (place + 0.6)
        draw.rectangle((left, size * 0.3, left + size * 0.8, size * 1.1), outline=INK, fill=ACCENT if shown else None)
        if asked and place == int(action):
            draw.ellipse((left + size * 0.2, size * 1.4, left + size * 0.6, size * 1.8), fill=INK)


PICTURES: dict[str, Callable[[Any, np.ndarray, np.ndarray], None]] = {
    "cart_pole": _cart_pole,
    "pendulum": _pendulum,
    "recall": _recall,
}
