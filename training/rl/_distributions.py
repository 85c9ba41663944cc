"""Distributions of actions, over NumPyro's: pytrees of their numbers, so that networks under `vmap` may return them.

NumPyro's own keep their batch shape beside their numbers and do not come out of a `vmap` or a scan as what they are.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


class Distribution(Protocol):
    """What a policy says of its next action; `batch` are the axes of observations."""

    def sample(self, key: jax.Array) -> jax.Array:
        """An action, `[batch..., ...]`, that follows the derivatives of the parameters where actions are real."""
        ...

    def log_prob(self, action: ArrayLike) -> jax.Array:
        """The log of an action's probability, or of its density, `[batch...]`; further axes of actions in front."""
        ...

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What `sample` gives, and its `log_prob`."""
        ...

    def entropy(self) -> jax.Array:
        """In nats, `[batch...]`."""
        ...

    def mode(self) -> jax.Array:
        """The action to take without chance, `[batch..., ...]`."""
        ...


class Categorical(NamedTuple):
    """One of some actions, from `categorical`.

    Attributes:
      log_probs: of each, `[batch..., actions]`.
    """

    log_probs: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """An action, `[batch...]` of integers."""
        return self._base.sample(key)

    def log_prob(self, action: ArrayLike) -> jax.Array:
        """The log of an action's probability, `[batch...]`."""
        if not jnp.issubdtype(jnp.result_type(action), jnp.integer):
            raise TypeError(f"Categorical.log_prob: expected integers, got {jnp.result_type(action)}.")
        check_action("Categorical", action, self.log_probs.shape[:-1])
        return self._base.log_prob(jnp.asarray(action))

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An action, and the log of its probability."""
        action = self.sample(key)
        return action, self.log_prob(action)

    def entropy(self) -> jax.Array:
        """In nats, `[batch...]`."""
        return self._base.entropy()

    def mode(self) -> jax.Array:
        """The most probable action, `[batch...]`."""
        return jnp.argmax(self.log_probs, -1)

    @property
    def _base(self) -> Any:
        return _numpyro("categorical").Categorical(logits=self.log_probs)


class Normal(NamedTuple):
    """Independent real numbers, from `normal`.

    Attributes:
      mean: `[batch..., actions]`.
      scale: standard deviations, `[batch..., actions]`.
    """

    mean: jax.Array
    scale: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """An action, `[batch..., actions]`."""
        return self._base.sample(key).astype(self.mean.dtype)

    def log_prob(self, action: ArrayLike) -> jax.Array:
        """The log of an action's density, `[batch...]`."""
        check_action("Normal", action, self.mean.shape)
        return self._base.log_prob(jnp.asarray(action, self.mean.dtype))

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An action, and the log of its density."""
        action = self.sample(key)
        return action, self.log_prob(action)

    def entropy(self) -> jax.Array:
        """In nats, `[batch...]`."""
        return self._base.entropy()

    def mode(self) -> jax.Array:
        """The mean, `[batch..., actions]`."""
        return self.mean

    @property
    def _base(self) -> Any:
        return _numpyro("normal").Normal(self.mean, self.scale).to_event(1)


def categorical(logits: ArrayLike, mask: ArrayLike | None = None) -> Categorical:
    """A distribution over some actions.

    Args:
      logits: `[batch..., actions]`; one of minus infinity is that of an illegal action.
      mask: which actions are legal, Booleans that broadcast to the logits. The others are never drawn; their log
        probability is the least number there is, and no derivative comes through them. Without any legal action, all
        are as likely.
    Returns:
      A `Categorical`: a `Distribution`, a pytree of `[batch..., actions]`, in at least single precision.
    Raises:
      ValueError: for logits without axes, and a mask that does not broadcast to them.
      TypeError: if the mask is not of Booleans.
      ImportError: without NumPyro, of the extra `rl`.

    >>> policy = categorical(jnp.zeros((2, 3)), jnp.array([True, True, False]))
    >>> jnp.exp(policy.entropy()).round(4).tolist(), jnp.exp(policy.log_prob(jnp.array([0, 1]))).round(4).tolist()
    ([2.0, 2.0], [0.5, 0.5])
    """
    _numpyro("categorical")
    logits = _at_least_float32(logits)
    if not logits.ndim:
        raise ValueError("categorical: expected logits [..., actions], got shape ().")
    least = jnp.finfo(logits.dtype).min
    logits = jnp.maximum(logits, least)
    if mask is None:
        return Categorical(jax.nn.log_softmax(logits))
    if jnp.result_type(mask) != jnp.bool_:
        raise TypeError(f"categorical: expected mask as Booleans, got {jnp.result_type(mask)}.")
    _check_broadcasts("categorical", "mask", mask, "logits", logits)
    return Categorical(jax.nn.log_softmax(jnp.where(mask, logits, least)))


def normal(mean: ArrayLike, scale: ArrayLike) -> Normal:
    """Independent normal distributions, along the last axis, of real actions.

    Args:
      mean: `[batch..., actions]`.
      scale: standard deviations, above 0, that broadcast to the mean: one number, one for each action, or all.
    Returns:
      A `Normal`: a `Distribution`, a pytree of `[batch..., actions]`, in at least single precision.
    Raises:
      ValueError: for a mean without axes, a scale that does not broadcast to it, and a number that is not above 0.
      ImportError: without NumPyro, of the extra `rl`.

    >>> policy = training.rl.normal(jnp.zeros((5, 2)), jnp.ones(2))
    >>> policy.sample(jax.random.key(0)).shape, policy.log_prob(jnp.zeros((5, 2))).shape
    ((5, 2), (5,))
    """
    return Normal(*real_parameters("normal", mean, scale))


def real_parameters(name: str, mean: ArrayLike, scale: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation, in one shape and dtype.

    Raises:
      ValueError: naming who asks, for what does not fit or is out of range.
      ImportError: without NumPyro.
    """
    _numpyro(name)
    mean = _at_least_float32(mean)
    if not mean.ndim:
        raise ValueError(f"{name}: expected mean [..., actions], got shape ().")
    if isinstance(scale, int | float) and not scale > 0:
        raise ValueError(f"{name}: expected scale above 0, got {scale!r}.")
    return mean, like(name, "scale", scale, mean)


def like(name: str, argument: str, value: ArrayLike, mean: jax.Array) -> jax.Array:
    """A number or an array in the shape and dtype of the mean.

    Raises:
      ValueError: naming who asks, if it does not broadcast.
    """
    # All in one shape: under `vmap`, what is shared by a batch comes out with its axis in front, as the mean does.
    _check_broadcasts(name, argument, value, "mean", mean)
    return jnp.broadcast_to(jnp.asarray(value, mean.dtype), mean.shape)


def _at_least_float32(array: ArrayLike) -> jax.Array:
    return jnp.asarray(array, jnp.promote_types(jnp.result_type(array, 1.0), jnp.float32))


def _check_broadcasts(name: str, argument: str, value: ArrayLike, other: str, onto: jax.Array) -> None:
    try:
        fits = np.broadcast_shapes(jnp.shape(value), onto.shape) == onto.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: expected {argument} that broadcasts to {other}, {onto.shape}, got {jnp.shape(value)}."
        )


def check_action(name: str, action: ArrayLike, shape: tuple[int, ...]) -> None:
    """Refuses actions that would broadcast to others.

    Raises:
      ValueError: naming who asks.
    """
    if jnp.shape(action)[max(jnp.ndim(action) - len(shape), 0) :] != shape:
        raise ValueError(
            f"{name}.log_prob: expected an action of shape {shape}, or further axes in front of it, got "
            f"{jnp.shape(action)}."
        )


def _numpyro(name: str) -> Any:
    try:
        import numpyro.distributions
    except ImportError as error:
        raise ImportError(f"{name}: expected NumPyro, got none. pip install 'renga[rl]'") from error
    return numpyro.distributions
