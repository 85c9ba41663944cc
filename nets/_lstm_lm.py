"""A language model of recurrent layers."""

from typing import Any

import jax
import jax.numpy as jnp

from ._check import check_size
from ._define import define
from ._dropout import dropout
from ._errors import NetError, ShapeError
from ._linear import embed, linear
from ._lstm import lstm_cell
from ._net import Net, layer
from ._rnn import rnn


@layer
def lstm_lm(vocab_size: int, features: int, *, num_layers: int = 1, drop_rate: float = 0.0) -> Net:
    """Token ids to the logits of the next ones, by layers of long short-term memory.

    With `cache=` a number, `apply` starts from nothing, and with `cache=` what the call before returned, it goes on
    from there; in both cases it returns `(logits, cache)`, as a `transformer` does, so `generate` works with it. The
    cache is the carry of each layer, and never full: the number says nothing more.

    Source: Zaremba et al. 2014, https://arxiv.org/abs/1409.2329, section 3.1, for where dropout stands.

    Args:
      vocab_size: how many tokens there are.
      features: size of the vectors between the layers, and of each layer's carry.
      num_layers: how many layers.
      drop_rate: the share that is dropped in training of what goes into each layer and into the head.
    Returns:
      A net from integers `[..., time]` to `[..., time, vocab_size]` with params `{"tokens": {"w"}, "layers":
      [{"w", "u", "b"}, ...], "head": {"w", "b"}}`. It takes `cache`, with which it returns `(logits, cache)`.
    Raises:
      ShapeError: if the ids are no integers `[..., time]`.

    >>> net = lstm_lm(50, 16, num_layers=2)
    >>> ids = jnp.array([[1, 2, 3]])
    >>> params = net.init(jax.random.key(0), ids)
    >>> logits, cache = net.apply(params, ids, cache=1)
    >>> net.apply(params, ids[:, :1], cache=cache)[0].shape
    (1, 1, 50)
    """
    check_size("lstm_lm", "vocab_size", vocab_size)
    check_size("lstm_lm", "features", features)
    check_size("lstm_lm", "num_layers", num_layers)

    @define
    def body(
        ids: jax.Array,
        *,
        tokens=embed(vocab_size, features),
        layers=[rnn(lstm_cell(features), return_carry=True)] * num_layers,
        drop=dropout(drop_rate),
        head=linear(vocab_size),
        cache=None,
    ):
        ids = jnp.asarray(ids)
        if ids.ndim < 1 or ids.shape[-1] < 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ShapeError("ids [..., time] of integers", f"{ids.dtype} {ids.shape}")
        before = _carries(cache, num_layers)
        x, after = tokens(ids), []
        for each, carry in zip(layers, before, strict=True):
            x, carry = each(drop(x), carry=carry)
            after.append(carry)
        logits = head(drop(x))
        return logits if cache is None else (logits, after)

    return body


def _carries(cache: Any, num_layers: int) -> list:
    if cache is None or (isinstance(cache, int) and not isinstance(cache, bool) and cache > 0):
        return [None] * num_layers
    if not isinstance(cache, list | tuple) or len(cache) != num_layers:
        found = f"{len(cache)} of them" if isinstance(cache, list | tuple) else type(cache).__name__
        found = repr(cache) if isinstance(cache, int) else found
        wanted = f"a number above 0, or a cache of {num_layers} carries, as the call before returned it"
        raise NetError(wanted, found)
    return list(cache)
