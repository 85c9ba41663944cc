"""Temporary memory of updates, as XLA plans it, in copies of the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from renga import optim
from renga.optim import clip_by_global_norm

pytestmark = pytest.mark.usefixtures("full_compiler")  # fusion is what is looked at

SHAPES = {f"w{i}": (1024, 1024) for i in range(5)} | {"b": (1024,)}
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
SIZE = sum(leaf.size * 4 for leaf in PARAMS.values())
SLACK = 0.02


def quadratic(params: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf - 1)) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def network(params: Any) -> jax.Array:
    x = jnp.ones((8, 1024))
    for index in range(5):
        x = jnp.tanh(x @ params[f"w{index}"] + params["b"])
    return jnp.mean(jnp.square(x))


def copies(tx: Any, loss_fn: Callable[[Any], jax.Array] | None = None, *, whole_step: bool = False) -> float:
    """Temporary memory of an update with donated parameters and state.

    Gradients are given to it; of a whole step they are found in it, and are part of what is counted.
    """
    grad_fn = None if loss_fn is None else jax.grad(loss_fn)

    def step(params: Any, state: Any, grads: Any = None) -> Any:
        grads = grad_fn(params) if whole_step and grad_fn else grads
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    given = (PARAMS, jax.eval_shape(tx.init, PARAMS)) + (() if whole_step else (PARAMS,))
    analysis: Any = jax.jit(step, donate_argnums=(0, 1)).lower(*given).compile().memory_analysis()
    assert analysis.alias_size_in_bytes >= 0.999 * analysis.output_size_in_bytes  # every output is written in place
    return analysis.temp_size_in_bytes / SIZE


BUDGETS: dict[str, tuple[Callable[[], Any], float]] = {
    "adam": (lambda: optim.adam(1e-3), 0),
    "clip and adamw": (lambda: optim.chain(clip_by_global_norm(1.0), optim.adamw(1e-3)), 0),
    "skip_not_finite": (lambda: optim.skip_not_finite(optim.adam(1e-3)), 0),
    "skip_not_finite of a chain": (
        lambda: optim.skip_not_finite(optim.chain(clip_by_global_norm(1.0), optim.adamw(1e-3)), most_in_a_row=3),
        0,
    ),
    "ema_params": (lambda: optim.chain(optim.adam(1e-3), optim.ema_params()), 0),
    "average_params": (lambda: optim.chain(optim.adam(1e-3), optim.average_params(start=5)), 0),
    "lookahead": (lambda: optim.lookahead(optim.adam(1e-3), 5), 0),
    "accumulate": (lambda: optim.accumulate(optim.adam(1e-3), 4), 1),
    "accumulate, clip and adamw": (
        lambda: optim.accumulate(optim.chain(clip_by_global_norm(1.0), optim.adamw(1e-3)), 4),
        1,
    ),
    "optimistic_gradient": (lambda: optim.optimistic_gradient(0.1), 1),
    "low_bit in 16": (lambda: optim.low_bit(optim.adam(1e-3), 16, key=0), 1),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_an_update_takes_no_more_than(name: str):
    make, budget = BUDGETS[name]
    assert copies(make()) <= budget + SLACK


def test_optaxs_own_take_more():
    assert copies(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))) > 0.9
    steps = optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation()
    assert copies(optax.with_extra_args_support(steps)) > 2.9


def test_accumulate_holds_one_buffer():
    held = jax.tree.leaves(jax.eval_shape(optim.accumulate(optim.sgd(0.1), 4).init, PARAMS))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in held) <= SIZE + 8


@pytest.mark.parametrize("loss_fn", [quadratic, network])
@pytest.mark.parametrize("base", [optim.sgd(1e-3), optim.sgd(1e-3, momentum=0.9), optim.adam(1e-3)])
@pytest.mark.parametrize("link", ["sam", "extragradient"])
def test_a_second_gradient_takes_one_copy_for_the_point_it_is_found_at(link: str, base: Any, loss_fn: Any):
    tx = optim.extragradient(base) if link == "extragradient" else optim.chain(optim.sam(0.05), base)
    assert copies(tx, loss_fn) <= 1 + SLACK


@pytest.mark.parametrize("base", [optim.sgd(1e-3), optim.adam(1e-3)])
def test_sam_holds_no_gradients_beside_the_point(base: Any):
    assert copies(optim.chain(optim.sam(0.05), base), network, whole_step=True) <= 1 + SLACK


def test_extragradient_holds_the_first_gradients_where_its_base_needs_them_twice():
    assert copies(optim.extragradient(optim.sgd(1e-3)), network, whole_step=True) <= 1 + SLACK
    assert copies(optim.extragradient(optim.adam(1e-3)), network, whole_step=True) <= 2 + SLACK
