"""The pictures of a game: samples beside data, and how they moved."""

from pathlib import Path

import numpy as np

MOST_SEEDS = 5


def pictures(real: np.ndarray, samples: dict[str, np.ndarray], path: Path, title: str) -> None:
    """Draws data and the samples of every method, a row for each of the first seeds.

    Args:
      real: `[seeds, samples, 2]`.
      samples: by method, likewise.
      path: of the PNG.
      title: heads it.
    """
    from matplotlib.figure import Figure

    shown, num_rows = {"data": real, **samples}, min(MOST_SEEDS, len(real))
    figure = Figure(figsize=(1.7 * len(shown), 0.5 + 1.75 * num_rows), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for row, many in enumerate(figure.subplots(num_rows, len(shown), squeeze=False)):
        for axes, (name, points) in zip(many, shown.items(), strict=True):
            _scatter(axes, points[row], _limits(real))
            if row == 0:
                axes.set_title(name, fontsize=9, parse_math=False)
    figure.savefig(path, dpi=120)


def animation(real: np.ndarray, samples: dict[str, np.ndarray], steps: np.ndarray, path: Path) -> None:
    """Draws the samples of every method at each report, beside the data, as an animation.

    Args:
      real: `[samples, 2]`.
      samples: by method, `[reports, samples, 2]`.
      steps: of the reports.
      path: of the GIF.
    """
    from matplotlib.animation import PillowWriter
    from matplotlib.figure import Figure

    num_columns = min(5, 1 + len(samples))
    num_rows = -(-(1 + len(samples)) // num_columns)
    figure = Figure(figsize=(1.7 * num_columns, 0.4 + 1.9 * num_rows), layout="constrained")
    cells = np.ravel(figure.subplots(num_rows, num_columns, squeeze=False))
    for axes in cells[1 + len(samples) :]:
        axes.set_axis_off()
    moving = []
    for axes, (name, points) in zip(cells, {"data": real[None], **samples}.items(), strict=False):
        axes.set_title(name, fontsize=9, parse_math=False)
        moving.append((_scatter(axes, points[0], _limits(real)), points))
    writer = PillowWriter(fps=4)
    with writer.saving(figure, str(path), 80):
        for index, step in enumerate(steps):
            figure.suptitle(f"step {step}", fontsize=10)
            for dots, points in moving[1:]:
                dots.set_offsets(points[index])
            writer.grab_frame()


def _limits(real: np.ndarray) -> tuple[float, float]:
    furthest = 1.3 * float(np.abs(real).max())
    return -furthest, furthest


def _scatter(axes, points: np.ndarray, limits: tuple[float, float]):
    axes.set(xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
    return axes.scatter(*points.T, s=2, alpha=0.3, linewidths=0)
