"""One meta-iteration of MAML: the second-order gradient of 25 tasks of sinusoids, ten shots each, and a step of Adam.

    pip install -e '.[bench]'
    python benchmarks/maml.py maml-1      # one inner step
    python benchmarks/maml.py maml-5      # five

The network is 1-40-40-1 with ReLU. "JAX by hand" is what one would write without a library; everything else in JAX
does the same mathematics in another form. Torch's libraries run in a process each. learn2learn and higher are no longer
kept: they stand in the table where they are installed.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from runner import Promise, Round, apart, comparison, main

from renga import nets, optim, training

NUM_TASKS, SHOTS, RATE, META_RATE = 25, 10, 0.01, 1e-3
SIZES = (1, 40, 40, 1)
NUM_STEPS = {"jax": 100, "torch": 5}


def arrays() -> dict[str, dict[str, np.ndarray]]:
    """Support and query of sinusoids."""
    draw = np.random.default_rng(0)
    amplitude, phase = draw.uniform(0.1, 5, (NUM_TASKS, 1, 1)), draw.uniform(0, np.pi, (NUM_TASKS, 1, 1))
    tasks = {}
    for half in ("support", "query"):
        x = draw.uniform(-5, 5, (NUM_TASKS, SHOTS, 1))
        tasks[half] = {"x": x.astype(np.float32), "y": (amplitude * np.sin(x - phase)).astype(np.float32)}
    return tasks


def weights() -> list[np.ndarray]:
    """Kernels and biases in turn."""
    draw, found = np.random.default_rng(1), []
    for before, after in itertools.pairwise(SIZES):
        found += [(draw.normal(size=(before, after)) / before**0.5).astype(np.float32), np.zeros(after, np.float32)]
    return found


def repeated(step: Callable[[Any, Any], Any], carry: Any) -> Round:
    """A round of meta-iterations of a jitted step, from `(carry, tasks) -> carry`."""
    step, tasks = jax.jit(step, donate_argnums=0), jax.tree.map(jnp.asarray, arrays())
    held = [jax.tree.map(jnp.copy, carry)]

    def run() -> int:
        for _ in range(NUM_STEPS["jax"]):
            held[0] = step(held[0], tasks)
        jax.block_until_ready(held[0])
        return NUM_STEPS["jax"]

    return run


def renga(inner_steps: int, inner: optax.GradientTransformation, **options: Any) -> Round:
    """Ours."""
    net = nets.mlp(*SIZES[1:])

    def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
        return training.squared_error(net.apply(params, batch["x"]), batch["y"])

    tx = optim.adam(META_RATE)
    step = training.step(training.maml(loss_fn, inner, inner_steps, **options), tx)
    params = net.init(jax.random.key(0), jnp.ones((SHOTS, 1)))
    return repeated(lambda train_state, tasks: step(train_state, tasks)[0], training.init(params, tx))


def by_hand(inner_steps: int) -> Round:
    """What one would write without a library."""

    def forward(params: Any, x: jax.Array) -> jax.Array:
        for index in range(0, len(params), 2):
            x = x @ params[index] + params[index + 1]
            x = jax.nn.relu(x) if index < len(params) - 2 else x
        return x

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((forward(params, x) - y) ** 2)

    def task_loss(params: Any, task: Any) -> jax.Array:
        for _ in range(inner_steps):
            grads = jax.grad(loss_fn)(params, task["support"]["x"], task["support"]["y"])
            params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
        return loss_fn(params, task["query"]["x"], task["query"]["y"])

    def meta_loss(params: Any, tasks: Any) -> jax.Array:
        return jnp.mean(jax.vmap(task_loss, (None, 0))(params, tasks))

    adam = optax.adam(META_RATE)

    def step(carry: Any, tasks: Any) -> Any:
        params, opt_state = carry
        updates, opt_state = adam.update(jax.grad(meta_loss)(params, tasks), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = [jnp.asarray(array) for array in weights()]
    return repeated(step, (params, adam.init(params)))


def torch_forward(params: Any, x: Any) -> Any:
    """The network, in torch."""
    for index in range(0, len(params), 2):
        x = x @ params[index] + params[index + 1]
        x = x.relu() if index < len(params) - 2 else x
    return x


def torch_tasks() -> list[Any]:
    """Support x and y, query x and y, of all tasks."""
    import torch

    return [torch.from_numpy(arrays()[half][part]) for half in ("support", "query") for part in "xy"]


def torch_func(inner_steps: int) -> Round:
    """`torch.func`: `vmap` over tasks of `grad` of `grad`."""
    import torch
    from torch.func import grad, vmap

    def loss_fn(params: Any, x: Any, y: Any) -> Any:
        return ((torch_forward(params, x) - y) ** 2).mean()

    def of_task(params: Any, x: Any, y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(inner_steps):
            slopes = grad(loss_fn)(params, x, y)
            params = tuple(param - RATE * slope for param, slope in zip(params, slopes, strict=True))
        return loss_fn(params, query_x, query_y)

    params = tuple(torch.from_numpy(array).requires_grad_() for array in weights())
    adam, tasks = torch.optim.Adam(params, META_RATE), torch_tasks()

    def run() -> int:
        for _ in range(NUM_STEPS["torch"]):
            adam.zero_grad()
            vmap(of_task, (None, 0, 0, 0, 0))(params, *tasks).mean().backward()
            adam.step()
        return NUM_STEPS["torch"]

    return run


def torch_loop(inner_steps: int, make: Callable[[Any], Callable[[Any], Any]]) -> Round:
    """A loop over tasks, as TorchOpt, learn2learn and higher write it: `make(net)(task) -> query loss`."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList([torch.from_numpy(array) for array in weights()])

        def forward(self, x: Any) -> Any:
            return torch_forward(list(self.weights), x)

    net, tasks = Net(), torch_tasks()
    of_task, adam = make(net), torch.optim.Adam(net.parameters(), META_RATE)

    def run() -> int:
        for _ in range(NUM_STEPS["torch"]):
            adam.zero_grad()
            losses = [of_task([part[index] for part in tasks]) for index in range(NUM_TASKS)]
            torch.stack(losses).mean().backward()
            adam.step()
        return NUM_STEPS["torch"]

    return run


def torchopt(inner_steps: int) -> Round:
    """TorchOpt's `MetaSGD`, whose state is put back after each task."""
    import torchopt

    def make(net: Any) -> Callable[[Any], Any]:
        inner = torchopt.MetaSGD(net, lr=RATE)

        def of_task(task: Any) -> Any:
            x, y, query_x, query_y = task
            start = torchopt.extract_state_dict(net, by="reference"), torchopt.extract_state_dict(inner, by="reference")
            for _ in range(inner_steps):
                inner.step(((net(x) - y) ** 2).mean())
            loss = ((net(query_x) - query_y) ** 2).mean()
            torchopt.recover_state_dict(net, start[0])
            torchopt.recover_state_dict(inner, start[1])
            return loss

        return of_task

    return torch_loop(inner_steps, make)


def learn2learn(inner_steps: int) -> Round:
    """`MAML.clone` and `adapt` of learn2learn."""
    from learn2learn.algorithms import maml  # pyright: ignore[reportMissingImports]

    def make(net: Any) -> Callable[[Any], Any]:
        learner = maml.MAML(net, lr=RATE)

        def of_task(task: Any) -> Any:
            x, y, query_x, query_y = task
            own = learner.clone()
            for _ in range(inner_steps):
                own.adapt(((own(x) - y) ** 2).mean())
            return ((own(query_x) - query_y) ** 2).mean()

        return of_task

    return torch_loop(inner_steps, make)


def higher(inner_steps: int) -> Round:
    """The loop of higher, `innerloop_ctx`."""
    import torch
    from higher import innerloop_ctx  # pyright: ignore[reportMissingImports]

    def make(net: Any) -> Callable[[Any], Any]:
        sgd = torch.optim.SGD(net.parameters(), lr=RATE)

        def of_task(task: Any) -> Any:
            x, y, query_x, query_y = task
            with innerloop_ctx(net, sgd, copy_initial_weights=False) as (own, inner):
                for _ in range(inner_steps):
                    inner.step(((own(x) - y) ** 2).mean())
                return ((own(query_x) - query_y) ** 2).mean()

        return of_task

    return torch_loop(inner_steps, make)


def cases(inner_steps: int) -> Mapping[str, Round]:
    """Ours, JAX by hand, and every library that is installed."""
    found = {
        "JAX by hand": by_hand(inner_steps),
        "renga": renga(inner_steps, optim.sgd(RATE)),
        "renga, Adam inside": renga(inner_steps, optim.adam(RATE)),
        "renga, first order": renga(inner_steps, optim.sgd(RATE), first_order=True),
    }
    peers = {
        "torch": {"torch.func": torch_func},
        "torchopt": {"TorchOpt": torchopt},
        "learn2learn": {"learn2learn": learn2learn},
        "higher": {"higher": higher},
    }
    for module, makers in peers.items():
        if importlib.util.find_spec(module):
            found |= {name: apart(make, inner_steps) for name, make in makers.items()}
    return found


for _steps in (1, 5):
    comparison(
        f"maml-{_steps}",
        f"one meta-iteration of MAML, {_steps} inner step{'s' * (_steps > 1)}",
        "JAX by hand",
        num_rounds=15,
        promises=[Promise("renga", "JAX by hand", 1.05)],
    )(functools.partial(cases, _steps))

if __name__ == "__main__":
    main()
