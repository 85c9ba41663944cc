"""Every wrapper, Optax's and ours, set to do what it is for, with the loop that does it by hand."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from renga import optim

from . import by_hand
from .by_hand import Loop, steps
from .test_laws import BATCH, HIDDEN, SHOWN

BATCHES = [BATCH | {"y": BATCH["y"] + shift} for shift in (0.0, 0.3, -0.2, 0.1)]
WITH_NAN = [BATCHES[0], BATCHES[1] | {"y": jnp.nan * BATCH["y"]}, *BATCHES[2:]]


class Pair(NamedTuple):
    """A wrapper, and the loop that does by hand what it does.

    Attributes:
      wrap: makes a link of a link.
      loop: over the link alone.
      batches: of the wrapped link.
      with_c: whether it has a parameter `c`, which the link does not see.
      look: what is compared with what the loop yields, of the parameters and the state.
    """

    wrap: Callable[[Any], Any]
    loop: Loop
    batches: Any = BATCHES
    with_c: bool = False
    look: Callable[[Any, Any], Any] = lambda params, state: params


def set_to_halves(tx: Any) -> optax.GradientTransformationExtraArgs:
    """`inject_hyperparams`, whose numbers are halved after the second step."""
    injected = optim.inject_hyperparams(tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates, state = injected.update(updates, state, params, **extra)
        factor = jnp.where(state.step == 2, 0.5, 1.0)
        return updates, optim.set_hyperparams(state, optax.tree.scale(factor, state.hyperparams))

    return optax.GradientTransformationExtraArgs(injected.init, update)


def optaxs_lookahead(tx: Any) -> optax.GradientTransformationExtraArgs:
    """Optax's, whose parameters are pairs: the slow ones are kept in the state."""
    pair = optax.lookahead(tx, 2, 0.3)

    def init(params: Any) -> Any:
        return pair.init(optax.LookaheadParams.init_synced(params)), params

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        moved: Any
        moved, after = pair.update(updates, state[0], optax.LookaheadParams(params, state[1]))
        return moved.fast, (after, by_hand.add(state[1], moved.slow))

    return optax.GradientTransformationExtraArgs(init, update)


def multi_steps(tx: Any) -> optax.GradientTransformationExtraArgs:
    made = optax.MultiSteps(tx, 2, accumulator_dtype=float)
    update: Any = made.update
    return optax.GradientTransformationExtraArgs(made.init, update)


once, half = steps(1, 1, 1, 1), steps(0.5, 0.5, 0.5, 0.5)
WRAPPERS: dict[str, Pair] = {
    "chain": Pair(lambda tx: optim.chain(tx, optim.scale(0.5)), half),
    "named chain": Pair(lambda tx: optim.chain(base=tx, half=optim.scale(0.5)), half),
    "masked": Pair(
        lambda tx: optim.chain(optim.masked(tx, ["b", "w"]), optim.masked(optim.sgd(0.1), "c")),
        by_hand.beside_c,
        with_c=True,
    ),
    "partition": Pair(
        lambda tx: optim.partition({"own": tx, "rest": optim.sgd(0.1)}, {"c": "rest", "**": "own"}),
        by_hand.beside_c,
        with_c=True,
    ),
    "skip_not_finite": Pair(lambda tx: optim.skip_not_finite(tx), steps(1, None, 1, 1), WITH_NAN),
    "differentiable": Pair(lambda tx: optim.differentiable(tx), once),
    "accumulate": Pair(lambda tx: optim.accumulate(tx, 2), by_hand.in_pairs),
    "accumulate after it": Pair(lambda tx: optim.chain(tx, optim.accumulate(optim.sgd(0.1), 2)), by_hand.then_in_pairs),
    "inject_hyperparams": Pair(set_to_halves, by_hand.halved_after_two),
    "grouped": Pair(lambda tx: optim.grouped(tx), once),
    "lookahead": Pair(lambda tx: optim.lookahead(tx, 2, 0.3), by_hand.going_back),
    "averages": Pair(
        lambda tx: optim.chain(tx, optim.ema_params(0.5), optim.average_params()),
        by_hand.with_averages,
        look=lambda params, state: (params, state[1].average, state[2].average),
    ),
    "optax.chain": Pair(lambda tx: optax.chain(tx, optax.scale(0.5)), half),
    "optax.named_chain": Pair(lambda tx: optax.named_chain(("base", tx), ("half", optax.scale(0.5))), half),
    "optax.masked": Pair(
        lambda tx: optax.chain(optax.masked(tx, HIDDEN), optax.masked(optax.sgd(0.1), SHOWN)),
        by_hand.beside_c,
        with_c=True,
    ),
    "optax.partition": Pair(
        lambda tx: optax.partition({True: tx, False: optax.sgd(0.1)}, HIDDEN), by_hand.beside_c, with_c=True
    ),
    "optax.apply_if_finite": Pair(lambda tx: optax.apply_if_finite(tx, 3), steps(1, None, 1, 1), WITH_NAN),
    "optax.conditionally_mask": Pair(
        lambda tx: optax.conditionally_mask(tx, lambda step, **_: jnp.asarray(step) % 2 == 0, forward_extra_args=True),
        steps(1, None, 1, None),
    ),
    "optax.MultiSteps": Pair(multi_steps, by_hand.in_pairs),
    "optax.inject_hyperparams": Pair(
        lambda tx: optax.inject_hyperparams(lambda factor: optax.chain(tx, optax.scale(factor)))(
            factor=lambda count: jnp.float32(0.5) ** count
        ),
        steps(1, 0.5, 0.25, 0.125),
    ),
    "optax.lookahead": Pair(optaxs_lookahead, by_hand.going_back),
}
