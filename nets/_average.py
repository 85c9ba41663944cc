"""Moving averages as networks."""

from typing import Any

import jax
import jax.numpy as jnp

from ._check import check_arrays, dtype_for
from ._errors import ShapeError, shape_of
from ._net import StatefulNet, layer


@layer
def ema(decay: float, *, debias: bool = True) -> StatefulNet:
    """An exponential moving average of the input over the steps of training.

    In training the input moves the average, `new = decay * old + (1 - decay) * x` from zero on, and the new
    one is returned. Otherwise the average is returned as it is, and the input only says its dtype. Without
    bias it is divided by the sum of the weights of all inputs so far, `1 - decay ** steps`; before the first
    step it is zero. Gradients reach the input of the present step.

    Source: Kingma, Ba 2015, https://arxiv.org/abs/1412.6980, section 3, for the division.

    Args:
      decay: the share of the average that is kept at each step, in [0, 1).
      debias: whether the average is without bias towards zero.
    Returns:
      A stateful net from an array, or a pytree of them such as parameters, to the same, without params; state
      `{"average": float32 as the input, "weight": []}`.
    Raises:
      ShapeError: if the input has not the structure and shapes that the state was made for.

    >>> net = nets.ema(0.9)
    >>> _, state = net.init(jax.random.key(0), 0.0)
    >>> for x in (1.0, 3.0):
    ...     y, state = net.apply({}, state, x, train=True)
    >>> round(y.item(), 4), round(state["average"].item(), 4)
    (2.0526, 0.39)
    """
    check_decay("ema", decay)

    def init(key: jax.Array, x: Any) -> tuple[dict, dict]:
        average = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), x)
        return {}, {"average": average, "weight": jnp.zeros((), jnp.float32)}

    def apply(params: dict, state: dict, x: Any, *, train: bool) -> tuple[Any, dict]:
        x = jax.tree.map(jnp.asarray, x)
        check_arrays(params, {})
        _check_state(state, x)
        state = moved(state, x, decay) if train else state
        average = debiased(state) if debias else state["average"]
        return jax.tree.map(lambda leaf, x: leaf.astype(dtype_for(x)), average, x), state

    return StatefulNet(init, apply)


def moved(state: dict, x: Any, decay: float) -> dict:
    """The state of an average one step later."""
    new = {"average": x, "weight": jnp.ones_like(state["weight"])}
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new.astype(old.dtype), state, new)


def debiased(state: dict) -> Any:
    """The average without bias; zero before the first step.

    The weights of what is in it are summed as it was, so that the average of a constant is that constant.
    """
    weight = jnp.where(state["weight"] > 0, state["weight"], 1)
    return jax.tree.map(lambda leaf: leaf / weight, state["average"])


def check_decay(name: str, decay: float) -> None:
    """Refuses a share outside [0, 1).

    Raises:
      ValueError: naming the layer.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"{name}: expected decay in [0, 1), got {decay!r}")


def _check_state(state: Any, x: Any) -> None:
    named = isinstance(state, dict) and set(state) == {"average", "weight"}
    if not named or getattr(state["weight"], "shape", None) != ():
        remedy = "Make them with this network's own init(key, x)."
        raise ShapeError("state average and weight []", shape_of(state), remedy)
    average = state["average"]
    if jax.tree.map(jnp.shape, average) != jax.tree.map(jnp.shape, x):
        raise ShapeError(f"an input like the average, {shape_of(average)}", shape_of(x))
