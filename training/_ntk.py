"""The empirical neural tangent kernel."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ..nets._flops import costs
from ._automatic import in_automatic_axes
from ._jacobian import jacobian, size_of

Apply = Callable[[Any, jax.Array], jax.Array]


@recording
def ntk(apply: Apply, *, method: Literal["auto", "contraction", "products"] = "auto") -> Callable[..., jax.Array]:
    """The empirical neural tangent kernel: products of the Jacobians of outputs with respect to the parameters.

    "contraction" writes both Jacobians out and multiplies them. "products" pulls each output of the second inputs back
    to the parameters and pushes it forward to all outputs of the first: it holds no Jacobian but those of one input,
    and takes fewer operations where a forward pass is cheap beside `outputs * parameters`. By default the operations
    are counted.

    Source: Novak, Sohl-Dickstein, Schoenholz 2022, https://arxiv.org/abs/2206.08720, sections 3.1 and 3.2.

    Args:
      apply: `apply(params, x) -> outputs`, from `[inputs, ...]` to `[inputs, *outputs]`, each input for itself.
      method: "contraction", "products", or "auto" for the cheaper.
    Returns:
      `(params, x1, x2=None) -> kernel`, `[inputs1, inputs2, *outputs, *outputs]`; `x2` is `x1` unless given. It prints,
      compares and hashes as the call that made it.
    Raises:
      ValueError: for another method; when called, if `apply` does not keep the axis of inputs.

    >>> net = nets.linear(1)
    >>> x = jnp.array([[1.0], [2.0]])
    >>> ntk(net.apply)(net.init(jax.random.key(0), x), x)[..., 0, 0].tolist()
    [[2.0, 3.0], [3.0, 5.0]]
    """
    if method not in ("auto", "contraction", "products"):
        raise ValueError(f"ntk: expected method to be 'auto', 'contraction' or 'products', got {method!r}.")

    @in_automatic_axes
    def kernel(params: Any, x1: jax.Array, x2: jax.Array | None = None) -> jax.Array:
        shape = _output_shape(apply, params, x1)
        chosen = _cheaper(apply, params, x1, x1 if x2 is None else x2) if method == "auto" else method
        found = (_contraction if chosen == "contraction" else _products)(apply, params, x1, x2)
        return jnp.swapaxes(found, 1, 2).reshape(found.shape[0], found.shape[2], *shape, *shape)

    return kernel


def _contraction(apply: Apply, params: Any, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """The kernel `[inputs1, outputs, inputs2, outputs]`."""

    def rows(x: jax.Array) -> list[jax.Array]:
        found = jax.vmap(lambda one: jacobian(lambda params: _alone(apply, params, one))(params))(x)
        return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(found)]

    first = rows(x1)
    second = first if x2 is None else rows(x2)
    return sum(jnp.tensordot(a, b, (2, 2)) for a, b in zip(first, second, strict=True))  # pyright: ignore[reportReturnType]


def _products(apply: Apply, params: Any, x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """The kernel `[inputs1, outputs, inputs2, outputs]`."""
    outputs, push = jax.linearize(lambda params: apply(params, x1), params)
    units = jnp.eye(math.prod(outputs.shape[1:]), dtype=outputs.dtype)

    def column(one: jax.Array) -> jax.Array:
        pull = jax.vjp(lambda params: _alone(apply, params, one), params)[1]
        return jax.vmap(lambda unit: push(*pull(unit)))(units)

    columns = lax.map(column, x1 if x2 is None else x2)
    return jnp.moveaxis(columns.reshape(*columns.shape[:2], len(outputs), -1), (0, 1), (2, 3))


def _cheaper(apply: Apply, params: Any, x1: jax.Array, x2: jax.Array) -> str:
    """The method of fewer operations, a backward pass counted as two forward ones."""
    num1, num2 = len(x1), len(x2)
    one = jax.eval_shape(lambda x: x[0], x1)
    traced = jax.make_jaxpr(lambda params, one: _alone(apply, params, one))(params, one)
    forward = sum(count for _, count in costs(traced.jaxpr))
    num_outputs = math.prod(traced.out_avals[0].shape)
    contraction = 2 * num1 * num2 * num_outputs**2 * size_of(params) + 2 * (num1 + num2) * num_outputs * forward
    products = num2 * num_outputs * (num1 + 2) * forward
    return "contraction" if contraction <= products else "products"


def _alone(apply: Apply, params: Any, one: jax.Array) -> jax.Array:
    return apply(params, one[None])[0].reshape(-1)


def _output_shape(apply: Apply, params: Any, x: jax.Array) -> tuple[int, ...]:
    shape = jax.eval_shape(apply, params, x).shape
    if shape[:1] != x.shape[:1]:
        raise ValueError(
            f"ntk: expected apply to return [{len(x)}, ...] for inputs [{len(x)}, ...], got {shape}. "
            "Keep the axis of inputs in front."
        )
    return shape[1:]
