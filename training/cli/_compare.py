"""`renga compare`: runs beside each other, by what their configs and their metrics say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._logs import csv_rows
from ._config import ConfigError, load, shown
from ._directory import config_of
from ._run import load_plots

Series = dict[str, dict[str, list[tuple[float, float]]]]
NO_METRICS = ("method", "seed", "step")


def compare(directories: Sequence[Path], picture: Path) -> str:
    """Draws the metrics of runs in one picture, and says what differs.

    Args:
      directories: of the runs, two or more.
      picture: path of the PNG.
    Returns:
      What their configs differ in, and their last metrics, as tables.
    Raises:
      ConfigError: if there are fewer than two, one is no run, or one has no metrics yet.
    """
    if len(directories) < 2:
        raise ConfigError(f"compare: expected two runs or more, got {', '.join(map(str, directories))}")
    names = _names(directories)
    configs = {name: _flat(load(config_of(path, ended=True)[0])) for name, path in names.items()}
    series = {label: found for name, path in names.items() for label, found in _series(name, path).items()}
    load_plots()
    if picture.suffix.lower() != ".png" or picture.is_dir() or not picture.parent.is_dir():
        raise ConfigError(f"--out {picture}: expected the path of a PNG in a directory that there is")
    from . import _sweep_plots

    _sweep_plots.beside(_drawn(series), picture)
    return "\n\n".join([_configs_said(configs), _metrics_said(series), f"curves    {picture}"])


def _names(directories: Sequence[Path]) -> dict[str, Path]:
    """Short names of runs where those differ, else their paths."""
    short = [path.name or path.resolve().name for path in directories]  # that of "." is empty
    found = dict(zip(short if len(set(short)) == len(short) else map(str, directories), directories, strict=True))
    if len(found) < len(directories):
        raise ConfigError(f"compare: expected different runs, got {', '.join(map(str, directories))}")
    return found


def _flat(tables: Mapping[str, Any], where: str = "") -> dict[str, str]:
    found = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{where}{name}.")
        else:
            found[f"{where}{name}"] = shown(value)
    return found


def _series(name: str, directory: Path) -> Series:
    """By run, or by run and method, metrics over steps: means over seeds where a table has several."""
    try:
        rows = list(csv_rows(directory / "metrics.csv"))
    except OSError:
        rows = []
    if not rows:
        raise ConfigError(f"{directory}: expected a run with a report, got one without a row in metrics.csv")
    held: dict[str, dict[str, dict[float, list[float]]]] = {}
    for row in rows:
        metrics = held.setdefault(f"{name}/{row['method']}" if "method" in row else name, {})
        for metric, value in row.items():
            if metric not in NO_METRICS and value:
                metrics.setdefault(metric, {}).setdefault(float(row["step"]), []).append(float(value))
    return {
        label: {
            metric: [(step, float(np.mean(each))) for step, each in points.items()] for metric, points in of.items()
        }
        for label, of in held.items()
    }


def _drawn(series: Series, most: int = 9) -> Series:
    """Metrics that several runs have, or all where none is; those of tests first."""
    times: dict[str, int] = {}
    for metrics in series.values():
        for metric in metrics:
            times[metric] = times.get(metric, 0) + 1
    common = [metric for metric, num in times.items() if num > 1] or list(times)
    chosen = sorted(common, key=lambda metric: not metric.startswith("test_"))[:most]
    return {run: {metric: of[metric] for metric in chosen if metric in of} for run, of in series.items()}


def _configs_said(configs: Mapping[str, Mapping[str, str]]) -> str:
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    differing = [key for key in keys if len({config.get(key) for config in configs.values()}) > 1]
    if not differing:
        return "config    the same"
    lines = [["config", *configs]]
    lines += [[key, *(config.get(key, "-") for config in configs.values())] for key in differing]
    return columns(lines)


def _metrics_said(series: Series) -> str:
    keys = dict.fromkeys(metric for metrics in series.values() for metric in metrics)
    lines = [["last", *series]]
    lines.append(["step", *(f"{max(of[-1][0] for of in metrics.values()):.0f}" for metrics in series.values())])
    for key in keys:
        lines.append([key, *(f"{of[key][-1][1]:.4g}" if key in of else "-" for of in series.values())])
    return columns(lines)


def columns(lines: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
