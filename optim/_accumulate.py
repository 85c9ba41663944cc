"""Links that wait, and links that refuse what is not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.extend.core import Literal

from .._programs import evaluated
from ._link import check_count, check_link, link
from ._trees import all_finite, combine, select


class AccumulateState(NamedTuple):
    """State of `accumulate`.

    Attributes:
      inner: of the chain that is handed the means.
      seen: micro-batches of this window so far, `[]` of int32.
      good: those of them whose gradients were finite, `[]` of int32.
      mean: of these gradients, with the shapes of the parameters; of the window before while `good` is 0.
    """

    inner: Any
    seen: jax.Array
    good: jax.Array
    mean: Any


@link
def accumulate(
    tx: optax.GradientTransformation, every: int, *, dtype: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Hands the mean gradient of every `every` micro-batches to a chain; updates are zero in between.

    A micro-batch whose gradients are not finite is left out of the mean; if none of a window is finite, the
    parameters and the chain's state stay. The chain runs once a window, and one buffer of the parameters' size is held.

    Links before it see every micro-batch, one that is not finite too: `trace` there would keep it. Those that look
    elsewhere stand before it: `chain(sam(0.05), accumulate(adam(1e-3), 4))` perturbs each micro-batch
    by itself. Inside they would see only the last one, and are refused.

    Args:
      tx: the chain.
      every: micro-batches of a window, at least 1.
      dtype: of the buffer, such as `"float32"` for half-precision gradients; those of the parameters unless given.
    Returns:
      A link.
    Raises:
      ValueError: if `every` is below 1, or the chain evaluates gradients; from `update`, if the updates have not the
        shapes of the parameters.
      TypeError: if `tx` is no link.

    >>> tx = accumulate(sgd(1.0), 2)
    >>> state = tx.init(jnp.array(0.0))
    >>> for gradient in (1.0, 3.0):
    ...     update, state = tx.update(jnp.array(gradient), state)
    >>> update.item()
    -2.0
    """
    tx = check_link(
        "accumulate", "tx", tx, evaluates=False, remedy="Put it before: chain(sam(0.05), accumulate(adam(1e-3), 4))."
    )
    check_count("accumulate", "every", every)

    def init(params: Any) -> AccumulateState:
        seen, good = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return AccumulateState(tx.init(params), seen, good, optax.tree.zeros_like(params, dtype=dtype))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        _check_shapes(updates, state.mean)
        finite = all_finite(updates)
        good, seen = state.good + finite, state.seen + 1
        first, share = state.good == 0, 1 / jnp.maximum(good, 1)

        def moved(m: jax.Array, g: jax.Array) -> jax.Array:
            # A mean of an earlier window stands there still at the first; a NaN is kept out: 0 * NaN is NaN.
            return jnp.where(finite, jnp.where(first, g, m + share * (g - m)), m)

        mean, last = combine(moved, state.mean, updates), seen >= every

        def apply(inner: Any, mean: Any) -> tuple[Any, Any]:
            return tx.update(combine(lambda g, m: m, updates, mean), inner, params, **extra)

        def wait(inner: Any, mean: Any) -> tuple[Any, Any]:
            return optax.tree.zeros_like(jax.eval_shape(apply, inner, mean)[0]), inner

        # The mean is no output of the branches, or each would copy it.
        steps, inner = lax.cond(last & (good > 0), apply, wait, state.inner, mean)
        return steps, AccumulateState(inner, jnp.where(last, 0, seen), jnp.where(last, 0, good), mean)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_shapes(updates: Any, mean: Any) -> None:
    for (path, leaf), held in zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(mean), strict=True):
        if jnp.shape(leaf) != held.shape:
            raise ValueError(
                f"accumulate: expected updates of shape {held.shape} at "
                f"{jax.tree_util.keystr(path, simple=True, separator='/') or 'the root'}, got {jnp.shape(leaf)}. What "
                "takes gradients of tasks stands before it: chain(agreement(), accumulate(sgd(0.1), 4))."
            )


class SkipNotFiniteState(NamedTuple):
    """State of `skip_not_finite`.

    Attributes:
      inner: of the chain.
      skipped: updates skipped in all, `[]` of int32.
      in_a_row: of them, those without a good one since, `[]` of int32.
    """

    inner: Any
    skipped: jax.Array
    in_a_row: jax.Array


@link
def skip_not_finite(
    tx: optax.GradientTransformation, *, most_in_a_row: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Skips a chain's update where a gradient is not finite: updates are zero and its state stays.

    It costs one more reading of the gradients: the choice is made inside the chain's own loops, not by a branch. Where
    the chain looks elsewhere, what it finds there is checked too.

    Args:
      tx: the chain.
      most_in_a_row: updates that may be skipped one after another; the next is made whatever it is, so that a run
        that is lost is seen to be. No limit unless given.
    Returns:
      A link.
    Raises:
      ValueError: if `most_in_a_row` is below 1.
      TypeError: if `tx` is no link.

    >>> tx = skip_not_finite(sgd(1.0))
    >>> update, state = tx.update(jnp.array(jnp.nan), tx.init(jnp.array(0.0)))
    >>> update.item(), state.skipped.item()
    (0.0, 1)
    """
    tx = check_link("skip_not_finite", "tx", tx)
    if most_in_a_row is not None:
        check_count("skip_not_finite", "most_in_a_row", most_in_a_row)

    def init(params: Any) -> SkipNotFiniteState:
        return SkipNotFiniteState(tx.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        def step(updates: Any, inner: Any, params: Any) -> tuple[Any, Any]:
            return tx.update(updates, inner, params, **extra)

        finite, given = all_finite(updates), (updates, state.inner, params)
        if tx.evaluates_gradient:
            steps, inner = step(*given)
            finite &= all_finite(steps)
            goes = goes_on(finite, state.in_a_row)
            steps, inner = select(goes, (steps, inner), (optax.tree.zeros_like(steps), state.inner))
        else:
            goes = goes_on(finite, state.in_a_row)
            steps, inner = choose(goes, step, state.inner, *given)
        in_a_row = jnp.where(finite, 0, state.in_a_row + 1)
        return steps, SkipNotFiniteState(inner, state.skipped + ~goes, in_a_row)

    def goes_on(finite: jax.Array, in_a_row: jax.Array) -> jax.Array:
        return finite if most_in_a_row is None else finite | (in_a_row >= most_in_a_row)

    return optax.GradientTransformationExtraArgs(init, update)


def choose(goes: jax.Array, function: Any, state: Any, *args: Any) -> tuple[Any, Any]:
    """`function(*args)`, which returns updates and a state; or, unless `goes`, zeros and `state`.

    Each number of the new state is chosen where the function makes it, and what it makes from that is made from the
    chosen one: where `goes` they are the same, and elsewhere all outputs are replaced. So the old state may be
    overwritten in place. Chosen at the end, the updates would need a copy of both states, and XLA makes them.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr = closed.jaxpr
    structure = jax.tree.structure(shapes)
    kept = jax.tree.leaves(state)
    old = [None] * (structure.num_leaves - len(kept)) + kept  # None for the updates, which become zero
    made = {variable for equation in jaxpr.eqns for variable in equation.outvars}
    # Of several states that are one number, the last: the others are chosen at the end.
    pairs = zip(jaxpr.outvars, range(len(old)), strict=True)
    early = {v: index for v, index in pairs if old[index] is not None and _among(v, made)}
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, jax.tree.leaves(args), strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        found = evaluated(jaxpr, equation, [read(atom) for atom in equation.invars])
        for variable, value in zip(equation.outvars, found, strict=True):
            values[variable] = jnp.where(goes, value, old[early[variable]]) if variable in early else value

    def chosen(index: int, v: Any) -> Any:
        value = read(v)
        if _among(v, early) and early[v] == index:
            return value
        return jnp.where(goes, value, jnp.zeros_like(value) if old[index] is None else old[index])

    return jax.tree.unflatten(structure, [chosen(index, v) for index, v in enumerate(jaxpr.outvars)])


def _among(atom: Any, variables: Any) -> bool:
    return not isinstance(atom, Literal) and atom in variables
