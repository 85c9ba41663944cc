"""Rates of one's own for each parameter, and for each step: to be learnt."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._link import link


@link
def scale_by_rates(rates: Any) -> optax.GradientTransformationExtraArgs:
    """Multiplies each update by minus a rate of its own.

    `maml(loss_fn, optim.scale_by_rates, 1)` learns these rates beside the parameters.

    Source: Li, Zhou, Chen, Li 2017, https://arxiv.org/abs/1707.09835, equation 3 (Meta-SGD).

    Args:
      rates: a tree that begins as that of the parameters does; each leaf a number, or an array that broadcasts against
        the parameters below it. `jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.01), params)` are as many rates as
        parameters.
    Returns:
      A link.
    Raises:
      ValueError: when used, if `rates` does not begin as the updates do.

    >>> tx = scale_by_rates({"w": jnp.array([0.1, 1.0]), "b": 0.5})
    >>> grads = {"w": jnp.array([1.0, 1.0]), "b": jnp.array(1.0)}
    >>> updates, _ = tx.update(grads, tx.init(grads))
    >>> updates["w"].tolist(), updates["b"].item()
    ([-0.10000000149011612, -1.0], -0.5)
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return _scaled("scale_by_rates", rates, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@link
def scale_by_step_rates(rates: Any) -> optax.GradientTransformationExtraArgs:
    """Multiplies each update by minus a rate of its own for this step; the last rates stay.

    Source: Antoniou, Edwards, Storkey 2019, https://arxiv.org/abs/1810.09502, section 4 (LSLR).

    Args:
      rates: as for `scale_by_rates`, with an axis of steps in front of every array; a list of numbers is one.
        `jax.tree.map(lambda leaf: jnp.full(5, 0.01), params)` are five for each array of the parameters.
    Returns:
      A link that counts its steps.
    Raises:
      ValueError: if an array has no axis of steps; when used, if `rates` does not begin as the updates do.

    >>> tx = scale_by_step_rates([0.5, 0.25])
    >>> state, found = tx.init(jnp.array(1.0)), []
    >>> for _ in range(3):
    ...     updates, state = tx.update(jnp.array(1.0), state)
    ...     found.append(updates.item())
    >>> found
    [-0.5, -0.25, -0.25]
    """
    rates = jax.tree.map(jnp.asarray, rates, is_leaf=_is_numbers)
    for path, leaf in jax.tree_util.tree_leaves_with_path(rates):
        if leaf.ndim == 0 or leaf.shape[0] == 0:
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"scale_by_step_rates: expected rates{where and '/' + where} with an axis of steps in front, "
                f"got shape {leaf.shape}"
            )

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        now = jax.tree.map(lambda leaf: leaf[jnp.minimum(state.count, leaf.shape[0] - 1)], rates)
        return _scaled("scale_by_step_rates", now, updates), optax.ScaleByScheduleState(
            optax.safe_increment(state.count)
        )

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )


def _is_numbers(part: Any) -> bool:
    """Whether a part of a tree is a list of numbers, some of them perhaps traced."""
    items = part if isinstance(part, list | tuple) else ()
    return len(items) > 0 and all(isinstance(item, int | float | jax.Array) and jnp.ndim(item) == 0 for item in items)


def _scaled(name: str, rates: Any, updates: Any) -> Any:
    def below(rate: Any, part: Any) -> Any:
        return jax.tree.map(lambda leaf: -_fitting(name, rate, leaf) * leaf, part)

    try:
        return jax.tree.map(below, rates, updates)
    except ValueError as error:
        if str(error).startswith(name):
            raise
        expected = f"expected rates that begin as the updates do, {jax.tree.structure(updates)}"
        raise ValueError(f"{name}: {expected}, got {jax.tree.structure(rates)}: {error}") from None


def _fitting(name: str, rate: Any, leaf: Any) -> jax.Array:
    """A rate in the dtype of what it scales.

    Raises:
      ValueError: if it is larger than that.
    """
    rate, shape = jnp.asarray(rate, jnp.result_type(leaf)), jnp.shape(leaf)
    if rate.ndim > len(shape) or any(
        mine not in (1, own) for mine, own in zip(rate.shape[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(f"{name}: expected rates that broadcast to updates of shape {shape}, got shape {rate.shape}")
    return rate
