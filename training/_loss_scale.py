"""Half precision without underflow: gradients of a loss times a power of two, which follows what they can bear."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._call import Call, recording
from ..optim._trees import all_finite, select
from ._checks import check_count, path_of
from ._estimated import with_gradient
from ._returned import whole_form

LossFn = Callable[..., Any]
_LEAST, _MOST = 1.0, 2.0**24
_TAKE_THEIR_OWN = ("microbatch", "private", "with_grad_norms", "with_gradient")


class LossScale(NamedTuple):
    """State of a loss under `loss_scaled`, the `state` of its train state.

    Attributes:
      scale: by which the loss is multiplied before its gradient is taken, a power of two, `[]` of float32.
      good: gradients in a row that were finite since the scale last changed, `[]` of int32.
      state: of the network; None for one that carries nothing.
    """

    scale: jax.Array
    good: jax.Array
    state: Any


def loss_scale(initial: float = 2.0**15, *, state: Any = None) -> LossScale:
    """Where the scale of a loss begins.

    Args:
      initial: a power of two from 1 to 2^24.
      state: of a stateful network, from its `init`.
    Returns:
      The `state` for `training.init`.
    Raises:
      ValueError: if `initial` is no such power of two.

    >>> loss_scale(2.0**10).scale.item()
    1024.0
    """
    if isinstance(initial, bool) or not isinstance(initial, int | float) or not _is_power(initial):
        raise ValueError(
            f"loss_scale: expected initial to be a power of two from 1 to 2^24, got {initial!r}. Other factors round "
            "every gradient."
        )
    return LossScale(jnp.float32(initial), jnp.zeros((), jnp.int32), state)


@recording
def loss_scaled(
    loss_fn: LossFn, *, double_every: int = 2000, has_aux: bool = False, stateful: bool = False
) -> Callable[..., tuple[jax.Array, tuple[LossScale, dict[str, jax.Array]]]]:
    """A loss whose gradient is taken of a multiple of it, so that none is lost below what float16 can say.

    The multiple is a power of two: it is halved when a gradient is not finite, and doubled after so many that were.
    Whoever asks sees the loss and the gradient of the loss itself: metrics, clips, `optim.accumulate`, and what
    `optim.sam` asks for elsewhere, at the same scale. Where the loss fits float32, dividing by the scale is exact.

    A gradient that is not finite goes to the chain as it is: put `optim.skip_not_finite` around the chain, or
    `optim.accumulate`, which leaves it out. The network's state then stays as it was.

    Parameters stay in float32, and the network computes in float16: `nets.cast(net, compute="float16")`. In bfloat16,
    which says what float32 can, no scale is needed.

    What takes gradients itself, such as `microbatch` and `with_grad_norms`, stands outside:
    `microbatch(loss_scaled(loss_fn), 4, stateful=True)`.

    Source: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2; the scale moves as in NVIDIA's
    guide to it, by factors of two, from 1 to 2^24.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, in one of the forms that `step` takes.
      double_every: finite gradients in a row after which the scale is doubled.
      has_aux: whether `loss_fn` returns metrics.
      stateful: whether `loss_fn` takes and returns the state of a network, and metrics with it.
    Returns:
      `(params, loss_scale, batch, key) -> (loss, (loss_scale, metrics))`, for `step(..., stateful=True)` and
      `init(..., state=loss_scale())`. Further metrics are `loss_scale`, which was used, and `overflow`, 1 where the
      gradient was not finite, else 0. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: if `double_every` is below 1.
      TypeError: if `loss_fn` is made by what takes gradients itself; when called, for another state than
        `loss_scale()`, or parameters in float16.

    >>> loss_fn = lambda w, batch, key: jnp.sum(w.astype("float16") ** 2 * 2.0**-14) * 2.0**-14
    >>> jax.grad(loss_fn)(jnp.float32(2.0), None, None).item()
    0.0
    >>> tx = optim.skip_not_finite(optim.sgd(2.0**26))
    >>> train_state = init(jnp.float32(2.0), tx, state=loss_scale())
    >>> train_state, metrics = step(loss_scaled(loss_fn), tx, stateful=True)(train_state, None)
    >>> train_state.params.item(), metrics["loss_scale"].item(), metrics["overflow"].item()
    (1.0, 32768.0, 0.0)
    """
    check_count("loss_scaled", "double_every", double_every, at_least=1)
    _check_loss(loss_fn)
    whole = whole_form("loss_scaled", loss_fn, has_aux, stateful)

    def value_and_grad(params: Any, given: tuple[LossScale, Any], key: jax.Array | None) -> tuple[Any, Any]:
        (scale, good, state), batch = given

        def scaled(params: Any) -> tuple[jax.Array, tuple[jax.Array, tuple[Any, dict]]]:
            loss, aux = whole(params, state, batch, key)
            return loss.astype(jnp.promote_types(loss.dtype, jnp.float32)) * scale, (loss, aux)

        grads, (loss, (after, metrics)) = jax.grad(scaled, has_aux=True)(params)
        grads = jax.tree.map(lambda leaf: (leaf / scale).astype(leaf.dtype), grads)
        finite = all_finite(grads)
        moved = _moved(scale, good, finite, double_every)
        metrics = metrics | {"loss_scale": scale, "overflow": 1 - finite.astype(jnp.float32)}
        return (loss, (LossScale(*moved, select(finite, after, state)), metrics)), grads

    with_own_gradient = with_gradient(value_and_grad, has_aux=True)

    def loss(params: Any, state: LossScale, batch: Any, key: jax.Array | None = None) -> Any:
        _check(params, state)
        return with_own_gradient(params, (state, batch), key)

    return loss


def _moved(scale: jax.Array, good: jax.Array, finite: jax.Array, double_every: int) -> tuple[jax.Array, jax.Array]:
    good = jnp.where(finite, good + 1, 0)
    doubled = good >= double_every
    up = jnp.where(doubled, jnp.minimum(scale * 2, _MOST), scale)
    return jnp.where(finite, up, jnp.maximum(scale / 2, _LEAST)), jnp.where(doubled, 0, good)


def _is_power(number: float) -> bool:
    return _LEAST <= number <= _MOST and math.frexp(number)[0] == 0.5


def _check_loss(loss_fn: LossFn) -> None:
    call = getattr(loss_fn, "call", None)
    name = call.name if isinstance(call, Call) else ""
    if name in _TAKE_THEIR_OWN:
        raise TypeError(
            f"loss_scaled: expected a loss whose gradient is taken where it is asked for, got {name}, which takes its "
            f"own. Put the scale inside: {name}(loss_scaled(loss_fn), ...)."
        )


def _check(params: Any, state: Any) -> None:
    if not isinstance(state, LossScale):
        raise TypeError(
            f"loss_scaled: expected the state of a loss scale, got {type(state).__name__}. "
            "Write training.init(params, tx, state=training.loss_scale())."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).maxexp < jnp.finfo(jnp.float32).maxexp:
            raise TypeError(
                f"loss_scaled: expected parameters of float32, got {dtype} at {path_of(path) or 'the root'}. Their "
                "gradients would be lost when they are divided: nets.cast(net, compute='float16') casts them in apply."
            )
