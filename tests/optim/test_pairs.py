"""Every link in every wrapper, Optax's and ours, steps as it does alone; gradients go through all of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim

from .registry import LINKS
from .test_laws import BATCH, OURS, PARAMS, calls_in, loss_fn, step_with, two_steps
from .trees import assert_close, types

# Wrappers that change nothing by themselves, so that what is in them is to step as it does alone.
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda tx: optim.chain(tx),
    "named chain": lambda tx: optim.chain(optim.identity(), base=tx),
    "masked": lambda tx: optim.masked(tx, "**"),
    "partition": lambda tx: optim.partition({"all": tx, "none": optim.sgd(0.1)}, {"**": "all"}),
    "skip_not_finite": lambda tx: optim.skip_not_finite(tx),
    "differentiable": lambda tx: optim.differentiable(tx),
    "accumulate": lambda tx: optim.accumulate(tx, 1),
    "low_bit": lambda tx: optim.low_bit(tx, key=0),
    "lookahead": lambda tx: optim.lookahead(tx, 5),
    "optax.chain": lambda tx: optax.chain(tx),
    "optax.named_chain": lambda tx: optax.named_chain(("one", optax.identity()), ("base", tx)),
    "optax.masked": lambda tx: optax.masked(tx, True),
    "optax.partition": lambda tx: optax.partition({"all": tx}, "all"),
    "optax.apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "optax.conditionally_mask": lambda tx: optax.conditionally_mask(
        tx, lambda step, **_: True, forward_extra_args=True
    ),
    "optax.MultiSteps": lambda tx: _forwarding(optax.MultiSteps(tx, 1)),
}
REFUSED = {"accumulate"}  # what looks elsewhere would see the last micro-batch alone
OWN = [name for name, build in LINKS.items() if calls_in(build()) & (OURS - {"chain", "plain_sgd"})]
ALONE = [name for name in OWN if " with " not in name and " from " not in name and "chain" not in name]


def _forwarding(steps: optax.MultiSteps) -> optax.GradientTransformationExtraArgs:
    update: Any = steps.update
    return optax.GradientTransformationExtraArgs(steps.init, update)


@functools.cache
def alone(name: str) -> Any:
    return two_steps(LINKS[name]())[-1].params


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_link_in_a_wrapper_steps_as_it_does_alone(wrapper: str, name: str):
    tx = LINKS[name]()
    if wrapper in REFUSED and tx.evaluates_gradient:
        with pytest.raises(ValueError, match="expected tx without links that evaluate gradients"):
            WRAPPERS[wrapper](tx)
        return
    if wrapper == "low_bit" and "low_bit" in name:
        with pytest.raises(ValueError, match="expected tx without low_bit inside"):
            WRAPPERS[wrapper](tx)
        return
    wrapped = WRAPPERS[wrapper](tx)
    assert_close(two_steps(wrapped, step=step_with(wrapped, tx))[-1].params, alone(name))


def exotic() -> optax.GradientTransformation:
    """A link whose state has a leaf of every kind."""

    def init(params: Any) -> dict[str, Any]:
        return {
            "flag": jnp.asarray(False),
            "count": jnp.zeros((), jnp.int32),
            "byte": jnp.zeros(3, jnp.uint8),
            "key": jax.random.key(3),
            "nothing": None,
            "hole": optax.MaskedNode(),
            "half": jnp.zeros(2, jnp.bfloat16),
            "empty": (),
        }

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        moved = {"flag": ~state["flag"], "count": state["count"] + 1, "key": jax.random.split(state["key"])[0]}
        return jax.tree.map(lambda g: -0.1 * g, updates), {**state, **moved, "half": state["half"] + 1}

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("wrapper", [name for name in WRAPPERS if "." not in name])
def test_states_of_every_kind_keep_their_types_under_scan_cond_and_vmap(wrapper: str):
    tx = WRAPPERS[wrapper](exotic())
    params = {"w": jnp.ones(3), "b": jnp.ones((), jnp.bfloat16)}
    state = tx.init(params)

    def step(state: Any, scale: jax.Array) -> Any:
        grads = jax.tree.map(lambda p: (scale * p).astype(p.dtype), params)
        new = lax.cond(scale > 0.5, lambda: tx.update(grads, state, params)[1], lambda: state)
        return new, tx.update(grads, new, params)[0]

    last, _ = lax.scan(step, state, jnp.array([1.0, 0.0, 1.0]))
    assert types(last) == types(state)
    rows = jax.vmap(lambda scale: step(state, scale)[0])(jnp.array([1.0, 0.0]))
    assert types(jax.tree.map(lambda leaf: leaf[1], rows)) == types(state)


NO_DERIVATIVE = {
    "low_bit": "codes are steps",
    "low_bit of 16": "so are the digits of bfloat16",
    "soap": "the bases are refreshed without one",
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("zero", [False, True])
def test_gradients_through_twenty_steps_equal_finite_differences(name: str, zero: bool):
    if name in NO_DERIVATIVE:
        pytest.skip(NO_DERIVATIVE[name])
    tx = optim.differentiable(LINKS[name]())
    start, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (PARAMS, BATCH))
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape), start)

    def loss(params: Any, scale: Any) -> Any:
        value = loss_fn(params, batch, None) * (0.0 if zero else 1.0) + 0.0 * scale
        return dict.fromkeys(params, value) if calls_in(tx) & {"lola", "sos"} else value

    @jax.jit
    def after(t: jax.Array) -> jax.Array:
        params = jax.tree.map(lambda p, v: p + t * v, start, along)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            found = optim.oracle(lambda params: loss(params, t), params)
            updates, state = tx.update(found.grads, state, params, **found.extra)
            return (jax.tree.map(lambda p, u: p + 0.01 * u, params, updates), state), None

        (params, _), _ = lax.scan(step, (params, tx.init(params)), None, 20)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(params))  # pyright: ignore[reportReturnType]

    found, small = jax.jit(jax.grad(after))(0.0), 1e-6
    expected = (after(jnp.asarray(small)) - after(jnp.asarray(-small))) / (2 * small)
    assert np.isfinite(found)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
