"""A train step of one loss in each library, as its documentation writes it: forward, backward, Adam; and gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from runner import Round

ADAM = optax.adam(1e-3)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over all leading axes."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def passes(apply: Callable[..., Any], params: Any, num: int, options: Mapping[str, Any] | None = None) -> Round:
    """A round of gradients of the mean square of `apply(params)`; `options` are the compiler's."""
    grad = jax.jit(jax.grad(lambda params: jnp.mean(jnp.square(apply(params)))), compiler_options=dict(options or {}))

    def run() -> int:
        grads = None
        for _ in range(num):
            grads = grad(params)
        jax.block_until_ready(grads)
        return num

    return run


def jax_step(
    loss: Callable[..., jax.Array],
    params: Any,
    *batch: jax.Array,
    num_steps: int = 3,
    options: Mapping[str, Any] | None = None,
) -> Round:
    """Parameters in a pytree: renga, Haiku, Flax linen, plain JAX; `options` are the compiler's."""

    def step(params: Any, opt_state: Any, *batch: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, *batch)
        updates, opt_state = ADAM.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    jitted = jax.jit(step, donate_argnums=(0, 1), compiler_options=dict(options or {}))
    carry = [params, ADAM.init(params)]

    def run() -> int:
        value = None
        for _ in range(num_steps):
            carry[0], carry[1], value = jitted(*carry, *batch)
        jax.block_until_ready((carry, value))
        return num_steps

    return run


def equinox_step(loss: Callable[..., jax.Array], model: Any, *batch: jax.Array, num_steps: int = 3) -> Round:
    """Parameters in the module, `filter_jit`."""
    import equinox as eqx

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: tuple, model: Any, opt_state: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = eqx.filter_value_and_grad(loss)(model, *batch)
        updates, opt_state = ADAM.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, value

    carry = [model, ADAM.init(eqx.filter(model, eqx.is_array))]

    def run() -> int:
        value = None
        for _ in range(num_steps):
            carry[0], carry[1], value = step(batch, *carry)
        jax.block_until_ready((eqx.filter(carry, eqx.is_array), value))
        return num_steps

    return run


def torch_step(loss: Callable[..., Any], module: Any, *batch: Any, num_steps: int = 3) -> Round:
    """A module and torch's fused Adam; `loss(*batch)` may be compiled."""
    import torch

    adam = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def run() -> int:
        for _ in range(num_steps):
            adam.zero_grad()
            loss(*batch).backward()
            adam.step()
        return num_steps

    return run
