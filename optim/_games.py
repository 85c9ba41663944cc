"""Links for min-max problems: they damp the rotation that gradient descent turns into divergence."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._link import at, check_not_negative, check_share, check_word, link
from ._trees import combine, over, root, squared, wide


class OptimisticGradientState(NamedTuple):
    """State of `optimistic_gradient`.

    Attributes:
      step: updates made so far, `[]` of int32.
      previous: the updates of the step before, shapes and dtypes of the parameters.
    """

    step: jax.Array
    previous: Any


@link
def optimistic_gradient(
    learning_rate: optax.ScalarOrSchedule,
    *,
    alpha: optax.ScalarOrSchedule = 1.0,
    beta: optax.ScalarOrSchedule = 1.0,
    first_step: Literal["same", "zero"] = "same",
) -> optax.GradientTransformationExtraArgs:
    """Optimistic gradient descent: `x - 2 eta g_t + eta g_{t-1}`, with `alpha = beta = 1`.

    In general the update is `-eta_t ((alpha_t + beta_t) g_t - beta_t g_{t-1})`: a schedule's value at a step
    weighs both gradients of that step. On the bilinear game `f = xy` with `eta = 0.1` the distance to the
    solution shrinks by 0.994936 a step, where gradient descent grows by 1.004988; it converges for
    `eta < 1/sqrt(3)`.

    Source: Popov 1980; Daskalakis, Ilyas, Syrgkanis, Zeng 2018, https://arxiv.org/abs/1711.00141,
    optimistic mirror descent; with two coefficients Mokhtari, Ozdaglar, Pattathil 2020,
    https://arxiv.org/abs/1901.08511, generalised OGDA.

    Args:
      learning_rate: the step size eta, at least 0; or a schedule of the step.
      alpha: weight of the gradient; or a schedule.
      beta: weight of the optimism; or a schedule.
      first_step: what stands for the gradient before the first: `"same"` takes it to be the first one, a step of
        `-eta alpha g_0`, as Optax does; `"zero"` takes it to be zero, a step of `-eta (alpha + beta) g_0`, as the
        published programs do.
    Returns:
      A link; it holds one copy of the parameters' size.
    Raises:
      ValueError: if `learning_rate` is negative or `first_step` is neither word.

    >>> tx = optimistic_gradient(0.1, first_step="zero")
    >>> state = tx.init(jnp.zeros(()))
    >>> first, state = tx.update(jnp.array(1.0), state)
    >>> second, state = tx.update(jnp.array(2.0), state)
    >>> round(first.item(), 3), round(second.item(), 3)
    (-0.2, -0.3)
    """
    check_not_negative("optimistic_gradient", "learning_rate", learning_rate)
    check_word("optimistic_gradient", "first_step", first_step, ("same", "zero"))

    def init(params: Any) -> OptimisticGradientState:
        return OptimisticGradientState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        now, before = at(alpha, state.step), at(beta, state.step)
        rate = at(learning_rate, state.step)
        first = (state.step == 0) & (first_step == "same")

        def optimistic(g: jax.Array, previous: jax.Array) -> jax.Array:
            previous = jnp.where(first, g, previous.astype(g.dtype))
            return (-rate * ((now + before) * g - before * previous)).astype(g.dtype)

        steps = jax.tree.map(optimistic, updates, state.previous)
        kept = jax.tree.map(lambda g, previous: g.astype(previous.dtype), updates, state.previous)
        return steps, OptimisticGradientState(jnp.asarray(optax.safe_increment(state.step)), kept)

    return optax.GradientTransformationExtraArgs(init, update)


@link
def optimistic_adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    first_step: Literal["same", "zero"] = "zero",
) -> optax.GradientTransformation:
    """Optimistic Adam: `x - 2 eta r_t + eta r_(t-1)`, `r_t` being Adam's direction.

    With the paper's settings it goes round the solution of the bilinear game `f = xy` without reaching it. Unlike
    Optax's, it has no Nesterov momentum, its moments are in float32 at least, and its derivative is finite where a
    gradient is zero.

    Source: Daskalakis, Ilyas, Syrgkanis, Zeng 2018, https://arxiv.org/abs/1711.00141, algorithm 1.

    Args:
      learning_rate: eta, at least 0; or a schedule.
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      eps: added to the root of the latter.
      first_step: as for `optimistic_gradient`; `"zero"` as in the paper.
    Returns:
      A link; it holds three copies of the parameters' size.
    Raises:
      ValueError: if `learning_rate` or `eps` is negative, `b1` or `b2` is not at least 0 and below 1, or
        `first_step` is neither word.

    >>> optimistic_adam(1e-3, b1=0.5)
    optimistic_adam(0.001, b1=0.5)
    """
    check_not_negative("optimistic_adam", "learning_rate", learning_rate)
    check_not_negative("optimistic_adam", "eps", eps)
    check_share("optimistic_adam", "b1", b1)
    check_share("optimistic_adam", "b2", b2)
    check_word("optimistic_adam", "first_step", first_step, ("same", "zero"))
    return optax.chain(_adam_direction(b1, b2, eps), optimistic_gradient(learning_rate, first_step=first_step))


def _adam_direction(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    def zeros(leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf, jnp.promote_types(leaf.dtype, jnp.float32))

    def init(params: Any) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(
            jnp.zeros((), jnp.int32), jax.tree.map(zeros, params), jax.tree.map(zeros, params)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = jnp.asarray(optax.safe_increment(state.count))
        mu = combine(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = combine(lambda v, g: b2 * v + (1 - b2) * squared(wide(g)), state.nu, updates)
        first, second = 1 / (1 - b1**count), 1 / (1 - b2**count)
        # Where all gradients were zero the derivative is zero: 1 / eps, to the power of the steps, is beyond all range.
        size = jax.tree.map(lambda v: jnp.where(v > 0, root(second * v) + eps, 0), nu)
        steps = combine(lambda g, m, size: over(first * m, size), updates, mu, size)
        return steps, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


@link
def negative_momentum(learning_rate: optax.ScalarOrSchedule, momentum: float = -0.5) -> optax.GradientTransformation:
    """Gradient descent with a velocity that points back: it damps the rotation of games played in turn.

    On the bilinear game `f = xy`, the players moving one after the other, the distance to the solution becomes 0.998518
    times as long a step at `eta = 0.1`, and 0.962544 times at 0.5; moving at once they still diverge.

    Source: Gidel et al. 2019, https://arxiv.org/abs/1807.04740, section 4.

    Args:
      learning_rate: eta, at least 0; or a schedule.
      momentum: above -1 and below 0.
    Returns:
      A link; it holds one copy of the parameters' size.
    Raises:
      ValueError: if `learning_rate` is negative, or `momentum` is not above -1 and below 0.

    >>> negative_momentum(0.1)
    negative_momentum(0.1)
    """
    check_not_negative("negative_momentum", "learning_rate", learning_rate)
    if isinstance(momentum, int | float) and not -1 < momentum < 0:
        raise ValueError(f"negative_momentum: expected momentum above -1 and below 0, got {momentum!r}")
    return optax.sgd(learning_rate, momentum)
