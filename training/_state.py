"""What a training step carries from one batch to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """Everything that training carries: one pytree, to be scanned over, donated, saved.

    Attributes:
      params: the trained arrays.
      opt_state: the state of the chain.
      state: what the network carries between applications; None for a network that carries nothing.
      step: batches seen so far, `[]` of int32.
      key: the root key, never changed: step `t` gets `jax.random.fold_in(key, t)`. None if the loss needs no key.
    """

    params: Any
    opt_state: Any
    state: Any
    step: jax.Array
    key: jax.Array | None


def init(
    params: Any, tx: optax.GradientTransformation, *, state: Any = None, key: jax.Array | None = None
) -> TrainState:
    """The train state before the first step.

    Args:
      params: the arrays to train, from `net.init`.
      tx: the chain that will update them.
      state: the state of a stateful network, from its `init`.
      key: root of the keys that the loss is given, or None if it needs none.
    Returns:
      A `TrainState` at step 0.
    Raises:
      TypeError: if `tx` is no gradient transformation, or `params` is what a stateful network's `init` returns.

    >>> net = nets.linear(1)
    >>> train_state = init(net.init(jax.random.key(0), jnp.ones(3)), optim.sgd(0.1))
    >>> train_state.step.item()
    0
    """
    check_link("init", tx)
    if type(params) is tuple and len(params) == 2 and all(isinstance(part, dict) for part in params):
        raise TypeError(
            "init: expected params, got a pair of dicts, as a stateful network's init returns. "
            "Write params, state = net.init(key, x), and training.init(params, tx, state=state)."
        )
    return TrainState(params, tx.init(params), state, jnp.zeros((), jnp.int32), key)


def check_link(name: str, tx: object) -> None:
    """Refuses what is no gradient transformation, such as `optim.adam` that was not called.

    Raises:
      TypeError: naming the caller.
    """
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(f"{name}: expected tx to be a link such as optim.adam(1e-3), got {tx!r}")
