"""The pictures of a run."""

from pathlib import Path

import matplotlib.figure
import numpy as np


def curves(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Draws loss and accuracy, on training batches and test data, over steps.

    Args:
      history: rows with `step`, `loss`, `accuracy`, `test_loss`, `test_accuracy`.
      path: of the PNG.
      title: heads it.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    steps = [row["step"] for row in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
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
