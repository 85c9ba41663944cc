"""What a loss function returned, in one form whatever its flags."""

from typing import Any

import jax
import jax.numpy as jnp


def parts(name: str, result: Any, state: Any, *, has_aux: bool, stateful: bool) -> tuple[jax.Array, tuple[Any, dict]]:
    """What a loss returned, as `(loss, (state, metrics))`.

    Args:
      name: who asks, as the error begins.
      result: what the loss returned.
      state: what went in; it comes back where the loss has none.
      has_aux: whether metrics are expected.
      stateful: whether state and metrics are expected.
    Raises:
      TypeError: if the result is not of this form, or the loss no scalar.
    """
    loss, metrics = result, {}
    if stateful:
        if not (_is_pair(result) and _is_pair(result[1])):
            raise TypeError(
                f"{name}: expected loss_fn to return (loss, (state, metrics)) with stateful=True, {_got(result)}"
            )
        loss, (state, metrics) = result
    elif has_aux:
        if not _is_pair(result):
            raise TypeError(f"{name}: expected loss_fn to return (loss, metrics) with has_aux=True, {_got(result)}")
        loss, metrics = result
    elif not jax.tree_util.all_leaves([result]):
        raise TypeError(
            f"{name}: expected loss_fn to return a scalar, {_got(result)}. Give has_aux=True or stateful=True."
        )
    if jnp.shape(loss) != ():
        raise TypeError(
            f"{name}: expected loss_fn to return a scalar loss, got shape {jnp.shape(loss)}. Take its mean."
        )
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise TypeError(f"{name}: expected metrics to be a dict without the name 'loss', got {metrics!r}")
    return loss, (state, metrics)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _got(result: Any) -> str:
    return f"got {jax.tree.map(jnp.shape, result)!r} (shapes)"
