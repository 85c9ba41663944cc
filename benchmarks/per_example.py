"""Gradients of every example of a batch of 64, their norms, and the sum of the clipped ones.

    pip install -e '.[bench]'
    python benchmarks/per_example.py per-example-mlp    # 784-256-256-10
    python benchmarks/per_example.py per-example-cnn    # two convolutions of 32 and 64 channels, two linear layers

Beside ours stand the gradient of the batch, `jax.vmap` of `jax.grad`, torch.func, and Opacus with its hooks and its
ghost clipping. Gradients take most of their time for fresh memory, 69 MB for the MLP and 307 MB for the other: writing
zeros there takes as long. It can be that of the step before: under `jax.jit` with `donate_argnums`, "memory reused", or
of any array that was freed, after `training.keep_cpu_memory()`.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, apart, comparison, main

from renga import nets, training

BATCH = 64
SHAPES = {"mlp": (784,), "cnn": (28, 28, 1)}
NUM_PASSES = {"mlp": 5, "cnn": 1}
NETS = {
    "mlp": nets.mlp(256, 256, 10),
    "cnn": nets.serial(
        nets.conv(32, 3, padding="valid"),
        jax.nn.relu,
        nets.conv(64, 3, padding="valid"),
        jax.nn.relu,
        nets.max_pool(2),
        lambda x: x.reshape(*x.shape[:-3], -1),
        nets.linear(128),
        jax.nn.relu,
        nets.linear(10),
    ),
}


def repeated(function: Callable[[], Any], wait: Callable[[Any], Any], num: int) -> Round:
    """A round of so many calls."""

    def run() -> int:
        for _ in range(num):
            wait(function())
        return num

    return run


def setting(which: str) -> tuple[Callable[..., jax.Array], Any, Any]:
    """The loss of a network, its parameters, and a batch."""
    net, key = NETS[which], jax.random.key(0)
    batch = {"x": jax.random.normal(key, (BATCH, *SHAPES[which])), "y": jnp.arange(BATCH) % 10}

    def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
        return training.cross_entropy(net.apply(params, batch["x"]), batch["y"])

    return loss_fn, net.init(key, batch["x"]), batch


def in_jax(which: str) -> dict[str, Round]:
    """Ours, and plain JAX."""
    loss_fn, params, batch = setting(which)

    def mapped(params: Any, batch: Any) -> Any:
        return jax.vmap(jax.grad(lambda params, row: loss_fn(params, row, None)), in_axes=(None, 0))(params, batch)

    def norms(grads: Any) -> jax.Array:
        return jnp.sqrt(sum(jnp.sum(g.reshape(BATCH, -1) ** 2, 1) for g in jax.tree.leaves(grads)))

    def clipped(params: Any, batch: Any) -> Any:
        grads = mapped(params, batch)
        scale = jnp.minimum(1, 1 / norms(grads))
        return jax.tree.map(lambda g: jnp.einsum("b,b...->...", scale, g), grads)

    functions = {
        "renga, gradient of the batch": lambda params, batch: jax.grad(loss_fn)(params, batch, None),
        "renga, gradients": training.per_example(loss_fn),
        "renga, norms": training.per_example_norms(loss_fn),
        "renga, clipped sum": lambda params, batch: training.clipped_sum(loss_fn, 1.0)(params, batch).grads,
        "jax vmap(grad), gradients": mapped,
        "jax vmap(grad), norms": lambda params, batch: norms(mapped(params, batch)),
        "jax vmap(grad), clipped sum": clipped,
    }
    found = {name: called(function, params, batch, which) for name, function in functions.items()}
    return found | {"renga, gradients, memory reused": reused(training.per_example(loss_fn), params, batch, which)}


def called(function: Callable[..., Any], params: Any, batch: Any, which: str) -> Round:
    """Calls of a compiled function."""
    compiled = jax.jit(function).lower(params, batch).compile()
    return repeated(lambda: compiled(params, batch), jax.block_until_ready, NUM_PASSES[which])


def keeping(which: str) -> Round:
    """Our gradients, in a process that keeps its memory."""
    training.keep_cpu_memory()
    loss_fn, params, batch = setting(which)
    return called(training.per_example(loss_fn), params, batch, which)


def reused(function: Callable[..., Any], params: Any, batch: Any, which: str) -> Round:
    """Every call gives its result's memory to the next."""
    into = jax.jit(lambda params, batch, last: function(params, batch), donate_argnums=2, keep_unused=True)
    last = function(params, batch)

    def run() -> int:
        nonlocal last
        for _ in range(NUM_PASSES[which]):
            last = jax.block_until_ready(into(params, batch, last))
        return NUM_PASSES[which]

    return run


def torch_net(which: str) -> tuple[Any, Any, Any]:
    """The same network in torch, with a batch."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if which == "mlp":
        x, sizes = torch.randn(BATCH, 784), (784, 256, 256, 10)
        pairs = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
        net = nn.Sequential(pairs[0], nn.ReLU(), pairs[1], nn.ReLU(), pairs[2])
    else:
        x = torch.randn(BATCH, 1, 28, 28)
        convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        net = nn.Sequential(*convolutions, nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10))
    return net, x, torch.arange(BATCH) % 10


def torch_batch(which: str) -> Round:
    """The gradient of a batch."""
    import torch

    net, x, y = torch_net(which)

    def grads() -> None:
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()

    return repeated(grads, lambda _: None, NUM_PASSES[which])


def torch_func(which: str, *, clipped: bool) -> Round:
    """`vmap` of `grad`, and what is clipped by hand."""
    import torch
    from torch.func import functional_call, grad, vmap

    net, x, y = torch_net(which)
    params = {name: param.detach() for name, param in net.named_parameters()}

    def loss(params: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(functional_call(net, params, (x[None],)), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))

    def sums() -> Any:
        grads = each(params, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        scale = (1 / norms).clamp(max=1)
        return {name: torch.einsum("b,b...->...", scale, g) for name, g in grads.items()}

    return repeated(sums if clipped else lambda: each(params, x, y), lambda _: None, NUM_PASSES[which])


def opacus_hooks(which: str) -> Round:
    """Gradients of every example by Opacus's formulas for layers."""
    import torch
    from opacus import GradSampleModule

    net, x, y = torch_net(which)
    module = GradSampleModule(net)

    def grads() -> None:
        module.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()

    return repeated(grads, lambda _: None, NUM_PASSES[which])


def opacus_ghost(which: str, *, clipped: bool) -> Round:
    """Norms by Opacus's ghost clipping, and the weighted backward pass with which it goes on."""
    import torch
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    net, x, y = torch_net(which)
    module = GradSampleModuleFastGradientClipping(net, max_grad_norm=1, use_ghost_clipping=True)

    def run() -> None:
        module.zero_grad()
        losses = torch.nn.functional.cross_entropy(module(x), y, reduction="none")
        losses.mean().backward(retain_graph=clipped)
        scale = module.get_clipping_coef()
        if clipped:
            module.zero_grad()
            module.disable_hooks()
            (scale * losses).sum().backward()
            module.enable_hooks()

    return repeated(run, lambda _: None, NUM_PASSES[which])


def cases(which: str) -> Mapping[str, Round]:
    """Everything there is for a network."""
    found = in_jax(which) | {"renga, gradients, keep_cpu_memory": apart(keeping, which)}
    if importlib.util.find_spec("torch"):
        found["torch, gradient of the batch"] = apart(torch_batch, which)
        found["torch.func, gradients"] = apart(torch_func, which, clipped=False)
        found["torch.func, clipped sum"] = apart(torch_func, which, clipped=True)
    if importlib.util.find_spec("opacus"):
        found["Opacus hooks, gradients"] = apart(opacus_hooks, which)
        found["Opacus ghost, norms"] = apart(opacus_ghost, which, clipped=False)
        found["Opacus ghost, clipped sum"] = apart(opacus_ghost, which, clipped=True)
    return found


comparison(
    "per-example-mlp",
    f"every example of a batch of {BATCH}: an MLP 784-256-256-10",
    "renga, gradient of the batch",
    promises=[
        Promise(
            "renga, gradients",
            "torch.func, gradients",
            0.35,
            "Most of it goes into the first touch of 69 MB of fresh memory; `keep_cpu_memory` avoids that.",
        ),
        Promise("renga, gradients, keep_cpu_memory", "torch.func, gradients", 0.35),
        Promise("renga, norms", "Opacus ghost, norms", 0.35),
        Promise("renga, clipped sum", "Opacus ghost, clipped sum", 0.6),
        Promise("renga, clipped sum", "renga, gradient of the batch", 2),
    ],
)(functools.partial(cases, "mlp"))
comparison(
    "per-example-cnn",
    f"every example of a batch of {BATCH}: a small convolutional network",
    "renga, gradient of the batch",
    promises=[Promise("renga, clipped sum", "renga, gradient of the batch", 1.5)],
)(functools.partial(cases, "cnn"))

if __name__ == "__main__":
    main()
