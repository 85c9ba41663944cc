"""The gradient of a large batch, taken in parts, one after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ._checks import check_count, path_of
from ._convolutions import is_slow_in_loops
from ._estimated import with_gradient
from ._returned import in_form, whole_form

LossFn = Callable[..., Any]


@recording
def microbatch(loss_fn: LossFn, num_parts: int, *, has_aux: bool = False, stateful: bool = False) -> LossFn:
    """A loss over a large batch, of which only a part is in memory at a time.

    Value, gradient and metrics are means over the parts, summed in a scan in float32 at least: for a loss that is a
    mean over examples they are those of the whole batch. Losses that weigh examples by how many are real, or that
    compare examples of a batch, are means over the parts as well. The state of a network goes from part to part.

    `optim.accumulate` does the same over several batches of a loop; this needs no buffer in the state, and links that
    ask for gradients elsewhere are answered for the whole batch.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar, in one of the forms that `step` takes. Each part has a
        key of its own.
      num_parts: how many; it divides the leading axis of every array of the batch. Part `i` holds the examples `i`,
        `i + num_parts`, and so on, so that devices that share a batch share each part.
      has_aux: whether `loss_fn` returns metrics.
      stateful: whether `loss_fn` takes and returns the state of a network, and metrics with it.
    Returns:
      A loss of the form of `loss_fn`, differentiable in `params`, by reverse mode. It prints, compares and hashes as
      the call that made it.
    Raises:
      ValueError: if `num_parts` is below 1; when called, if a batch cannot be divided so.
      TypeError: when called, if the loss is no scalar.

    >>> loss_fn = lambda w, x, key: jnp.mean((w - x) ** 2)
    >>> x = jnp.arange(6.0)
    >>> jax.grad(microbatch(loss_fn, 3))(1.0, x).item(), jax.grad(loss_fn)(1.0, x, None).item()
    (-3.0, -3.0)
    """
    check_count("microbatch", "num_parts", num_parts, at_least=1)
    whole = whole_form("microbatch", loss_fn, has_aux, stateful)

    def value_and_grad(params: Any, given: tuple[Any, Any], key: jax.Array | None) -> tuple[Any, Any]:
        state, batch = given
        parts = jax.tree_util.tree_map_with_path(lambda path, leaf: _in_parts(path, leaf, num_parts), batch)

        def add(carry: tuple[Any, Any], numbered: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
            (state, total), (number, part) = carry, numbered
            own_key = None if key is None else jax.random.fold_in(key, number)
            (loss, (state, metrics)), grads = jax.value_and_grad(whole, has_aux=True)(params, state, part, own_key)
            return (state, jax.tree.map(lambda held, grad: held + grad, total, grads)), (loss, metrics)

        begin = state, jax.tree.map(lambda leaf: jnp.zeros_like(leaf, _wide(leaf)), params)
        unroll = num_parts if _is_slow_in_a_loop(add, begin, (0, jax.tree.map(lambda leaf: leaf[0], parts))) else 1
        (state, total), found = lax.scan(add, begin, (jnp.arange(num_parts), parts), unroll=unroll)
        loss, metrics = jax.tree.map(lambda leaf: jnp.mean(leaf, 0, dtype=_wide(leaf)).astype(_inexact(leaf)), found)
        return (loss, (state, metrics)), jax.tree.map(lambda leaf: leaf / num_parts, total)

    with_own_gradient = with_gradient(value_and_grad, has_aux=True)

    def loss(params: Any, state: Any, batch: Any, key: jax.Array | None = None) -> Any:
        return with_own_gradient(params, (state, batch), key)

    return in_form(loss, has_aux, stateful)


def _in_parts(path: Any, leaf: Any, num_parts: int) -> Any:
    shape = jnp.shape(leaf)
    if not shape or shape[0] % num_parts:
        raise ValueError(
            f"microbatch: expected arrays whose leading axis {num_parts} divides, got shape {shape} at "
            f"{path_of(path) or 'the root'} of the batch. Give batches of a multiple of {num_parts} examples."
        )
    return jnp.swapaxes(jnp.reshape(leaf, (shape[0] // num_parts, num_parts, *shape[1:])), 0, 1)


def _is_slow_in_a_loop(function: Callable[..., Any], *args: Any) -> bool:
    if jax.default_backend() != "cpu":
        return False
    return is_slow_in_loops(jax.make_jaxpr(function)(*args).jaxpr)


def _wide(leaf: Any) -> Any:
    return jnp.promote_types(jnp.result_type(leaf), jnp.float32)


def _inexact(leaf: jax.Array) -> Any:
    return leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else _wide(leaf)
