"""What wrappers do to a link, as plain loops over it: `loop(alone)` yields the parameters after each batch."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from renga import optim

from .test_laws import OF_PLAYERS, calls_in, loss_fn

gradient = jax.jit(jax.grad(lambda params, batch: loss_fn(params, batch, None)))
add: Any = optax.apply_updates
# Small programs compile in a sixth of the time without XLA's fusion emitters, and in one piece.
QUICKLY: Any = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


class Alone(NamedTuple):
    """A link to be stepped by hand, where its parameters begin, and the batches, an even number of them."""

    tx: Any
    params: Any
    batches: Any

    @property
    def start(self) -> tuple[Any, Any]:
        return self.params, self.tx.init(self.params)

    def updates(self, state: Any, params: Any, batch: Any, grads: Any = None) -> Any:
        grads = gradient(params, batch) if grads is None else grads
        return update_of(self.tx, bool(calls_in(self.tx) & OF_PLAYERS))(grads, state, params, batch)


Loop = Callable[[Alone], Iterator[Any]]


@functools.lru_cache(64)
def update_of(tx: Any, players: bool) -> Callable[..., Any]:
    """`update(grads, state, params, batch)` of a link, compiled, with the oracle of the batch."""

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def update(grads: Any, state: Any, params: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            value = loss_fn(params, batch, None)
            return dict.fromkeys(params, value) if players else value

        return tx.update(grads, state, params, **optim.oracle(loss, params).extra)

    return update


def steps(*factors: float | None) -> Loop:
    """The link's steps, each times a factor; where that is None, the batch is as if it had not been."""

    def loop(alone: Alone) -> Iterator[Any]:
        params, state = alone.start
        for batch, factor in zip(alone.batches, factors, strict=True):
            if factor is not None:
                updates, state = alone.updates(state, params, batch)
                params = add(params, optax.tree.scale(factor, updates))
            yield params

    return loop


def in_pairs(alone: Alone) -> Iterator[Any]:
    """A step for every second batch, with the mean gradient of two; what looks elsewhere sees the second."""
    params, state = alone.start
    for first, second in zip(alone.batches[::2], alone.batches[1::2], strict=True):
        yield params
        grads = between(gradient(params, first), gradient(params, second), 0.5)
        updates, state = alone.updates(state, params, second, grads)
        params = add(params, updates)
        yield params


def then_in_pairs(alone: Alone) -> Iterator[Any]:
    """The link's updates for every batch, and a step of descent along the mean of every two."""
    params, state = alone.start
    for first, second in zip(alone.batches[::2], alone.batches[1::2], strict=True):
        yield params
        one, state = alone.updates(state, params, first)
        other, state = alone.updates(state, params, second)
        params = add(params, optax.tree.scale(-0.1, between(one, other, 0.5)))
        yield params


def going_back(alone: Alone) -> Iterator[Any]:
    """After every second step, three tenths of the way from where the two began."""
    params, state = alone.start
    slow = params
    for index, batch in enumerate(alone.batches):
        updates, state = alone.updates(state, params, batch)
        params = add(params, updates)
        if index % 2:
            slow = params = between(slow, params, 0.3)
        yield params


def beside_c(alone: Alone) -> Iterator[Any]:
    """The link over its own parameters, in a loss whose `c` is at each step where descent has led it."""
    (params, state), c = alone.start, alone.batches[0]["c"]
    for batch in alone.batches:
        now = batch | {"c": c}
        updates, state = alone.updates(state, params, now)
        c = c - 0.1 * gradient(params | {"c": c}, now)["c"]
        params = add(params, updates)
        yield params | {"c": c}


def with_averages(alone: Alone) -> Iterator[Any]:
    """The link's steps, the moving average of those so far in which the newest has a half, and their mean."""
    seen: list[Any] = []
    for params in steps(1, 1, 1, 1)(alone):
        seen.append(params)
        shares = 0.5 ** np.arange(len(seen), 0, -1)
        yield params, weighted(shares / shares.sum(), seen), weighted(np.full(len(seen), 1 / len(seen)), seen)


def halved_after_two(alone: Alone) -> Iterator[Any]:
    """The link's steps; from the third on those of a link whose numbers are half as large."""
    params, state = alone.start
    for index, batch in enumerate(alone.batches):
        link = alone if index < 2 else alone._replace(tx=halved(alone.tx))
        updates, state = link.updates(state, params, batch)
        params = add(params, updates)
        yield params


def between(first: Any, second: Any, share: float) -> Any:
    """A share of the way from one tree to another."""
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, first, second)


def weighted(shares: np.ndarray, trees: list[Any]) -> Any:
    """A weighted sum of trees, in their dtypes."""
    return jax.tree.map(lambda *leaves: np.tensordot(shares.astype(leaves[0].dtype), np.stack(leaves), 1), *trees)


def halved(value: Any) -> Any:
    """The same call with half of each float in it, defaults too."""
    if isinstance(value, float):
        return value / 2
    if isinstance(value, dict):
        return {name: halved(item) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(halved, value))
    call = getattr(value, "call", None)
    if call is None:
        return value
    bound = inspect.signature(call.function).bind(*call.args, **call.kwargs)
    bound.apply_defaults()
    bound.arguments.update(halved(dict(bound.arguments)))
    return call.function(*bound.args, **bound.kwargs)
