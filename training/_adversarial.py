"""Losses under attack: the worst inputs near those of the batch, and the worst weights near those trained."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ._awp import WeightAttack
from ._checks import check_count, check_radius
from ._returned import LossFn, in_form, whole_form

Norm = Literal["linf", "l2"]
Attack = Callable[[Callable[[jax.Array], jax.Array], jax.Array, jax.Array | None], jax.Array]


@recording
def fgsm(epsilon: float | jax.Array, *, bounds: tuple[float, float] | None = None) -> Attack:
    """One step of `epsilon` along the sign of the slope.

    Source: Goodfellow, Shlens, Szegedy 2015, https://arxiv.org/abs/1412.6572, section 4.

    Args:
      epsilon: how far any number may move.
      bounds: the smallest and largest value of an input.
    Returns:
      `attack(loss_fn, x, key) -> x`, with `loss_fn(x) -> loss`.
    Raises:
      ValueError: if `epsilon` is negative, or the bounds are no interval.

    >>> fgsm(0.1)(lambda x: jnp.sum(x**2), jnp.array([1.0, -2.0]), None).tolist()
    [1.100000023841858, -2.0999999046325684]
    """
    check_radius("fgsm", "epsilon", epsilon)
    _check_bounds("fgsm", bounds)

    def attack(loss_fn: Callable[[jax.Array], jax.Array], x: jax.Array, key: jax.Array | None) -> jax.Array:
        x = jnp.asarray(x)
        return _within(x + jnp.asarray(epsilon, x.dtype) * jnp.sign(jax.grad(loss_fn)(x)), bounds)

    return attack


@recording
def pgd(
    epsilon: float | jax.Array,
    num_steps: int,
    *,
    step_size: float | jax.Array | None = None,
    norm: Norm = "linf",
    random_start: bool = True,
    bounds: tuple[float, float] | None = None,
) -> Attack:
    """Steps up the loss, each brought back into the ball of `epsilon` around the input.

    Source: Madry et al. 2018, https://arxiv.org/abs/1706.06083, section 2.1.

    Args:
      epsilon: the ball's radius: of any number in `"linf"`, of an example's l2 norm in `"l2"`.
      num_steps: how many.
      step_size: of each, measured likewise; `2.5 * epsilon / num_steps` unless given.
      norm: `"linf"`, whose steps are signs, or `"l2"`, whose steps are along the slope.
      random_start: from a random point of the ball, which takes a key; otherwise from the input.
      bounds: the smallest and largest value of an input.
    Returns:
      `attack(loss_fn, x, key) -> x`, with `loss_fn(x) -> loss` and `x` `[batch, ...]`.
    Raises:
      ValueError: for numbers out of range or another norm; when called, without a key where it starts at random.

    >>> attack = pgd(0.5, 10, norm="l2", random_start=False)
    >>> attack(lambda x: jnp.sum(x), jnp.zeros((1, 4)), None).round(3).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    check_radius("pgd", "epsilon", epsilon)
    check_count("pgd", "num_steps", num_steps, at_least=1)
    if norm not in _NORMS:
        raise ValueError(f"pgd: expected norm to be one of {', '.join(_NORMS)}, got {norm!r}")
    if step_size is not None:
        check_radius("pgd", "step_size", step_size)
    _check_bounds("pgd", bounds)
    direction, project, draw = _NORMS[norm]
    each = 2.5 * epsilon / num_steps if step_size is None else step_size

    def attack(loss_fn: Callable[[jax.Array], jax.Array], x: jax.Array, key: jax.Array | None) -> jax.Array:
        if random_start and key is None:
            raise ValueError("pgd: expected a key for its random start, got None. Give one, or random_start=False.")
        x = jnp.asarray(x)
        radius, length = (jnp.asarray(size, x.dtype) for size in (epsilon, each))

        def one(_: Any, moved: jax.Array) -> jax.Array:
            moved = moved + length * direction(jax.grad(loss_fn)(moved))
            return _within(x + project(moved - x, radius), bounds)

        start = _within(x + radius * draw(key, x), bounds) if random_start else x
        return lax.fori_loop(0, num_steps, one, start)

    return attack


@recording
def adversarial(
    loss_fn: LossFn,
    attack: Attack | None,
    *,
    weights: WeightAttack | None = None,
    inputs: str = "x",
    through_attack: bool = False,
    has_aux: bool = False,
    stateful: bool = False,
) -> LossFn:
    """The loss on inputs that an attack has moved to where it is largest, and with weights that one has.

    The attack sees the loss of the same parameters, key and state. Its result counts as a constant, as in Danskin's
    theorem, unless derivatives are asked for; what of the loss depends on the parameters is differentiated where the
    attack ended. With `weights` the parameters are attacked in their turn, on the inputs found: SAM's twin, as a loss.

    Source: Madry et al. 2018, https://arxiv.org/abs/1706.06083, equation 2.1; of the weights, Wu, Xia, Wang 2020,
    https://arxiv.org/abs/2004.05884, equation 7.

    Args:
      loss_fn: as for `step`.
      attack: `attack(loss_of_x, x, key) -> x`: `fgsm`, `pgd`, or your own; None leaves the inputs as they are.
      weights: `attack(loss_of_params, params) -> params`: `awp`, or your own.
      inputs: the name in the batch, a dict, of what is attacked.
      through_attack: whether derivatives go through the steps of the attacks too. Signs have none.
      has_aux: as for `step`.
      stateful: as for `step`. The attacks leave the state as it is.
    Returns:
      A loss of the form of `loss_fn`. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: without any attack; when called, if the batch has no such inputs.

    >>> loss_fn = lambda w, batch, key: jnp.mean((batch["x"] * w) ** 2)
    >>> worse = adversarial(loss_fn, fgsm(0.5))
    >>> worse(jnp.array(2.0), {"x": jnp.array([[1.0], [-1.0]])}).item()
    9.0
    """
    if attack is None and weights is None:
        raise ValueError("adversarial: expected an attack, on inputs or on weights, got None for both")
    whole = whole_form("adversarial", loss_fn, has_aux, stateful)
    settle = (lambda tree: tree) if through_attack else lax.stop_gradient

    def loss(params: Any, state: Any, batch: Any, key: jax.Array | None) -> Any:
        attack_key, loss_key = (None, None) if key is None else jax.random.split(key)
        if attack is not None:
            _check_inputs(batch, inputs)

            def of_inputs(x: jax.Array) -> jax.Array:
                return whole(settle(params), state, {**batch, inputs: x}, loss_key)[0]

            batch = {**batch, inputs: settle(attack(of_inputs, settle(batch[inputs]), attack_key))}
        if weights is not None:

            def of_weights(params: Any) -> jax.Array:
                return whole(params, state, batch, loss_key)[0]

            moved = settle(weights(of_weights, settle(params)))
            # The derivative by the weights is that at the weights moved, as SAM's is.
            params = (
                moved if through_attack else jax.tree.map(lambda w, to: w + (to - lax.stop_gradient(w)), params, moved)
            )
        return whole(params, state, batch, loss_key)

    return in_form(loss, has_aux, stateful)


def _check_inputs(batch: Any, inputs: str) -> None:
    if not isinstance(batch, dict) or inputs not in batch:
        found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(f"adversarial: expected a batch with {inputs!r}, got {found}")


def _to_l2(x: jax.Array) -> jax.Array:
    """Each example at length 1, or zero."""
    # Squares of small slopes, as those of a sure network are, would be zero: the largest part is brought to 1 first.
    most = lax.stop_gradient(jnp.max(jnp.abs(x), tuple(range(1, x.ndim)), keepdims=True))
    x = x / jnp.where(most > 0, most, 1)
    return x / _lengths(x, 1)


def _into_l2(x: jax.Array, epsilon: Any) -> jax.Array:
    norms = _lengths(x, 0)
    return jnp.where(norms > epsilon, x * (epsilon / jnp.where(norms > epsilon, norms, 1)), x)


def _lengths(x: jax.Array, of_zero: float) -> jax.Array:
    """Of each example, with a derivative that is finite at zero."""
    squares = jnp.sum(jnp.square(x), tuple(range(1, x.ndim)), keepdims=True)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), of_zero)


def _from_l2(key: jax.Array, x: jax.Array) -> jax.Array:
    """Uniform in the ball."""
    along, length = jax.random.split(key)
    size = x[0].size
    radius = jax.random.uniform(length, (len(x), *[1] * (x.ndim - 1)), x.dtype) ** (1 / size)
    return radius * _to_l2(jax.random.normal(along, x.shape, x.dtype))


_NORMS: dict[str, Any] = {
    "linf": (
        jnp.sign,
        lambda x, epsilon: jnp.clip(x, -epsilon, epsilon),
        lambda key, x: jax.random.uniform(key, x.shape, x.dtype, -1, 1),
    ),
    "l2": (_to_l2, _into_l2, _from_l2),
}


def _check_bounds(name: str, bounds: tuple[float, float] | None) -> None:
    low, high = bounds or (0, 1)
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
        raise ValueError(f"{name}: expected bounds (low, high) with low below high, got {bounds!r}")


def _within(x: jax.Array, bounds: tuple[float, float] | None) -> jax.Array:
    return x if bounds is None else jnp.clip(x, *bounds)
