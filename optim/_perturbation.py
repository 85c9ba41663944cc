"""A perturbation, which says where to look, times a rule, which says what becomes of the gradient found there."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._link import at, check_count, check_not_negative
from ._masks import matching_leaves
from ._oracle import GradFn, need
from ._trees import add, all_finite, combine, over, root, select, square

Patterns = str | Sequence[str]


class SharpnessState(NamedTuple):
    """State of `sam` and its kin.

    Attributes:
      step: updates made so far, `[]` of int32.
      perturbation_norm: of the perturbation made last, l2, `[]` of float32.
      memory: what the perturbation or the rule keeps from step to step; `()` for most.
    """

    step: jax.Array
    perturbation_norm: jax.Array
    memory: Any


class Climb(NamedTuple):
    """A perturbation before it is scaled: `rho * along / root(length)`."""

    along: Any
    length: jax.Array


def along_gradient(step: jax.Array, params: Any, grads: Any, memory: Any) -> tuple[Climb, Any]:
    """Where `sam` and most of its kin look."""
    return Climb(grads, square(grads)), memory


def perturbed(
    name: str,
    rho: Any,
    climb: Callable[[jax.Array, Any, Any, Any], tuple[Climb, Any]],
    rule: Callable[[jax.Array, Any, Any, Any], tuple[Any, Any]] = lambda step, grads, found, memory: (found, memory),
    between: Callable[[jax.Array, Any, Any], Any] = lambda step, grads, memory: grads,
    *,
    every: int,
    exclude: Patterns,
    patterns: Patterns = (),
    begin: Callable[[Any], Any] = lambda params: (),
) -> optax.GradientTransformationExtraArgs:
    """A link from its two parts.

    Args:
      name: of the link.
      rho: radius; or a schedule.
      climb: `(step, params, grads, memory) -> (where to, memory)`, at every step.
      rule: `(step, grads, gradient found, memory) -> (updates, memory)`, where the link looked elsewhere.
      between: `(step, grads, memory) -> updates`, where it did not.
      every: steps from one look to the next.
      exclude: paths of parameters that are not perturbed.
      patterns: other paths, which are to match too.
      begin: `params -> memory`.
    """
    check_not_negative(name, "rho", rho)
    check_count(name, "every", every)

    def init(params: Any) -> SharpnessState:
        for given in (exclude, patterns):
            matching_leaves(name, params, given)
        return SharpnessState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32), begin(params))

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: GradFn | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        need(name, params=params, grad_fn=grad_fn)
        step, _, memory = state
        updates, params = jax.tree.map(jnp.asarray, (updates, params))  # NumPy's float64 is no constant of a branch
        hidden = matching_leaves(name, params, exclude)
        seen = jax.tree.map(lambda g, out: jnp.zeros_like(g) if out else g, updates, hidden)
        (along, length), remembered = climb(step, params, seen, memory)
        radius = at(rho, step)

        def look() -> tuple[Any, Any, jax.Array]:
            factor = over(radius, root(length))
            found = grad_fn(add(params, along, factor))  # pyright: ignore[reportOptionalCall]
            given, kept = rule(step, updates, found, remembered)
            norm = jnp.asarray(factor * root(square(along)), jnp.float32)
            return combine(lambda g, new: new, updates, given), kept, norm

        if every == 1:
            given, remembered, norm = look()
        else:
            given, remembered, norm = lax.cond(
                step % every == 0,
                look,
                lambda: (between(step, updates, remembered), remembered, jnp.zeros((), jnp.float32)),
            )
        # A micro-batch that `accumulate` leaves out may not stay in what is remembered.
        memory = select(all_finite(remembered), remembered, memory) if jax.tree.leaves(memory) else memory
        return given, SharpnessState(jnp.asarray(optax.safe_increment(step)), norm, memory)

    return optax.GradientTransformationExtraArgs(init, update)
