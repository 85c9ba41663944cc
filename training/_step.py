"""One training step: loss to gradient to update, as a pure function."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from .._call import recording
from ..optim import oracle
from ._returned import loss_metrics, parts
from ._state import TrainState, check_link

LossFn = Callable[..., Any]


@recording
def step(
    loss_fn: LossFn, tx: optax.GradientTransformation, *, has_aux: bool = False, stateful: bool = False
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """A training step from a loss and a chain.

    Every link of the chain is handed `value` and `grad` of the batch, `value_fn: params -> loss`, and
    `grad_fn: params -> grads`, all on the same batch, key and network state. Under Optax's masks and partitions
    a link's `value_fn` and `grad_fn` are functions of its own parameters; the others stay as they are.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar, or of a `game` a dict of scalars; with `has_aux`,
        `(loss, metrics)`; with `stateful`, `loss_fn(params, state, batch, key) -> (loss, (state, metrics))`.
        `metrics` is a dict. `key` is None if the train state has none.
      tx: the chain.
      has_aux: whether `loss_fn` returns metrics.
      stateful: whether `loss_fn` takes and returns the state of a network, and metrics with it.
    Returns:
      A pure function `(train_state, batch) -> (train_state, metrics)`. Its metrics are those of `loss_fn` and
      `loss`, of the parameters before the update; of a game, `loss/player` for each. It prints, compares, hashes and
      pickles as the call that made it.
    Raises:
      TypeError: if `tx` is no gradient transformation; when first called, if `loss_fn` does not return what its flags
        say.

    >>> net = nets.linear(1)
    >>> loss_fn = lambda params, batch, key: squared_error(net.apply(params, batch["x"]), batch["y"])
    >>> tx = optim.chain(optim.sam(0.05), optim.adam(1e-2))
    >>> batch = {"x": jnp.ones((8, 3)), "y": jnp.ones((8, 1))}
    >>> train_state = init(net.init(jax.random.key(0), batch["x"]), tx)
    >>> train_state, metrics = jax.jit(step(loss_fn, tx))(train_state, batch)
    >>> train_state.step.item(), sorted(metrics)
    (1, ['loss'])
    """
    check_link("step", tx)
    tx = optax.with_extra_args_support(tx)

    def one_step(train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        params, opt_state, state, count, key = train_state
        step_key = None if key is None else jax.random.fold_in(key, count)

        def full(params: Any) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
            args = (params, state, batch, step_key) if stateful else (params, batch, step_key)
            return parts("step", loss_fn(*args), state, has_aux=has_aux, stateful=stateful, games=True)

        found = oracle(full, params, has_aux=True)
        updates, opt_state = tx.update(found.grads, opt_state, params, **found.extra)
        value, (new_state, metrics) = found.value, found.aux
        params = optax.apply_updates(params, updates)
        return TrainState(params, opt_state, new_state, count + 1, key), loss_metrics(value) | metrics

    return one_step
