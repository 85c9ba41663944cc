"""Links that follow the parameters: averages to evaluate with, and slow parameters that the fast ones return to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._extragradient import PastExtragradientState
from ._link import check_count, check_link, check_share, link
from ._oracle import fill, is_hole, punch
from ._trees import combine


class AverageParamsState(NamedTuple):
    """State of `ema_params` and `average_params`.

    Attributes:
      step: updates made so far, `[]` of int32.
      averaged: how many are in the average, `[]` of int32.
      average: of the parameters, in float32 at least.
    """

    step: jax.Array
    averaged: jax.Array
    average: Any


@link
def ema_params(decay: float = 0.999, *, debias: bool = True) -> optax.GradientTransformationExtraArgs:
    """Keeps an exponential moving average of the parameters; the last link of a chain.

    `eval_params(opt_state, params)` returns it. Updates pass as they are.

    Source: Polyak, Juditsky 1992; with a decay, Tarvainen, Valpola 2017, https://arxiv.org/abs/1703.01780.

    Args:
      decay: at least 0 and below 1.
      debias: whether the average is one of the parameters seen alone; else it begins at the initial parameters.
    Returns:
      A link whose `update` needs `params`; it holds one copy of the parameters.
    Raises:
      ValueError: if `decay` is not at least 0 and below 1.
      TypeError: from `update`, if `params` is missing.

    >>> tx = chain(sgd(1.0), ema_params(0.5))
    >>> params, state = jnp.array(0.0), tx.init(jnp.array(0.0))
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.array(-1.0), state, params)
    ...     params = params + updates
    >>> params.item(), round(eval_params(state, params).item(), 4)
    (2.0, 1.6667)
    """
    check_share("ema_params", "decay", decay)

    def weight(step: jax.Array, count: jax.Array) -> jax.Array:
        # The share of the newest among `count` debiased ones; without a bias to take off, 1 - decay.
        # The sum of their shares, 1 - decay^n, is nearly all rounding where the decay is close to 1.
        total = -jnp.expm1((count + 1.0) * jnp.log1p(decay - 1)) if debias else 1
        return jnp.asarray((1 - decay) / total)

    return _averaging("ema_params", weight, lambda step: jnp.asarray(True), begins=not debias)


@link
def average_params(*, start: int = 0, every: int = 1) -> optax.GradientTransformationExtraArgs:
    """Keeps the mean of the parameters from a step on: stochastic weight averaging; the last link of a chain.

    `eval_params(opt_state, params)` returns it, and the parameters themselves before the first. Statistics of batch
    norms are those of the parameters, not of their mean: run the training set through once.

    Source: Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, algorithm 1.

    Args:
      start: updates before the first that counts, at least 0.
      every: updates from one that counts to the next, at least 1.
    Returns:
      A link whose `update` needs `params`; it holds one copy of the parameters.
    Raises:
      ValueError: if `start` is negative or `every` below 1.
      TypeError: from `update`, if `params` is missing.

    >>> average_params(start=1000, every=100)
    average_params(start=1000, every=100)
    """
    check_count("average_params", "start", start, at_least=0)
    check_count("average_params", "every", every)

    def counts(step: jax.Array) -> jax.Array:
        return (step >= start) & ((step - start) % every == 0)

    return _averaging("average_params", lambda step, count: 1 / (count + 1), counts, begins=False)


def _averaging(name: str, weight: Any, counts: Any, *, begins: bool) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> AverageParamsState:
        return AverageParamsState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jax.tree.map(_wide_zeros, params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise TypeError(f"{name}: expected params in update, got none. Write tx.update(grads, opt_state, params).")
        counted = counts(state.step)
        share = jnp.where(counted, weight(state.step, state.averaged), 0)

        def moved(average: jax.Array, old: jax.Array, change: jax.Array) -> jax.Array:
            before = jnp.where(state.averaged == 0, old, average) if begins else average
            return before + share * (
                _rounded(old + _rounded(change, change.dtype), old.dtype).astype(average.dtype) - before
            )

        average = combine(moved, state.average, params, updates)
        step = jnp.asarray(optax.safe_increment(state.step))
        return updates, AverageParamsState(step, state.averaged + counted, average)

    return optax.GradientTransformationExtraArgs(init, update)


class LookaheadState(NamedTuple):
    """State of `lookahead`.

    Attributes:
      base: of the chain that makes the fast steps.
      step: updates made so far, `[]` of int32.
      slow: the slow parameters.
    """

    base: Any
    step: jax.Array
    slow: Any


@link
def lookahead(
    base: optax.GradientTransformation, sync_period: int, slow_step_size: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    """Every `sync_period` steps, goes back to a point between where these began and where they led.

    Over a dict of players the slow parameters are those of all players at once: lookahead for min-max problems. On
    the bilinear game `f = xy`, with gradient descent of `eta` in between, the distance to the solution becomes
    `abs(1 - alpha + alpha (1 - i eta)^k)` times as long in `k` steps.

    Source: Zhang, Lucas, Hinton, Ba 2019, https://arxiv.org/abs/1907.08610, algorithm 1; for games, Chavdarova et
    al. 2021, https://arxiv.org/abs/2006.14567.

    Args:
      base: the chain of the fast steps; its state goes on through.
      sync_period: k, at least 1.
      slow_step_size: alpha, at least 0 and at most 1.
    Returns:
      A link whose `update` needs `params`; it holds one copy of the parameters. `eval_params(opt_state, params)` are
      the slow parameters.
    Raises:
      ValueError: if `sync_period` is below 1, or `slow_step_size` not at least 0 and at most 1.
      TypeError: if `base` is no link; from `update`, if `params` is missing.

    >>> lookahead(sgd(0.1), 5)
    lookahead(sgd(0.1), 5)
    """
    base = check_link("lookahead", "base", base)
    check_count("lookahead", "sync_period", sync_period)
    check_share("lookahead", "slow_step_size", slow_step_size, one=True)

    def init(params: Any) -> LookaheadState:
        return LookaheadState(base.init(params), jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise TypeError(
                "lookahead: expected params in update, got none. Write tx.update(grads, opt_state, params)."
            )
        fast, after = base.update(updates, state.base, params, **extra)
        step = jnp.asarray(optax.safe_increment(state.step))
        sync, first = step % sync_period == 0, state.step == 0
        begin = combine(lambda slow, now: jnp.where(first, now, slow), state.slow, params)

        def back(change: jax.Array, now: jax.Array, slow: jax.Array) -> jax.Array:
            return jnp.where(sync, slow + slow_step_size * (now + change - slow) - now, change)

        moved = combine(back, fast, params, begin)
        slow = combine(lambda slow, now, change: jnp.where(sync, now + change, slow), begin, params, moved)
        return moved, LookaheadState(after, step, slow)

    return optax.GradientTransformationExtraArgs(init, update)


def eval_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate with: the average that a chain keeps, or where its iterate stands.

    Known are `ema_params`, `average_params`, `lookahead`, `past_extragradient` and Optax's schedule-free optimizers,
    anywhere in a chain or a wrapper. Parameters that a mask hides from it are as they are; in a partition each group
    may have its own, and under `by_player` each player.

    Args:
      opt_state: state of the chain.
      params: its parameters.
    Returns:
      Parameters of the same structure and dtypes.
    Raises:
      ValueError: if the state holds none of these, or more than one of some parameters.

    >>> tx = chain(sgd(0.1), ema_params(0.9))
    >>> params = {"w": jnp.ones(2)}
    >>> eval_params(tx.init(params), params)["w"].tolist()
    [1.0, 1.0]
    """
    views = _views(opt_state, params)
    seen = [own for _, own in views]
    owners = jax.tree.map(lambda _, *own: sum(not is_hole(leaf) for leaf in own), params, *seen)
    if not views or max(jax.tree.leaves(owners), default=1) > 1:
        found = " and ".join(name for name, _ in views) or "none"
        raise ValueError(
            f"eval_params: expected the state of one link that keeps other parameters to evaluate with, got {found}. "
            "Put ema_params(0.999) at the end of the chain."
        )
    for own in seen:
        params = fill(own, params)
    return params


def _views(opt_state: Any, params: Any) -> list[tuple[str, Any]]:
    """The links that keep other parameters, by name, each with these parameters."""
    found: list[tuple[str, Any]] = []

    def look(state: Any) -> bool:
        if isinstance(state, _VIEWS):
            found.append((type(state).__name__, _seen(state, params)))
        elif _is_by_player(state, params):
            hidden = jax.tree.map(lambda _: optax.MaskedNode(), params)
            for player, own in state.items():
                found.extend((name, hidden | {player: seen}) for name, seen in _views(own, params[player]))
        else:
            return False
        return True

    jax.tree.leaves(opt_state, is_leaf=look)
    return found


def _is_by_player(state: Any, params: Any) -> bool:
    """Whether a state is a dict of the players' states; a partition's, by group, is of masked ones."""
    together = isinstance(state, dict) and isinstance(params, dict) and state.keys() == params.keys()
    return together and not any(isinstance(own, optax.MaskedState) for own in state.values())


def _seen(view: Any, params: Any) -> Any:
    """What a link would evaluate its own parameters with; holes for all others."""
    if isinstance(view, AverageParamsState):
        return _own(lambda mean, now: jnp.where(view.averaged > 0, mean, now), view.average, params)
    if isinstance(view, LookaheadState):
        return _own(lambda slow, now: jnp.where(view.step > 0, slow, now), view.slow, params)
    if isinstance(view, PastExtragradientState):
        return _own(lambda ahead, now: now - ahead, view.ahead, params)
    return optax.contrib.schedule_free_eval_params(view, punch(params, view.z))


def _own(function: Any, held: Any, params: Any) -> Any:
    def one(mine: Any, now: Any) -> Any:
        return mine if is_hole(mine) else function(mine, now).astype(now.dtype)

    return jax.tree.map(one, held, params, is_leaf=is_hole)


_VIEWS = (AverageParamsState, LookaheadState, PastExtragradientState, optax.contrib.ScheduleFreeState)


def _rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """In a dtype, as it is when it leaves a program: within, XLA may leave out that a number is rounded and widened."""
    x = x.astype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits >= 32:
        return x
    return lax.reduce_precision(x, jnp.finfo(dtype).nexp, jnp.finfo(dtype).nmant)


def _wide_zeros(leaf: Any) -> jax.Array:
    return jnp.zeros_like(leaf, jnp.promote_types(leaf.dtype, jnp.float32))
