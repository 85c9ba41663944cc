"""Extragradient and its kin: a step is made from the gradient at a point that a first step looks ahead to."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._link import Link, check_link, check_positive, check_word, link
from ._oracle import GradFn, need
from ._trees import add, combine


@link
def extragradient(
    base: optax.GradientTransformation, *, stretch: float = 1.0, moments: Literal["both", "second"] = "both"
) -> optax.GradientTransformationExtraArgs:
    """Steps by the gradient at the point that a first step leads to: `z - eta F(z - eta F(z))` with `base = sgd(eta)`.

    Both steps are made by `base`, from `params`: `extragradient(adam(1e-3))` is ExtraAdam. It costs one more gradient
    a step and holds nothing of its own. `value`, which Polyak's step sizes ask for, is that of `params` at both. On the
    bilinear game `f = xy` the distance to the solution becomes `sqrt((1 - eta^2)^2 + eta^2)` times as long a step:
    0.995038 at 0.1, 0.901388 at 0.5.

    Source: Korpelevich 1976; with Adam, Gidel et al. 2019, https://arxiv.org/abs/1802.10551, algorithm 4.

    Args:
      base: the chain that makes a step from a gradient.
      stretch: how many times as long as a step the first one is, above 0.
      moments: which gradients the state of `base` sees: `"both"`, as the paper's ExtraAdam does, so that a schedule in
        `base` counts two a step; or the `"second"`, so that it counts one.
    Returns:
      A link whose `update` needs `params` and `grad_fn`, which `training.step` and `oracle` pass.
    Raises:
      ValueError: if `stretch` is not above 0, `moments` is neither word, or `base` evaluates gradients itself or
        accumulates them.
      TypeError: if `base` is no link; from `update`, if `params` or `grad_fn` is missing.

    >>> tx = extragradient(sgd(0.25))
    >>> slope = lambda params: 2 * params
    >>> updates, _ = tx.update(slope(jnp.array(1.0)), tx.init(jnp.array(1.0)), jnp.array(1.0), grad_fn=slope)
    >>> updates.item()
    -0.25
    """
    base = _base("extragradient", base, evaluates=False)
    check_positive("extragradient", "stretch", stretch)
    check_word("extragradient", "moments", moments, ("both", "second"))

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: GradFn | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        need("extragradient", params=params, grad_fn=grad_fn)
        ahead, after = base.update(updates, state, params, grad_fn=grad_fn, **extra)
        grads = grad_fn(add(params, ahead, stretch))  # pyright: ignore[reportOptionalCall]
        extra |= {"grad": grads} if "grad" in extra else {}
        return base.update(grads, after if moments == "both" else state, params, grad_fn=grad_fn, **extra)

    return optax.GradientTransformationExtraArgs(base.init, update)


@link
def extragradient_plus(base: optax.GradientTransformation, *, beta: float = 0.5) -> optax.GradientTransformation:
    """Extragradient whose first step is `1 / beta` times as long as the second.

    It finds solutions of some problems that are not monotone. On the bilinear game `f = xy` a step of
    `extragradient_plus(sgd(eta))` makes the distance to the solution `sqrt((1 - 2 eta^2)^2 + eta^2)` times as long:
    0.985089 at 0.1, 0.707107 at 0.5.

    Source: Diakonikolas, Daskalakis, Jordan 2021, https://arxiv.org/abs/2011.00364, algorithm 1.

    Args:
      base: the chain that makes a step from a gradient.
      beta: above 0, at most 1; 1 is `extragradient`.
    Returns:
      A link whose `update` needs `params` and `grad_fn`.
    Raises:
      ValueError: if `beta` is not above 0 and at most 1, or `base` evaluates gradients itself or accumulates them.

    >>> extragradient_plus(sgd(0.1))
    extragradient_plus(sgd(0.1))
    """
    if isinstance(beta, int | float) and not 0 < beta <= 1:
        raise ValueError(f"extragradient_plus: expected beta above 0 and at most 1, got {beta!r}")
    return extragradient(base, stretch=1 / beta)


class PastExtragradientState(NamedTuple):
    """State of `past_extragradient`.

    Attributes:
      base: of the chain that makes a step.
      ahead: how far the parameters stand ahead of the iterate: the step before.
      started: whether `ahead` stands for the step before, `[]` of bool.
    """

    base: Any
    ahead: Any
    started: jax.Array


@link
def past_extragradient(
    base: optax.GradientTransformation, *, first_step: Literal["zero", "same"] = "zero"
) -> optax.GradientTransformationExtraArgs:
    """Extragradient that looks ahead by the step before, and so needs no further gradient.

    The parameters stand at the point that is looked ahead to, `z_(t+1/2)`, where their gradient is taken; `z_t` is
    `eval_params(opt_state, params)`. With `sgd` it is optimistic gradient descent.

    Source: Popov 1980; with any step, Gidel et al. 2019, https://arxiv.org/abs/1802.10551, equation 16.

    Args:
      base: the chain that makes a step from a gradient.
      first_step: what stands for the step before the first: `"zero"` none, so that the first one is twice as long;
        `"same"` the first one.
    Returns:
      A link; it holds one copy of the parameters' size.
    Raises:
      ValueError: if `first_step` is neither word, or `base` accumulates gradients.

    >>> tx = past_extragradient(sgd(0.1))
    >>> first, state = tx.update(jnp.array(1.0), tx.init(jnp.array(0.0)), jnp.array(0.0))
    >>> second, state = tx.update(jnp.array(2.0), state, jnp.array(-0.2))
    >>> round(first.item(), 3), round(second.item(), 3)
    (-0.2, -0.3)
    """
    base = _base("past_extragradient", base, evaluates=True)
    check_word("past_extragradient", "first_step", first_step, ("zero", "same"))

    def init(params: Any) -> PastExtragradientState:
        ahead = optax.tree.zeros_like(params)
        return PastExtragradientState(base.init(params), ahead, jnp.asarray(first_step == "zero"))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        step, after = base.update(updates, state.base, params, **extra)
        moved = combine(lambda new, old: 2 * new - jnp.where(state.started, old, new), step, state.ahead)
        ahead = combine(lambda old, new: new, state.ahead, step)
        return moved, PastExtragradientState(after, ahead, jnp.ones_like(state.started))

    return optax.GradientTransformationExtraArgs(init, update)


class AnchoredState(NamedTuple):
    """State of `anchored`.

    Attributes:
      base: of the chain that makes a step.
      step: updates made so far, `[]` of int32.
      anchor: the initial parameters.
    """

    base: Any
    step: jax.Array
    anchor: Any


@link
def anchored(base: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Extragradient whose two steps are drawn towards where it began, less and less: `(z_0 - z_k) / (k + 2)`.

    The square of the gradient's norm falls as `1/k^2` in smooth convex-concave problems, the best possible rate, where
    extragradient's last iterate reaches `1/k`.

    Source: Yoon, Ryu 2021, https://arxiv.org/abs/2102.07922, EAG-C; the anchor is Halpern's.

    Args:
      base: the chain that makes a step from a gradient, `sgd(1/8)` for a gradient with Lipschitz constant 1. Its state
        sees both gradients, so that a schedule in it counts two a step.
    Returns:
      A link whose `update` needs `params` and `grad_fn`; it holds one copy of the parameters.
    Raises:
      ValueError: if `base` evaluates gradients itself or accumulates them.
      TypeError: if `base` is no link; from `update`, if `params` or `grad_fn` is missing.

    >>> tx = anchored(sgd(0.1))
    >>> slope = lambda params: params
    >>> updates, state = tx.update(jnp.array(1.0), tx.init(jnp.array(1.0)), jnp.array(1.0), grad_fn=slope)
    >>> round(updates.item(), 3)
    -0.09
    """
    base = _base("anchored", base, evaluates=False)

    def init(params: Any) -> AnchoredState:
        return AnchoredState(base.init(params), jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: GradFn | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        need("anchored", params=params, grad_fn=grad_fn)
        first = state.step == 0
        anchor = combine(lambda old, now: jnp.where(first, now, old), state.anchor, params)
        pull = combine(lambda now, begin: (begin - now) / (state.step + 2.0), params, anchor)
        ahead, after = base.update(updates, state.base, params, grad_fn=grad_fn, **extra)
        grads = grad_fn(add(add(params, pull), ahead))  # pyright: ignore[reportOptionalCall]
        extra |= {"grad": grads} if "grad" in extra else {}
        step, after = base.update(grads, after, params, grad_fn=grad_fn, **extra)
        return add(step, pull), AnchoredState(after, jnp.asarray(optax.safe_increment(state.step)), anchor)

    return optax.GradientTransformationExtraArgs(init, update)


def _base(name: str, base: Any, *, evaluates: bool) -> Link:
    """The chain that makes steps: one that does not wait, since where it looks would be where it stands."""
    made = check_link(name, "base", base, evaluates=evaluates)
    if made.holds("accumulate"):
        raise ValueError(
            f"{name}: expected base to step every time, got {base!r}. "
            "Take the mean of micro-batches in the loss: loss_fn = lambda params, batches: "
            "jnp.mean(jax.lax.map(lambda batch: loss(params, batch), batches))."
        )
    return made
