"""Differentially private training: gradients to which no example adds more than a bound, and noise on top."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._call import recording
from ._estimated import with_gradient
from ._examples import check_bound, number_of
from ._per_example import clipped_sum

LossFn = Callable[..., Any]


@recording
def private(
    loss_fn: LossFn,
    max_norm: float,
    *,
    noise_multiplier: float,
    expected_batch_size: float,
    per_leaf: bool = False,
    examples_at_once: int | None = None,
    mask: str | None = "mask",
) -> Callable[[Any, Any, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]:
    """A loss whose gradient is differentially private: DP-SGD, under any chain, by `step(..., has_aux=True)`.

    Its gradient is `(sum of clipped gradients + noise_multiplier * max_norm * N(0, I)) / expected_batch_size`. With
    batches from `poisson_batches`, `epsilon` says what a run of steps gives away.

    No number that is not private reaches the chain: the loss's value is 0, and the mean loss of the real examples is
    the metric `exact_loss`. Look at it, and do not publish it. A link that asks for gradients of its own, such as
    `optim.sam`, asks the data once more in every step, and is given other noise wherever its parameters differ: count
    its steps twice. Sums of several batches that are one step's are to be added up from `clipped_sum`, and given noise
    once, by `noised`. JAX's generator is no cryptographic one, and its noise has the gaps of floating-point numbers.

    Source: Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1; we divide by the expected size of a batch,
    as the size of a drawn one says who is in it.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar, as for `per_example`.
      max_norm: of an example's clipped gradient, above 0.
      noise_multiplier: standard deviation of the noise over `max_norm`, at least 0.
      expected_batch_size: examples times the rate at which they are drawn; for batches of one size, that size.
      per_leaf: clips each parameter's gradient by itself, as for `clipped_sum`; the bound on all of them stays.
      examples_at_once: as for `per_example_norms`.
      mask: name of the batch's entry that says which examples are real, `[examples]` of booleans; it is taken out
        before `loss_fn` sees the batch. None if all are real.
    Returns:
      `(params, batch, key) -> (0, {"exact_loss": mean})`, to be given a key that is new at every step, as `step` does.
    Raises:
      ValueError: for numbers out of range; when called, for no key, and for a batch without the mask.
      TypeError: when called, as for `clipped_sum`.

    >>> loss_fn = lambda w, batch, key: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> quiet = private(loss_fn, 1.0, noise_multiplier=0.0, expected_batch_size=2, mask=None)
    >>> batch = {"x": jnp.array([[3.0, 4.0], [0.0, 0.1]]), "y": jnp.array([1.0, 1.0])}
    >>> grads, metrics = jax.grad(quiet, has_aux=True)(jnp.zeros(2), batch, jax.random.key(0))
    >>> grads.round(3).tolist(), metrics["exact_loss"].item()
    ([-0.30000001192092896, -0.5], 1.0)
    """
    check_bound("private", "max_norm", max_norm)
    _check_noise("private", "noise_multiplier", noise_multiplier)
    check_bound("private", "expected_batch_size", expected_batch_size)
    sums = clipped_sum(loss_fn, max_norm, per_leaf=per_leaf, examples_at_once=examples_at_once)

    def value_and_grad(params: Any, batch: Any, key: jax.Array | None) -> tuple[Any, Any]:
        if key is None:
            raise ValueError("private: expected a key for the noise, got None. Give training.init a key.")
        noise_key, loss_key = jax.random.split(key)
        batch, real = (batch, None) if mask is None else _without_mask(batch, mask)
        found = sums(params, batch, loss_key, real)
        noisy = noised(found.grads, noise_multiplier * max_norm, key=_at(params, noise_key))
        count = found.losses.shape[0] if real is None else jnp.maximum(jnp.sum(real), 1)
        value = jnp.zeros((), found.losses.dtype), {"exact_loss": jnp.sum(found.losses) / count}
        return value, jax.tree.map(lambda grad: grad / expected_batch_size, noisy)

    return with_gradient(value_and_grad, has_aux=True)


def _at(params: Any, key: jax.Array) -> jax.Array:
    """A key of its own for these parameters: a second question in one step must not be answered with the same noise.

    Two hashes, weighted sums of all bits with random odd weights, are folded in; parameters that differ share both with
    a chance of one in 2^62.
    """
    for number, leaf in enumerate(jax.tree.leaves(params)):
        parts = jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf
        words = jax.lax.bitcast_convert_type(parts, jnp.uint32).reshape(-1)
        weights = jax.random.bits(jax.random.key(number), (2, words.size), jnp.uint32) | 1
        for half in jnp.sum(weights * words, -1, dtype=jnp.uint32):
            key = jax.random.fold_in(key, half)
    return key


def noised(grads: Any, stddev: float, *, key: jax.Array) -> Any:
    """Adds Gaussian noise to every element of a tree, to real and imaginary parts of complex ones.

    Args:
      grads: a tree of arrays, such as the sum of `clipped_sum` over the batches of one step.
      stddev: standard deviation, at least 0.
      key: decides the noise: a new one for every sum.
    Returns:
      A tree like `grads`.
    Raises:
      ValueError: for a negative standard deviation.

    >>> noised({"w": jnp.zeros(1000)}, 2.0, key=jax.random.key(0))["w"].std().round(1).item()
    2.0
    """
    _check_noise("noised", "stddev", stddev)
    leaves, tree = jax.tree.flatten(grads)
    return jax.tree.unflatten(
        tree, [_noised(leaf, stddev, jax.random.fold_in(key, number)) for number, leaf in enumerate(leaves)]
    )


def _noised(leaf: jax.Array, stddev: float, key: jax.Array) -> jax.Array:
    wide = jnp.promote_types(leaf.dtype, jnp.float32)
    if jnp.iscomplexobj(leaf):  # JAX gives real and imaginary part half the variance each
        stddev = stddev * math.sqrt(2)
    return (leaf.astype(wide) + stddev * jax.random.normal(key, leaf.shape, wide)).astype(leaf.dtype)


def _without_mask(batch: Any, mask: str) -> tuple[Any, Any]:
    if not isinstance(batch, dict) or mask not in batch:
        found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(
            f"private: expected batch to be a dict with the mask {mask!r}, got {found}. Give mask=None if all examples "
            "of a batch are real."
        )
    return {name: value for name, value in batch.items() if name != mask}, batch[mask]


def _check_noise(name: str, argument: str, value: Any) -> None:
    number = number_of(value)
    if number is not None and not 0 <= number < math.inf:
        raise ValueError(f"{name}: expected {argument} to be a number of at least 0, got {value!r}")
