"""The pictures of a run."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np


def curves(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Draws loss and the other metrics, on training batches and test data, over steps.

    Args:
      history: rows with `step`, and for every metric `name` and `test_name`.
      path: of the PNG.
      title: heads it.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    steps = [row["step"] for row in history]
    names = sorted((name for name in history[0] if f"test_{name}" in history[0]), key=lambda name: name != "loss")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        axes.plot(steps, [row[name] for row in history], label="training batches", marker=".")
        axes.plot(steps, [row[f"test_{name}"] for row in history], label="held out", marker=".")
        axes.set(xlabel="step", ylabel=name, yscale="log" if name == "loss" else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def misclassified(test: dict[str, np.ndarray], logits: np.ndarray, path: Path, most: int = 24) -> int:
    """Draws test images that were taken for another digit, the most certain first.

    Args:
      test: `{"x": [images, 8, 8, 1], "y": [images]}`.
      logits: `[images, classes]`.
      path: of the PNG.
      most: how many to draw.
    Returns:
      How many there are in all.
    """
    chosen = logits.argmax(-1)
    wrong = np.flatnonzero(chosen != test["y"])
    margins = logits[wrong].max(-1) - logits[wrong, test["y"][wrong]]
    shown = wrong[np.argsort(-margins)][:most]
    figure = matplotlib.figure.Figure(figsize=(9, 1 + 1.5 * max(1, -(-len(shown) // 8))), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(test['y'])} held-out digits misclassified (label, taken for)")
    for place, index in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 8), 8, place + 1)
        axes.imshow(test["x"][index, ..., 0], cmap="gray_r")
        axes.set_title(f"{test['y'][index]}, {chosen[index]}", fontsize=10)
        axes.set_axis_off()
    figure.savefig(path, dpi=120)
    return len(wrong)


def confusion(labels: np.ndarray, chosen: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draws how often each class was taken for each.

    Args:
      labels: `[examples]` of places in `names`.
      chosen: what was said of them, `[examples]`.
      names: of the classes.
      path: of the PNG.
    """
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, chosen), 1)
    figure = matplotlib.figure.Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="held out", yticks=range(len(names)), yticklabels=names)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    for row, column in np.argwhere(counts):
        shade = "white" if 2 * counts[row, column] > counts[row].sum() else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)
    figure.savefig(path, dpi=120)


def adaptation(tasks: dict[str, dict[str, np.ndarray]], curves: dict[int, np.ndarray], path: Path, title: str) -> None:
    """Draws what a network says of regression tasks after some inner steps.

    Args:
      tasks: `{"support": {"x", "y"}, "query": {"x", "y"}}`, arrays `[tasks, examples, 1]`; queries in order of `x`.
      curves: by number of steps, what the network says of the queries, `[tasks, queries]`.
      path: of the PNG.
      title: heads it.
    """
    (x, y), (all_x, all_y) = ((tasks[half]["x"][..., 0], tasks[half]["y"][..., 0]) for half in ("support", "query"))
    figure = matplotlib.figure.Figure(figsize=(9, 2.8 * -(-len(x) // 2)), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for place in range(len(x)):
        axes = figure.add_subplot(-(-len(x) // 2), 2, place + 1)
        axes.plot(all_x[place], all_y[place], color="tab:green", linewidth=3, alpha=0.4, label="the task")
        for shade, (steps, lines) in zip(np.linspace(0.75, 0, len(curves)), curves.items(), strict=True):
            label = f"after {steps} step{'s' * (steps != 1)}" if steps else "before"
            axes.plot(all_x[place], lines[place], color=str(shade), linewidth=1, label=label)
        axes.plot(x[place], y[place], "^", color="tab:red", markersize=5, label="learnt from")
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=120)


def images(frame: np.ndarray, path: Path) -> None:
    """Draws images in rows of ten.

    Args:
      frame: `[images, height, width, 1]` in [0, 1].
      path: of the PNG.
    """
    figure = matplotlib.figure.Figure(figsize=(7, 7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(tiled(frame), cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
    figure.savefig(path, dpi=120)


def animation(frames: Sequence[np.ndarray], path: Path) -> None:
    """Shows images in rows of ten as they become what they are.

    Args:
      frames: each `[images, height, width, 1]` in [0, 1].
      path: of the GIF.
    """
    from PIL import Image

    drawn = [np.kron(np.uint8(255 * (1 - tiled(frame))), np.ones((5, 5), np.uint8)) for frame in frames]
    first, *rest = [Image.fromarray(each) for each in drawn]
    durations = [200] * len(rest) + [2000]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)


def players(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Draws the losses of both players of a GAN, and the Fréchet distance of the generator's images, over steps.

    Args:
      history: rows with `step`, `loss/...` and `frechet`.
      path: of the PNG.
      title: heads it.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in history]
    for name in ("loss/generator", "loss/critic"):
        left.plot(steps, [row[name] for row in history], label=name.removeprefix("loss/"))
    left.set(xlabel="step", ylabel="loss")
    left.legend()
    right.plot(steps, [row["frechet"] for row in history])
    right.set(xlabel="step", ylabel="Fréchet distance, features of the judge", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def tiled(frame: np.ndarray) -> np.ndarray:
    """Images `[images, height, width, 1]` side by side, `[rows, columns]`, with a pixel between them."""
    padded = np.pad(frame[: len(frame) // 10 * 10, ..., 0], ((0, 0), (0, 1), (0, 1)))
    num, height, width = padded.shape
    return padded.reshape(num // 10, 10, height, width).swapaxes(1, 2).reshape(num // 10 * height, 10 * width)


def returns(history: list[dict[str, float]], frames: int, path: Path, title: str) -> None:
    """Draws the returns of episodes in training and in tests over frames, and the loss.

    Args:
      history: rows with `step`, `return`, `test_return` and `loss`.
      frames: steps of environments an update.
      path: of the PNG.
      title: heads it.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2)
    at = [row["step"] * frames for row in history]
    for name, label in (("return", "in training"), ("test_return", "tested, without chance")):
        left.plot(at, [row[name] for row in history], label=label, marker=".")
    left.set(xlabel="frames", ylabel="mean return")
    left.legend()
    right.plot(at, [row["loss"] for row in history], marker=".")
    right.set(xlabel="frames", ylabel="loss")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
