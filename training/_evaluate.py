"""Metrics over a data set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._compiler import jit
from ._data import in_order, num_examples
from ._interrupts import check_interrupts


def evaluate(
    metrics_fn: Callable[..., dict[str, jax.Array]], *args: Any, data: Any, batch_size: int = 1000
) -> dict[str, float]:
    """Means of metrics over all examples of a data set, each example counted once.

    Args:
      metrics_fn: `metrics_fn(*args, batch) -> {name: mean over the batch}`. It is compiled once for each size of a
        batch, and found again when the same function is given.
      *args: what it takes before the batch: parameters, and state where there is one.
      data: a pytree of arrays `[examples, ...]`.
      batch_size: examples at a time; the last batch may be smaller.
    Returns:
      The mean of each metric over the examples.
    Raises:
      TypeError: if `metrics_fn` does not return a dict.
      ValueError: if the arrays differ in their first axis, there are no examples, or a metric is no scalar.

    >>> net = nets.linear(2)
    >>> metrics_fn = lambda params, batch: {"mean": net.apply(params, batch["x"]).mean()}
    >>> params = jax.tree.map(jnp.ones_like, net.init(jax.random.key(0), jnp.ones(1)))
    >>> evaluate(metrics_fn, params, data={"x": jnp.arange(5.0)[:, None]}, batch_size=2)
    {'mean': 3.0}
    """
    total = num_examples("evaluate", data)
    if total == 0 or batch_size < 1:
        raise ValueError(f"evaluate: expected examples and a batch_size of at least 1, got {total} and {batch_size!r}")
    compiled = jit(metrics_fn)
    sums: dict[str, Any] = {}
    for batch in in_order(data, batch_size):
        check_interrupts()
        metrics = compiled(*args, batch)
        if not isinstance(metrics, dict):
            raise TypeError(f"evaluate: expected metrics_fn to return a dict, got {type(metrics).__name__}")
        for name, value in metrics.items():
            if jnp.shape(value) != ():
                raise ValueError(f"evaluate: expected metrics/{name} to be a scalar, got shape {jnp.shape(value)}")
            wide = jnp.asarray(value, jnp.promote_types(jnp.result_type(value), jnp.float32))
            sums[name] = sums.get(name, 0) + wide * num_examples("evaluate", batch)
    return {name: float(value) / total for name, value in sums.items()}
