"""No transform leaves a tracer behind: for every network of the registry."""

import functools
import gc
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from renga import nets

from .kit import KEY, variables
from .made import flags, loss_of, marks, split
from .registry import NETS


@pytest.fixture(scope="module")
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quick_collector(_thawed: None) -> None:
    """A check for leaks collects garbage often; what was there before a test cannot be a tracer of its own."""
    gc.collect()
    gc.freeze()


def everything(net: nets.Net, fixed: dict[str, Any], in_axis: int, inputs: tuple, arrays: dict[str, Any]) -> Any:
    """What `init` makes, and `apply` by example, and in training under transforms of transforms."""
    params, *state = jax.jit(functools.partial(variables, net, **fixed))(KEY, *inputs, **arrays)
    floats, merge = split(inputs)

    @jax.checkpoint
    @jax.jit
    def loss(params: Any, floats: list) -> jax.Array:
        return loss_of(net.apply(params, *state, *merge(floats), key=KEY, train=True, **arrays, **fixed))

    def step(params: Any, _: None) -> tuple[Any, list]:
        grads, of_inputs = jax.grad(loss, (0, 1))(params, floats)
        return jax.tree.map(jnp.subtract, params, grads), of_inputs

    @jax.jit
    def of_example(inputs: tuple, arrays: dict[str, Any]) -> Any:
        return net.apply(params, *state, *inputs, **arrays, **fixed)

    axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, arrays)
    return jax.vmap(of_example, (in_axis, axes))(inputs, arrays), lax.scan(step, params, length=2)


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETS])
def test_no_transform_leaves_a_tracer_behind(name: str):
    case = NETS[name]
    fixed = flags(dict(case.keywords))
    arrays = {name: value for name, value in case.keywords.items() if name not in fixed}
    with jax.checking_leaks():
        jax.eval_shape(functools.partial(everything, case.build(), fixed, case.in_axis), case.inputs, arrays)


def test_a_tracer_left_behind_is_found():
    kept = []

    def apply(params: dict, x: jax.Array) -> jax.Array:
        kept.append(2 * x)
        return x

    with jax.checking_leaks(), pytest.raises(Exception, match="Leaked"):
        jax.eval_shape(functools.partial(everything, nets.Net(None, apply), {}, 0), (jnp.ones((2, 3)),), {})
    kept.clear()
