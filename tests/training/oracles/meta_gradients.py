"""Meta-gradients by learn2learn, higher and torch.func, of weights and tasks that are sines of their places.

    pip install torch==2.13.0 higher==0.2.1 learn2learn==0.2.0
    python tests/training/oracles/meta_gradients.py

Writes `meta_gradients.json` beside itself: for each library, order and number of inner steps the loss and the
gradient, a flat list in the order of `SHAPES`. The tests hold `maml` to these values.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"w1": (1, 6), "b1": (6,), "w2": (6, 6), "b2": (6,), "w3": (6, 1), "b3": (1,)}
NUM_TASKS, NUM_POINTS, RATE = 3, 5, 0.1
PATH = Path(__file__).with_suffix(".json")


def waves(shape: tuple[int, ...], frequency: float) -> np.ndarray:
    """Sines of the places of a float32 array."""
    return np.sin(frequency * np.arange(1, np.prod(shape) + 1)).reshape(shape).astype(np.float32)


def params() -> dict[str, np.ndarray]:
    """Weights of a network 1-6-6-1 with ReLU."""
    return {name: 0.7 * waves(shape, 1.3 + index) for index, (name, shape) in enumerate(SHAPES.items())}


def tasks() -> dict[str, dict[str, np.ndarray]]:
    """Support and query of three tasks, five points each."""
    shape = (NUM_TASKS, NUM_POINTS, 1)
    return {
        half: {"x": 3 * waves(shape, 2.1 + place), "y": 2 * waves(shape, 0.9 + place)}
        for place, half in enumerate(("support", "query"))
    }


def forward(weights: Any, x: Any) -> Any:
    """The network, in torch."""
    w1, b1, w2, b2, w3, b3 = weights
    return ((x @ w1 + b1).relu() @ w2 + b2).relu() @ w3 + b3


def by_torch_func(inner_steps: int, first_order: bool) -> tuple[float, list[float]]:
    """The mean query loss and its gradient, by `torch.func`."""
    import torch
    from torch.func import grad, grad_and_value, vmap

    def loss_fn(weights: Any, x: Any, y: Any) -> Any:
        return ((forward(weights, x) - y) ** 2).mean()

    def of_task(weights: Any, x: Any, y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(inner_steps):
            slope = grad(loss_fn)(weights, x, y)
            slope = tuple(each.detach() for each in slope) if first_order else slope
            weights = tuple(weight - RATE * each for weight, each in zip(weights, slope, strict=True))
        return loss_fn(weights, query_x, query_y)

    def meta(weights: Any) -> Any:
        halves = [torch.from_numpy(tasks()[half][part]) for half in ("support", "query") for part in "xy"]
        return vmap(of_task, (None, 0, 0, 0, 0))(weights, *halves).mean()

    slopes, loss = grad_and_value(meta)(tuple(map(torch.from_numpy, params().values())))
    return loss.item(), torch.cat([each.reshape(-1) for each in slopes]).tolist()


def module() -> Any:
    """The network as a torch module."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList([torch.from_numpy(array) for array in params().values()])

        def forward(self, x: Any) -> Any:
            return forward(list(self.weights), x)

    return Net()


def task_tensors() -> list[list[Any]]:
    """For each task `[support x, support y, query x, query y]`."""
    import torch

    arrays = [tasks()[half][part] for half in ("support", "query") for part in "xy"]
    return [[torch.from_numpy(array[index]) for array in arrays] for index in range(NUM_TASKS)]


def summed(net: Any, losses: list[Any]) -> tuple[float, list[float]]:
    """The mean of losses, and the gradients of its network, flat."""
    import torch

    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), torch.cat([weight.grad.reshape(-1) for weight in net.parameters()]).tolist()


def by_higher(inner_steps: int, first_order: bool) -> tuple[float, list[float]]:
    """The same by higher's inner loop."""
    import higher
    import torch

    net, losses = module(), []
    sgd = torch.optim.SGD(net.parameters(), lr=RATE)
    for x, y, query_x, query_y in task_tensors():
        with higher.innerloop_ctx(net, sgd, copy_initial_weights=False) as (own, inner):
            for _ in range(inner_steps):
                loss = ((own(x) - y) ** 2).mean()
                inner.step(loss, grad_callback=(lambda gs: [g.detach() for g in gs]) if first_order else None)
            losses.append(((own(query_x) - query_y) ** 2).mean())
    return summed(net, losses)


def by_learn2learn(inner_steps: int, first_order: bool) -> tuple[float, list[float]]:
    """The same by learn2learn's clone and adapt."""
    from learn2learn.algorithms import maml  # pyright: ignore[reportMissingImports]

    net, losses = module(), []
    learner = maml.MAML(net, lr=RATE, first_order=first_order)
    for x, y, query_x, query_y in task_tensors():
        own = learner.clone()
        for _ in range(inner_steps):
            own.adapt(((own(x) - y) ** 2).mean())
        losses.append(((own(query_x) - query_y) ** 2).mean())
    return summed(net, losses)


LIBRARIES: dict[str, Callable[[int, bool], tuple[float, list[float]]]] = {
    "torch.func": by_torch_func,
    "higher": by_higher,
    "learn2learn": by_learn2learn,
}


def main() -> None:
    """Writes the values."""
    found = {
        name: {
            f"{inner_steps} {'first' if first_order else 'second'}": by(inner_steps, first_order)
            for inner_steps in (1, 2, 5)
            for first_order in (False, True)
        }
        for name, by in LIBRARIES.items()
    }
    PATH.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
