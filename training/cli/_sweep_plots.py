"""The picture of a sweep, and that of runs beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def sweep(ended: Sequence[Any], over: Mapping[str, Any], path: Path, *, chief: str, title: str) -> None:
    """Draws losses over steps, and the test by values: every run, and means over seeds.

    Args:
      ended: runs, with `values`, `metrics` and `losses`.
      over: the values by dotted path.
      path: of the PNG.
      chief: the metric to draw.
      title: heads it.
    """
    import matplotlib.figure

    groups: dict[str, list[Any]] = {}
    for each in ended:
        groups.setdefault(_label(each.values), []).append(each)
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2)
    places = _places(over, groups)
    for color, (label, group) in enumerate(groups.items()):
        steps = list(group[0].losses)
        losses = np.array([list(each.losses.values()) for each in group])
        left.plot(steps, losses.mean(0), color=f"C{color % 10}", label=label)
        left.fill_between(steps, losses.min(0), losses.max(0), color=f"C{color % 10}", alpha=0.2)
        found = [each.metrics[chief] for each in group]
        right.plot([places[label]] * len(found), found, ".", color=f"C{color % 10}")
    means = [np.mean([each.metrics[chief] for each in group]) for group in groups.values()]
    right.plot(list(places.values()), means, "_-" if _is_axis(over) else "_", color="0.3", markersize=14)
    left.set(xlabel="step", ylabel="loss on training batches", yscale="log" if _positive(ended) else "linear")
    right.set(ylabel=chief)
    if _is_axis(over):
        (name, values), *_ = over.items()
        right.set(xlabel=name, xscale="log" if min(values) > 0 else "linear")
    else:
        values = [", ".join(map(str, group[0].values.values())) for group in groups.values()]
        right.set_xticks(range(len(groups)), values, rotation=30, ha="right")
        right.set(xlabel=", ".join(over))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    if 1 < len(groups) <= 10:
        left.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def beside(series: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path) -> None:
    """Draws the metrics of runs over steps.

    Args:
      series: `{run: {metric: [(step, value), ...]}}`.
      path: of the PNG.
    """
    import matplotlib.figure

    names = list(dict.fromkeys(name for metrics in series.values() for name in metrics))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = matplotlib.figure.Figure(figsize=(4.5 * columns, 3.2 * rows + 0.5), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        for color, (run, metrics) in enumerate(series.items()):
            if name in metrics:
                steps, values = zip(*metrics[name], strict=True)
                axes.plot(steps, values, color=f"C{color % 10}", label=run)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
    handles = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=120)


def _label(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path.split('.')[-1]} {value}" for path, value in values.items()) or "all"


def _is_axis(over: Mapping[str, Any]) -> bool:
    """Whether the values are those of one number."""
    return len(over) == 1 and all(isinstance(value, int | float) for values in over.values() for value in values)


def _places(over: Mapping[str, Any], groups: Mapping[str, list[Any]]) -> dict[str, float]:
    if _is_axis(over):
        return {label: next(iter(group[0].values.values())) for label, group in groups.items()}
    return {label: place for place, label in enumerate(groups)}


def _positive(ended: Sequence[Any]) -> bool:
    return all(loss > 0 for each in ended for loss in each.losses.values())
