"""What methods of a game come to: a table, and scores."""

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._game import GameExperiment

MEASURES = ("modes", "near", "sliced_wasserstein")


class Played(NamedTuple):
    """How a method ended.

    Attributes:
      players: the last parameters at which every loss was finite, with an axis of seeds in front.
      samples: of the generators at each report, `[reports, seeds, samples, 2]`.
      metrics: at each report, `{name: [reports, seeds]}`.
      seconds: of training alone, all seeds, without compilation.
    """

    players: Any
    samples: np.ndarray
    metrics: dict[str, np.ndarray]
    seconds: float


def save_scores(experiment: GameExperiment, found: dict[str, Played], path: Path) -> None:
    """Leaves how every method ended, seed by seed."""
    with path.open("w", encoding="utf-8", newline="") as rows:
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["method", "seed", *MEASURES, "seconds_of_all_seeds"])
        for name, played in found.items():
            for place, seed in enumerate(experiment.seeds):
                values = [float(played.metrics[each][-1, place]) for each in MEASURES]
                writer.writerow([name, seed, int(values[0]), *values[1:], round(played.seconds, 2)])


def table(experiment: GameExperiment, data: dict[str, np.ndarray], found: dict[str, Played]) -> str:
    """What every method came to, below what the data themselves come to."""
    last = {name: {each: played.metrics[each][-1] for each in MEASURES} for name, played in found.items()}
    rows = [
        _row(name, values, "-" if name not in found else f"{found[name].seconds:.1f}")
        for name, values in {"data": data, **last}.items()
    ]
    modes = f"modes of {len(experiment.data.centers)}"
    head = ("method", modes, "near a mode", "distance", "seconds")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join(["", *lines, *_lost(experiment, found)])


def _row(name: str, values: dict[str, np.ndarray], seconds: str) -> tuple[str, ...]:
    near, distance = (f"{values[each].min():.2f} to {values[each].max():.2f}" for each in MEASURES[1:])
    return name, " ".join(f"{int(found)}" for found in values["modes"]), near, distance, seconds


def _lost(experiment: GameExperiment, found: dict[str, Played]) -> list[str]:
    """A line for each seed of a method whose losses did not stay finite, naming the player."""
    lines = []
    for name, played in found.items():
        for place, seed in enumerate(experiment.seeds):
            for index in range(len(played.samples)):
                now = {each: loss[index, place] for each, loss in played.metrics.items() if each.startswith("loss/")}
                strange = [f"{each} {loss}" for each, loss in now.items() if not math.isfinite(loss)]
                if strange:
                    step = (index + 1) * experiment.train.per_report
                    lines.append(
                        f"{name}, seed {seed}: {', '.join(strange)} at step {step}; parameters are from before"
                    )
                    break
    return lines


def summary(experiment: GameExperiment, found: dict[str, Played]) -> str:
    """Which methods found all modes on every seed."""
    modes = len(experiment.data.centers)
    full = [name for name, played in found.items() if played.metrics["modes"][-1].min() == modes]
    return f"all {modes} modes on every seed: {', '.join(full) or 'by none'}"
