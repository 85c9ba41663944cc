"""Ten MLPs 784-128-128-10 as an ensemble, batch 64: forward pass, or train step by SGD with momentum.

    pip install -e '.[bench]'
    python benchmarks/ensemble.py ensemble-forward-own       # each member its own batch
    python benchmarks/ensemble.py ensemble-forward-shared    # one batch for all
    python benchmarks/ensemble.py ensemble-step-own
    python benchmarks/ensemble.py ensemble-step-shared
    python benchmarks/ensemble.py ensemble-conv-own          # steps of five convolutional networks, without torch
    python benchmarks/ensemble.py ensemble-conv-shared

The baseline is ten calls of one compiled function. Beside renga's choice stand the ways that it chooses from: `vmap`,
with a shared batch as it is (`in_axes=None`) or repeated for each member; all members in one program; a scan over them.
Torch: torch.func's tutorial, `stack_module_state` and `vmap`, and a loop over modules, eager, its step an SGD with
momentum written on the stacked arrays, on one thread and on all.
"""

import functools
import importlib.util
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, apart, comparison, main

from renga import nets, optim, training

SIZES, BATCH = (784, 128, 128, 10), 64
NUM_CALLS = {"forward": 20, "step": 10, "conv": 2}
RATE, MOMENTUM = 0.01, 0.9


def given(kind: str, batches: str) -> tuple[nets.Net, int, dict[str, jax.Array]]:
    """Network, number of members, and a batch for each, or one for all."""
    if kind == "conv":
        body = (nets.conv(16, 3), jax.nn.relu, nets.max_pool(2), nets.conv(32, 3), jax.nn.relu, nets.max_pool(2))
        net, members, shape = nets.serial(*body, nets.flatten(3), nets.linear(10)), 5, (32, 16, 16, 3)
    else:
        net, members, shape = nets.mlp(*SIZES[1:]), 10, (BATCH, SIZES[0])
    lead = (members,) if batches == "own" else ()
    x = jax.random.normal(jax.random.key(1), (*lead, *shape))
    return net, members, {"x": x, "y": jax.random.randint(jax.random.key(2), (*lead, shape[0]), 0, 10)}


def repeatedly(once: Callable[[Any], Any], carry: Any, num: int) -> Round:
    """A round of calls, each on what the last one gave."""

    def run() -> int:
        nonlocal carry
        for _ in range(num):
            carry = once(carry)
        jax.block_until_ready(carry)
        return num

    return run


def compiled(function: Callable[..., Any], carry: Any, batch: Any, num: int, *, forward: bool) -> Round:
    """A round of a function of all members."""
    if forward:
        run = jax.jit(function)
        found = repeatedly(lambda _: run(carry, batch), None, num)
    else:
        run = jax.jit(lambda carry, batch: function(carry, batch)[0], donate_argnums=0)
        found = repeatedly(lambda carry: run(carry, batch), jax.tree.map(jnp.copy, carry), num)
    return found


def looped(function: Callable[..., Any], carry: Any, batches: list[Any], num: int, *, forward: bool) -> Round:
    """A round of one compiled function of a member, called for each."""
    run = jax.jit(function) if forward else jax.jit(lambda *args: function(*args)[0], donate_argnums=0)
    members = nets.unstack(jax.tree.map(jnp.copy, carry))
    if forward:
        return repeatedly(lambda _: [run(*each) for each in zip(members, batches, strict=True)], None, num)
    return repeatedly(lambda now: [run(*each) for each in zip(now, batches, strict=True)], members, num)


def ways(function: Callable[..., Any], members: int, shared: bool) -> dict[str, Callable[..., Any]]:
    """How a function can run over members."""

    def unrolled(carry: Any, batch: Any) -> Any:
        batches = [batch] * members if shared else nets.unstack(batch)
        return nets.stack([function(*each) for each in zip(nets.unstack(carry), batches, strict=True)])

    def scanned(carry: Any, batch: Any) -> Any:
        if shared:
            return jax.lax.map(lambda one: function(one, batch), carry)
        return jax.lax.map(lambda both: function(*both), (carry, batch))

    def repeated(carry: Any, batch: Any) -> Any:
        batch = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), batch)
        return jax.vmap(function)(carry, batch)

    found = {"vmap": jax.vmap(function, (0, None if shared else 0)), "unrolled": unrolled, "scan": scanned}
    return found | ({"vmap, batch repeated": repeated} if shared else {})


def torch(kind: str, batches: str, num: int, threads: int, *, vmapped: bool) -> Round:
    """Torch, by torch.func's tutorial or by a loop over modules."""
    import torch as th
    from torch.func import functional_call, grad, stack_module_state, vmap

    th.set_num_threads(threads)

    def make() -> Any:
        linears = [th.nn.Linear(*pair) for pair in itertools.pairwise(SIZES)]
        return th.nn.Sequential(linears[0], th.nn.ReLU(), linears[1], th.nn.ReLU(), linears[2])

    models, shared = [make() for _ in range(10)], batches == "shared"
    lead = () if shared else (10,)
    x, y = th.randn(*lead, BATCH, SIZES[0]), th.randint(0, 10, (*lead, BATCH))
    params, _ = stack_module_state(models)
    params = {name: leaf.detach() for name, leaf in params.items()}
    each = [{name: leaf.detach() for name, leaf in model.named_parameters()} for model in models]
    xs, ys = (x.expand(10, *x.shape), y.expand(10, *y.shape)) if shared else (x, y)
    axes = (0, None) if shared else (0, 0)

    def apply(params: Any, x: Any) -> Any:
        return functional_call(models[0], params, (x,))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return th.nn.functional.cross_entropy(apply(params, x), y)

    def descend(params: Any, traces: Any, grads: Any) -> None:
        for name, leaf in params.items():
            traces[name].mul_(MOMENTUM).add_(grads[name])
            leaf.sub_(RATE * traces[name])

    zeros = [{name: th.zeros_like(leaf) for name, leaf in tree.items()} for tree in [params, *each]]

    def once() -> None:
        if kind == "forward" and vmapped:
            vmap(apply, axes)(params, x)
        elif kind == "forward":
            for tree, own in zip(each, xs, strict=True):
                apply(tree, own)
        elif vmapped:
            descend(params, zeros[0], vmap(grad(loss), (*axes, axes[1]))(params, x, y))
        else:
            for tree, traces, own_x, own_y in zip(each, zeros[1:], xs, ys, strict=True):
                descend(tree, traces, grad(loss)(tree, own_x, own_y))

    def run() -> int:
        for _ in range(num):
            if kind == "forward":
                with th.no_grad():
                    once()
            else:
                once()
        return num

    return run


def cases(kind: str, batches: str) -> Mapping[str, Round]:
    """All that is compared."""
    net, members, batch = given(kind, batches)
    forward, shared, num = kind == "forward", batches == "shared", NUM_CALLS[kind]
    batches_of = [batch] * members if shared else nets.unstack(batch)

    def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
        return training.cross_entropy(net.apply(params, batch["x"]), batch["y"])

    tx = optim.sgd(RATE, momentum=MOMENTUM)
    function = (lambda params, batch: net.apply(params, batch["x"])) if forward else training.step(loss_fn, tx)
    keys = jax.random.split(jax.random.key(0), members)
    example = batches_of[0]["x"]
    carry = jax.vmap(lambda key: net.init(key, example))(keys)
    carry = carry if forward else jax.vmap(lambda params: training.init(params, tx))(carry)
    if forward:
        whole = nets.ensemble(net, members, in_axes=None if shared else 0)
        mine = lambda params, batch: whole.apply(params, batch["x"])  # noqa: E731
    else:
        mine = training.ensemble(function, members, batches=batches)  # pyright: ignore[reportArgumentType]
    run = functools.partial(compiled, carry=carry, batch=batch, num=num, forward=forward)
    found = {
        f"{members} calls": looped(function, carry, batches_of, num, forward=forward),
        "renga": run(mine),
        **{name: run(way) for name, way in ways(function, members, shared).items()},
    }
    if kind != "conv" and importlib.util.find_spec("torch"):
        for name, threads in (("1 thread", 1), ("all threads", os.cpu_count())):
            found[f"torch.func, vmap, {name}"] = apart(torch, kind, batches, num, threads, vmapped=True)
            found[f"torch, loop, {name}"] = apart(torch, kind, batches, num, threads, vmapped=False)
    return found


for _kind, _batches in itertools.product(NUM_CALLS, ("own", "shared")):
    _loop = "5 calls" if _kind == "conv" else "10 calls"
    _peers = tuple(f"torch.func, vmap, {threads}" for threads in ("1 thread", "all threads"))
    comparison(
        f"ensemble-{_kind}-{_batches}",
        f"an ensemble: {_kind}, {_batches} batch{'es' * (_batches == 'own')}",
        _loop,
        promises=() if _kind == "conv" else [Promise("renga", _peers, 0.7), Promise("renga", _loop, 1)],
    )(functools.partial(cases, _kind, _batches))

if __name__ == "__main__":
    main()
