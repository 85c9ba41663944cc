"""Losses whose gradients are estimates: by random directions, without a backward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ._checks import check_count, path_of
from ._estimated import with_gradient
from ._returned import scalar

Loss = Callable[..., jax.Array]


@recording
def forward_gradient(loss_fn: Loss, *, num_probes: int = 1) -> Loss:
    """A loss whose gradient is a forward one: slopes along random directions, times these directions.

    It is the gradient in the mean, and takes no backward pass and no memory for one. Its variance grows with the number
    of parameters, and falls with that of probes.

    Source: Baydin, Pearlmutter, Syme, Wood, Torr 2022, https://arxiv.org/abs/2202.08587, equation 3; ours is the mean
    over several directions.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar.
      num_probes: directions a step, under one `jax.vmap`.
    Returns:
      A loss of the same signature, for `step`. It needs a key, and prints, compares and hashes as the call that made
      it.
    Raises:
      ValueError: if `num_probes` is below 1; when called, if there is no key.
      TypeError: when called, if the loss is no scalar, or a parameter complex.

    >>> loss = forward_gradient(lambda w, batch, key: jnp.sum(w**2), num_probes=1000)
    >>> (jax.grad(loss)(jnp.array([1.0, -2.0]), None, jax.random.key(0)) / 2).round().tolist()
    [1.0, -2.0]
    """
    check_count("forward_gradient", "num_probes", num_probes, at_least=1)

    def value_and_grad(params: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, Any]:
        loss_key, probe_key = _two_keys("forward_gradient", key)
        _check_real("forward_gradient", params)
        value, push = jax.linearize(lambda params: scalar("forward_gradient", loss_fn(params, batch, loss_key)), params)

        def probe(key: jax.Array) -> Any:
            direction = _normal(key, params)
            return _scaled(direction, push(direction))

        return value, _mean(jax.vmap(probe)(jax.random.split(probe_key, num_probes)))

    return with_gradient(value_and_grad)


@recording
def evolution_strategies(
    loss_fn: Loss, *, scale: float | jax.Array, num_pairs: int, pairs_at_once: int | None = None
) -> Loss:
    """A loss whose gradient is read off its values at random distances: it need not be differentiable.

    In the mean it is the gradient of the loss smoothed by a normal of standard deviation `scale`; for a quadratic, that
    of the loss itself. Each direction is taken both ways.

    Source: Salimans, Ho, Chen, Sidor, Sutskever 2017, https://arxiv.org/abs/1703.03864, equation 1 and section 2.1
    (antithetic directions); losses are taken as they are, not by rank.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar.
      scale: standard deviation of the distances, above 0.
      num_pairs: directions a step.
      pairs_at_once: pairs under one `jax.vmap`; all unless given. Each holds two copies of the parameters.
    Returns:
      A loss of the same signature, for `step`, whose value is that at the parameters. It needs a key, and prints,
      compares and hashes as the call that made it.
    Raises:
      ValueError: for arguments out of their range; when called, if there is no key.
      TypeError: when called, if the loss is no scalar, or a parameter complex.

    >>> loss = evolution_strategies(lambda w, batch, key: jnp.sum(w**2), scale=0.1, num_pairs=1000)
    >>> (jax.grad(loss)(jnp.array([1.0, -2.0]), None, jax.random.key(0)) / 2).round().tolist()
    [1.0, -2.0]
    """
    if isinstance(scale, int | float) and not scale > 0:
        raise ValueError(f"evolution_strategies: expected scale above 0, got {scale!r}.")
    check_count("evolution_strategies", "num_pairs", num_pairs, at_least=1)
    at_once = num_pairs if pairs_at_once is None else pairs_at_once
    check_count("evolution_strategies", "pairs_at_once", at_once, at_least=1)

    def value_and_grad(params: Any, batch: Any, key: jax.Array | None) -> tuple[jax.Array, Any]:
        loss_key, pair_key = _two_keys("evolution_strategies", key)
        _check_real("evolution_strategies", params)

        def value(params: Any) -> jax.Array:
            return scalar("evolution_strategies", loss_fn(params, batch, loss_key))

        def at(direction: Any, distance: Any) -> jax.Array:
            step = _scaled(direction, jnp.asarray(distance))
            return value(jax.tree.map(jnp.add, params, step))

        def pair(key: jax.Array) -> Any:
            direction = _normal(key, params)
            return _scaled(direction, (at(direction, scale) - at(direction, -scale)) / (2 * scale))

        keys = jax.random.split(pair_key, num_pairs)
        return value(params), _mean(lax.map(pair, keys, batch_size=min(at_once, num_pairs)))

    return with_gradient(value_and_grad)


def _two_keys(name: str, key: jax.Array | None) -> jax.Array:
    if key is None:
        raise ValueError(f"{name}: expected a key, got None. Give one to training.init(params, tx, key=key).")
    return jax.random.split(key)


def _check_real(name: str, params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.iscomplexobj(leaf):
            raise TypeError(
                f"{name}: expected real parameters, got {jnp.result_type(leaf)} at {path_of(path)!r}. Take real and "
                "imaginary parts apart."
            )


def _normal(key: jax.Array, params: Any) -> Any:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, jnp.shape(leaf), jnp.result_type(leaf)) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def _scaled(direction: Any, slope: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: (slope * leaf).astype(leaf.dtype), direction)


def _mean(stacked: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.mean(0), stacked)
