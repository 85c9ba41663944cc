"""New tokens from a language model, one after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ._check import check_size
from ._net import Net, StatefulNet

_LEAST = float(np.finfo(np.float32).tiny)


def generate(
    net: Net,
    params: Any,
    prompt: jax.Array,
    num_tokens: int,
    *,
    key: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
    top_p: float | jax.Array | None = None,
    max_length: int | None = None,
) -> jax.Array:
    """Tokens that follow a prompt: each is drawn from the logits at the one before it, and read next.

    The prompt is read at once; then each step reads one token and the cache. A token whose logits are NaN (a
    prompt with ids that the net does not have, say) is -1, and so are those after it.

    Args:
      net: a causal net from ids `[..., time]` to logits `[..., time, vocab_size]` that takes `cache` as
        `transformer` does.
      params: its parameters.
      prompt: integers `[..., time]`, at least one.
      num_tokens: how many tokens to add, at least 1.
      key: draws the tokens; not needed with a temperature of 0 that is known while tracing.
      temperature: logits are divided by it; 0 takes the most likely token.
      top_k: draws only from so many of the most likely tokens, and from those as likely as the last of them.
      top_p: draws only from the fewest most likely tokens whose probabilities add up to `top_p` or more.
      max_length: how many positions the cache has; as many as needed unless given, those of the prompt and of
        all new tokens but the last, which is not read.
    Returns:
      Integers `[..., num_tokens]`, the prompt not among them.
    Raises:
      ValueError: if the prompt and the tokens to add do not fit into the cache, or an option is out of range.
      TypeError: if the prompt is not of integers, or if tokens are to be drawn without a random key.

    Source: top_p: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751, section 3.1.

    >>> net = transformer(50, 16, num_layers=2, num_heads=4, rope=rotary())
    >>> prompt = jnp.array([[1, 2, 3], [4, 5, 6]])
    >>> params = net.init(jax.random.key(0), prompt)
    >>> generate(net, params, prompt, 5, key=jax.random.key(1), top_k=10).shape
    (2, 5)
    """
    prompt = jnp.asarray(prompt)
    _check(net, prompt, num_tokens, max_length)
    _check_options(key, temperature, top_k, top_p)
    keys = jax.random.split(jax.random.key(0) if key is None else key, num_tokens)

    def draw(logits: jax.Array, key: jax.Array) -> jax.Array:
        return _draw(logits[..., -1, :], key, temperature, top_k, top_p)

    def step(carry: tuple[jax.Array, Any], key: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        token, cache = carry
        logits, cache = net.apply(params, token[..., None], cache=cache)
        token = draw(logits, key)
        return (token, cache), token

    # The last token is not read.
    logits, cache = net.apply(params, prompt, cache=max_length or prompt.shape[-1] + num_tokens - 1)
    first = draw(logits, keys[0])
    _, rest = lax.scan(step, (first, cache), keys[1:])
    return jnp.concatenate([first[..., None], jnp.moveaxis(rest, 0, -1)], -1)


def _draw(
    logits: jax.Array,
    key: jax.Array,
    temperature: float | jax.Array,
    top_k: int | None,
    top_p: float | jax.Array | None,
) -> jax.Array:
    """Tokens `[...]` from logits `[..., vocab_size]`."""
    logits = logits.astype(jnp.float32)
    token = jnp.argmax(logits, -1)
    if not _is_zero(temperature):
        heat = jnp.asarray(temperature, jnp.float32)
        zero = heat < _LEAST
        # Less the largest, so that of quotients too large for a float only the likely ones stay finite.
        largest = logits.max(-1, keepdims=True)
        logits_below = jnp.where(jnp.isfinite(largest), logits - largest, logits)
        drawn = jax.random.categorical(key, _likely(logits_below / jnp.where(zero, 1, heat), top_k, top_p))
        token = jnp.where(zero, token, drawn)
    return jnp.where(jnp.isnan(logits).any(-1), -1, token).astype(jnp.int32)


def _likely(logits: jax.Array, top_k: int | None, top_p: float | jax.Array | None) -> jax.Array:
    """The logits, those of unlikely tokens replaced by minus infinity."""
    if top_k is not None:
        least = lax.top_k(logits, min(top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        falling = -jnp.sort(-logits, -1)
        probs = jax.nn.softmax(falling)
        before = jnp.cumsum(probs, -1) - probs
        least = jnp.min(jnp.where(before < top_p, falling, falling[..., :1]), -1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def _is_zero(temperature: float | jax.Array) -> bool:
    """Whether it is known to be 0, or so small that a float32 is."""
    return not isinstance(temperature, Tracer) and bool(np.all(np.asarray(temperature) < _LEAST))


def _is_within(given: Any, fits: Callable[[Any], Any]) -> bool:
    """Whether a number, or every one of an array, fits; those that are traced are not looked at."""
    if isinstance(given, Tracer):
        return True
    array = np.asarray(given)
    return bool(jnp.issubdtype(array.dtype, jnp.number) and np.all(fits(array)))


def _check(net: Any, prompt: jax.Array, num_tokens: int, max_length: int | None) -> None:
    if not isinstance(net, Net) or isinstance(net, StatefulNet):
        raise TypeError(f"generate: expected a network without state, got {net!r}")
    if prompt.ndim < 1 or prompt.shape[-1] < 1 or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise TypeError(f"generate: expected a prompt [..., time] of integers, got {prompt.dtype} {prompt.shape}")
    check_size("generate", "num_tokens", num_tokens)
    if max_length is not None:
        check_size("generate", "max_length", max_length)
        if prompt.shape[-1] + num_tokens - 1 > max_length:
            raise ValueError(
                f"generate: expected a prompt and new tokens but the last, which is not read, of at most {max_length} "
                f"positions, which the cache has, got {prompt.shape[-1]} + {num_tokens - 1}"
            )


def _check_options(key: Any, temperature: Any, top_k: int | None, top_p: float | jax.Array | None) -> None:
    if not _is_within(temperature, lambda t: t >= 0):
        raise ValueError(f"generate: expected temperature of at least 0, got {temperature!r}")
    if top_k is not None:
        check_size("generate", "top_k", top_k)
    if top_p is not None and not _is_within(top_p, lambda p: (p > 0) & (p <= 1)):
        raise ValueError(f"generate: expected top_p in (0, 1], got {top_p!r}")
    if key is None and not _is_zero(temperature):
        raise TypeError("generate: expected a key to draw tokens with, got None. Pass key=, or temperature=0.")
    dtype = getattr(key, "dtype", None)
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if key is not None and not (key.ndim == 0 if is_typed else dtype == jnp.uint32 and key.ndim == 1):
        given = repr(key) if dtype is None else f"{dtype}{list(key.shape)}"
        raise TypeError(f"generate: expected a JAX random key, got {given}. Make one with jax.random.key(0).")
