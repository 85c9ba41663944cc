"""Links that step by the gradient at a point where the loss is worse: flat minima.

Each is a perturbation, which says where to look, times a rule, which says what becomes of the gradient found there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._link import at, check_not_negative, check_share, link
from ._masks import matching_leaves
from ._perturbation import Climb, Patterns, along_gradient, perturbed
from ._trees import combine, dot, over, root, square, squared, wide


@link
def sam(
    rho: optax.ScalarOrSchedule, *, every: int = 1, exclude: Patterns = ()
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation: hands on the gradient at `params + rho * updates / norm(updates)`.

    The incoming updates, the gradient at `params` unless a link before this one changed it, only say where to
    look. What follows in the chain works on the gradient found there: `chain(sam(0.05), adam(1e-3))`. It costs
    one more gradient a step. A zero gradient gives a zero perturbation. Loss, metrics and batch-norm state are those
    of the unperturbed pass. `chain(sam(0.05), accumulate(adam(1e-3), m))` perturbs each of `m` parts of a batch by
    itself: m-SAM.

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, https://arxiv.org/abs/2010.01412, equation 2 and algorithm 1;
    m-SAM, section 4.1.

    Args:
      rho: radius of the perturbation in the l2 norm over all parameters, at least 0; or a schedule of the step.
      every: looks elsewhere in one of so many steps; in the others the updates go on as they are.
      exclude: paths of parameters that are not perturbed, such as `("**/b", "**/scale")`.
    Returns:
      A link whose `update` needs `params` and the keyword `grad_fn: params -> grads`, the gradient on the same
      batch and key. Its `SharpnessState` shows the norm of the perturbation.
    Raises:
      ValueError: if `rho` is negative or `every` below 1; from `init`, if a pattern matches no path.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> tx = chain(sam(0.05), sgd(0.1))
    >>> loss = lambda params: (params**2).sum()
    >>> params = jnp.array([3.0, 4.0])
    >>> updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, grad_fn=jax.grad(loss))
    >>> [round(step, 3) for step in updates.tolist()]
    [-0.606, -0.808]
    """
    return perturbed("sam", rho, along_gradient, every=every, exclude=exclude)


@link
def asam(
    rho: optax.ScalarOrSchedule,
    *,
    eta: optax.ScalarOrSchedule = 0.01,
    every: int = 1,
    exclude: Patterns = (),
    unscaled: Patterns = (),
) -> optax.GradientTransformationExtraArgs:
    """Adaptive SAM: the perturbation `rho T^2 g / norm(T g)` with `T = |w| + eta` does not depend on scale.

    Source: Kwon, Kim, Park, Choi 2021, https://arxiv.org/abs/2102.11600, algorithm 1. The authors'
    program has `T = 1` for biases: `unscaled="**/b"`.

    Args:
      rho: radius, at least 0; or a schedule. The paper's are 0.5 to 1.
      eta: added to the size of every weight, at least 0; or a schedule.
      every: as for `sam`.
      exclude: as for `sam`.
      unscaled: paths of parameters with `T = 1`.
    Returns:
      A link as `sam`.
    Raises:
      ValueError: if `rho` or `eta` is negative or `every` below 1; from `init`, if a pattern matches no path.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> asam(0.5, unscaled="**/b")
    asam(0.5, unscaled='**/b')
    """
    check_not_negative("asam", "eta", eta)

    def climb(step: jax.Array, params: Any, grads: Any, memory: Any) -> tuple[Climb, Any]:
        plain = matching_leaves("asam", params, unscaled)
        scale = jax.tree.map(lambda w, ones: jnp.ones_like(w) if ones else jnp.abs(w) + at(eta, step), params, plain)
        scaled = combine(lambda g, t: t * g, grads, scale)
        return Climb(combine(lambda g, t: t * g, scaled, scale), square(scaled)), memory

    return perturbed("asam", rho, climb, every=every, exclude=exclude, patterns=unscaled)


@link
def gsam(
    rho: optax.ScalarOrSchedule, *, alpha: optax.ScalarOrSchedule, every: int = 1, exclude: Patterns = ()
) -> optax.GradientTransformationExtraArgs:
    """Surrogate-gap SAM: the gradient at the perturbed point, less `alpha` of the plain one across it.

    The paper lets `rho` follow the learning rate: `rho = linear_schedule(...)` beside the same schedule of the rate.

    Source: Zhuang et al. 2022, https://arxiv.org/abs/2203.08065, algorithm 1.

    Args:
      rho: radius, at least 0; or a schedule.
      alpha: weight of the plain gradient's part across the perturbed one, at least 0; or a schedule.
      every: as for `sam`.
      exclude: as for `sam`.
    Returns:
      A link as `sam`.
    Raises:
      ValueError: if `rho` or `alpha` is negative or `every` below 1; from `init`, if a pattern matches no path.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> gsam(0.05, alpha=0.4)
    gsam(0.05, alpha=0.4)
    """
    check_not_negative("gsam", "alpha", alpha)

    def rule(step: jax.Array, grads: Any, found: Any, memory: Any) -> tuple[Any, Any]:
        share, weight = over(dot(found, grads), square(found)), at(alpha, step)
        return combine(lambda p, g: p - weight * (g - share * p), found, grads), memory

    return perturbed("gsam", rho, along_gradient, rule, every=every, exclude=exclude)


@link
def fisher_sam(
    rho: optax.ScalarOrSchedule, *, eta: optax.ScalarOrSchedule = 1.0, every: int = 1, exclude: Patterns = ()
) -> optax.GradientTransformationExtraArgs:
    """SAM in a ball of the Fisher metric: `rho F^-1 g / root(g^T F^-1 g)`, `F^-1` being `1 / (1 + eta g^2)`.

    Source: Kim, Li, Hu, Hospedales 2022, https://arxiv.org/abs/2206.04920, algorithm 1, with the squares of the batch's
    gradient for the diagonal of `F`.

    Args:
      rho: radius, at least 0; or a schedule.
      eta: weight of the metric, at least 0; or a schedule. 0 is `sam`.
      every: as for `sam`.
      exclude: as for `sam`.
    Returns:
      A link as `sam`.
    Raises:
      ValueError: if `rho` or `eta` is negative or `every` below 1; from `init`, if a pattern matches no path.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> fisher_sam(0.1)
    fisher_sam(0.1)
    """
    check_not_negative("fisher_sam", "eta", eta)

    def climb(step: jax.Array, params: Any, grads: Any, memory: Any) -> tuple[Climb, Any]:
        along = combine(lambda g: g / (1 + at(eta, step) * squared(wide(g))), grads)
        return Climb(along, dot(grads, along)), memory

    return perturbed("fisher_sam", rho, climb, every=every, exclude=exclude)


@link
def friendly_sam(
    rho: optax.ScalarOrSchedule,
    *,
    sigma: optax.ScalarOrSchedule = 1.0,
    decay: optax.ScalarOrSchedule = 0.95,
    every: int = 1,
    exclude: Patterns = (),
) -> optax.GradientTransformationExtraArgs:
    """Friendly SAM: climbs along what is new in the gradient, `g - sigma m`, `m` being the mean of those before.

    At the first step it climbs along the gradient.

    Source: Li et al. 2024, https://arxiv.org/abs/2403.12350, algorithm 1; the first step and `decay` are those of
    the authors' program.

    Args:
      rho: radius, at least 0; or a schedule.
      sigma: how much of the mean is taken off, at least 0; or a schedule. 0 is `sam`.
      decay: of the mean, between 0 and 1; or a schedule.
      every: as for `sam`; the mean moves at every step.
      exclude: as for `sam`.
    Returns:
      A link as `sam`; it holds one copy of the parameters' size.
    Raises:
      ValueError: if `rho` or `sigma` is negative, `every` below 1, or `decay` not at least 0 and at most 1; from
        `init`, if a pattern matches no path.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> friendly_sam(0.1)
    friendly_sam(0.1)
    """
    check_not_negative("friendly_sam", "sigma", sigma)
    check_share("friendly_sam", "decay", decay, one=True)

    def climb(step: jax.Array, params: Any, grads: Any, memory: Any) -> tuple[Climb, Any]:
        mean, started = memory
        # The mean begins as the first gradient.
        taken, kept = (jnp.where(started, at(share, step), 0) for share in (sigma, decay))
        along = combine(lambda g, m: g - taken * m, grads, mean)
        moved = combine(lambda m, g: kept * m + (1 - kept) * g, mean, grads)
        return Climb(along, square(along)), (moved, jnp.ones_like(started))

    def begin(params: Any) -> Any:
        return optax.tree.zeros_like(params), jnp.zeros((), bool)

    return perturbed("friendly_sam", rho, climb, every=every, exclude=exclude, begin=begin)


@link
def look_sam(
    rho: optax.ScalarOrSchedule, *, every: int = 5, alpha: optax.ScalarOrSchedule = 0.5, exclude: Patterns = ()
) -> optax.GradientTransformationExtraArgs:
    """SAM in one of `every` steps; the others go on along the part that it found across the plain gradient.

    Source: Liu et al. 2022, https://arxiv.org/abs/2203.02714, algorithm 1, with norms over all parameters.

    Args:
      rho: radius, at least 0; or a schedule.
      every: steps from one look to the next, at least 1; 1 is `sam`.
      alpha: weight of the part that is used again, at least 0; or a schedule.
      exclude: as for `sam`.
    Returns:
      A link as `sam`; it holds one copy of the parameters' size.
    Raises:
      ValueError: if `rho` or `alpha` is negative or `every` below 1; from `init`, if a pattern matches no path.
      TypeError: from `update`, if `params` or `grad_fn` is missing.

    >>> look_sam(0.1, every=4)
    look_sam(0.1, every=4)
    """
    check_not_negative("look_sam", "alpha", alpha)

    def rule(step: jax.Array, grads: Any, found: Any, memory: Any) -> tuple[Any, Any]:
        share = over(dot(grads, found), square(grads))
        return found, combine(lambda m, g, p: p - share * g, memory, grads, found)

    def between(step: jax.Array, grads: Any, memory: Any) -> Any:
        factor = at(alpha, step) * over(root(square(grads)), root(square(memory)))
        return combine(lambda g, m: g + factor * m, grads, memory)

    return perturbed(
        "look_sam", rho, along_gradient, rule, between, every=every, exclude=exclude, begin=optax.tree.zeros_like
    )
