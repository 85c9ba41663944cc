"""Noise in training."""

import jax
import jax.numpy as jnp

from ._errors import NetError
from ._net import Net, layer


@layer
def dropout(rate: float) -> Net:
    """Sets a random share of the values to zero in training, and scales the others up to keep the mean.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html, section 4; the scaling is
    done in training here.

    Args:
      rate: the share that is dropped, in [0, 1).
    Returns:
      A net from `[...]` to the same, without parameters; it takes `key` in training.
    Raises:
      NetError: in training without a key.

    >>> dropout(0.5)(jnp.ones(4), key=jax.random.key(1), train=True).tolist()
    [2.0, 0.0, 2.0, 2.0]
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: expected rate, the share that is dropped, in [0, 1), got {rate!r}")

    def apply(params: dict, x: jax.Array, *, key: jax.Array | None, train: bool) -> jax.Array:
        if not train or rate == 0:
            return x
        if key is None:
            raise NetError("a key in training", "None", "Pass key= to apply.")
        kept = jax.random.bernoulli(key, 1 - rate, jnp.shape(x))
        return jnp.where(kept, x / (1 - rate), 0).astype(jnp.result_type(x))

    return Net(None, apply)
