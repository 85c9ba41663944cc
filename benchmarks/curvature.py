"""Jacobians, Hessians, their products, neural tangent kernels: in renga, by JAX's own functions, in torch.func.

The cases of torch.func's tutorials, of the tanh of a linear layer where nothing else is said.

    pip install -e '.[bench]'
    python benchmarks/curvature.py jacobian-tall    # or one of those that --help lists

Beside renga's choice of a mode stand both. Torch is eager: torch.func as its tutorials write it, on one thread, which
is faster for small calls, and on all.
"""

import functools
import importlib.util
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from runner import Promise, Round, apart, comparison, main

from renga import nets, training

NUM_CALLS = {"hessian": 5, "ntk": 5, "ntk-scalar": 20, "ntk-conv": 2}
SIZES = {"square": (16, 16), "tall": (2048, 32), "wide": (32, 2048), "batch": (33, 31), "hessian": (32, 256)}


def calls(function: Callable[..., Any], *args: Any, num: int) -> Round:
    """A round of calls of a compiled function."""
    compiled = jax.jit(function)

    def run() -> int:
        found = None
        for _ in range(num):
            found = compiled(*args)
        jax.block_until_ready(found)
        return num

    return run


def arrays(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weight and bias of the layer."""
    rng = np.random.default_rng(0)
    outputs, inputs = SIZES[kind]
    shapes = ((64, inputs) if kind == "batch" else (inputs,)), (outputs, inputs), (outputs,)
    x, w, b = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, w / inputs**0.5, b


def layer(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    """The function of most cases."""
    return jnp.tanh(w @ x + b)


def networks(kind: str) -> tuple[nets.Net, jax.Array, jax.Array]:
    """A network and the two sets of inputs of its kernel."""
    mlp = nets.mlp(128, 128, 1 if kind == "ntk-scalar" else 10)
    convolutional = nets.serial(
        nets.conv(8, 3), jax.nn.relu, nets.conv(8, 3), jax.nn.relu, lambda x: x.mean((-3, -2)), nets.linear(10)
    )
    net, shape = (convolutional, (16, 16, 3)) if kind == "ntk-conv" else (mlp, (784,))
    x = jax.random.normal(jax.random.key(1), (25, *shape))
    return net, x[:20], x[20:]


def torch(kind: str, num: int, threads: int) -> Round:
    """torch.func, as its tutorials write it."""
    import torch as th
    from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

    th.set_num_threads(threads)
    if kind.startswith("ntk"):
        _, x1, x2 = networks(kind)
        sizes = (784, 128, 128, 1 if kind == "ntk-scalar" else 10)
        linears = [th.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
        net = th.nn.Sequential(linears[0], th.nn.ReLU(), linears[1], th.nn.ReLU(), linears[2])
        params = {name: p.detach() for name, p in net.named_parameters()}
        a, b = (th.tensor(np.asarray(x)) for x in (x1, x2))

        def rows(x: Any) -> list[Any]:
            alone = lambda params, x: functional_call(net, params, (x[None],))[0]  # noqa: E731
            return [leaf.flatten(2) for leaf in vmap(jacrev(alone), (None, 0))(params, x).values()]

        def once() -> Any:
            return sum(th.einsum("Naf,Mbf->NMab", *pair) for pair in zip(rows(a), rows(b), strict=True))

    elif kind == "hvp":
        x, v = th.linspace(-1, 1, 2048), th.ones(2048)
        once = lambda: jvp(grad(lambda x: x.sin().sum()), (x,), (v,))[1]  # noqa: E731
    else:
        x, w, b = map(th.tensor, arrays(kind))
        f = lambda x: th.tanh(th.nn.functional.linear(x, w, b))  # noqa: E731
        transform = _torch_transform(kind)
        once = {"batch": lambda: vmap(jacrev(f))(x), "hessian": lambda: hessian(f)(x)}.get(
            kind, lambda: transform(f)(x)
        )

    def run() -> int:
        for _ in range(num):
            once()
        return num

    return run


def _torch_transform(kind: str) -> Callable[..., Any]:
    from torch.func import jacfwd, jacrev

    return jacfwd if kind == "tall" else jacrev


def ours(kind: str, num: int) -> Mapping[str, Round]:
    """What renga does, its alternatives, and JAX's functions."""
    if kind.startswith("ntk"):
        net, x1, x2 = networks(kind)
        params = net.init(jax.random.key(0), x1)
        methods = {"renga": "auto", "renga, contraction": "contraction", "renga, products": "products"}
        return {
            name: calls(training.ntk(net.apply, method=method), params, x1, x2, num=num)  # pyright: ignore[reportArgumentType]
            for name, method in methods.items()
        }
    if kind == "hvp":
        loss = lambda x: jnp.sum(jnp.sin(x))  # noqa: E731
        by_hand = lambda x, v: jax.jvp(jax.grad(loss), (x,), (v,))[1]  # noqa: E731
        given = jnp.linspace(-1, 1, 2048), jnp.ones(2048)
        return {"renga": calls(training.hvp(loss), *given, num=num), "jax": calls(by_hand, *given, num=num)}
    given = tuple(map(jnp.asarray, arrays(kind)))
    if kind == "hessian":
        return {
            "renga": calls(training.hessian(layer), *given, num=num),
            "jax": calls(jax.hessian(layer), *given, num=num),
        }
    over = functools.partial(jax.vmap, in_axes=(0, None, None)) if kind == "batch" else lambda f: f
    functions = {
        "renga": training.jacobian(layer),
        "renga, forward": training.jacobian(layer, mode="forward"),
        "renga, reverse": training.jacobian(layer, mode="reverse"),
        "jax.jacfwd": jax.jacfwd(layer),
        "jax.jacrev": jax.jacrev(layer),
    }
    return {name: calls(over(function), *given, num=num) for name, function in functions.items()}


def cases(kind: str) -> Mapping[str, Round]:
    """All that is compared."""
    num = NUM_CALLS.get(kind, 100)
    found = dict(ours(kind, num))
    if kind != "ntk-conv" and importlib.util.find_spec("torch"):
        found["torch.func, 1 thread"] = apart(torch, kind, num, 1)
        found["torch.func"] = apart(torch, kind, num, os.cpu_count())
    return found


TITLES = {
    "square": "Jacobian, 16 outputs of 16 inputs",
    "tall": "Jacobian, 2048 outputs of 32 inputs",
    "wide": "Jacobian, 32 outputs of 2048 inputs",
    "batch": "Jacobians, 33 outputs of 31 inputs, of 64 examples",
    "hessian": "Hessian, 32 outputs of 256 inputs",
    "hvp": "Hessian-vector product of a sum of sines of 2048 numbers",
    "ntk": "neural tangent kernel, 20 inputs by 5, of an MLP 784-128-128-10",
    "ntk-scalar": "neural tangent kernel, 20 inputs by 5, of an MLP 784-128-128-1",
    "ntk-conv": "neural tangent kernel, 20 inputs by 5, of a small convolutional network on 16x16 images",
}

for _kind, _title in TITLES.items():
    comparison(
        f"jacobian-{_kind}" if _title.startswith("Jacobian") else _kind,
        _title,
        "renga",
        promises=() if _kind == "ntk-conv" else [Promise("renga", ("torch.func", "torch.func, 1 thread"), 1)],
    )(functools.partial(cases, _kind))

if __name__ == "__main__":
    main()
