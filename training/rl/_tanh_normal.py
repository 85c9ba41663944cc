"""Normal distributions of actions between bounds, by a tanh."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ._distributions import Normal, check_action, like, real_parameters

_NODES = np.linspace(-8.0, 8.0, 129)
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


class TanhNormal(NamedTuple):
    """Independent real numbers between bounds, from `tanh_normal`.

    Attributes:
      mean: before the tanh, `[batch..., actions]`.
      scale: standard deviations before the tanh, `[batch..., actions]`.
      low: least actions, `[batch..., actions]`.
      high: greatest actions, `[batch..., actions]`.
    """

    mean: jax.Array
    scale: jax.Array
    low: jax.Array
    high: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """An action, `[batch..., actions]`."""
        return self._squashed(self._base.sample(key))

    def log_prob(self, action: ArrayLike) -> jax.Array:
        """The log of an action's density, `[batch...]`.

        An action that was rounded to a bound counts as the one a quarter of a rounding error away from it. What an
        action's own rounding hides, `sample_and_log_prob` knows.
        """
        check_action("TanhNormal", action, self.mean.shape)
        action, width = jnp.asarray(action, self.mean.dtype), self.high - self.low
        # The distances to the bounds are exact next to them, where that of tanh's argument to 1 is not.
        least = width * jnp.finfo(width.dtype).eps / 4
        below, above = (jnp.log(jnp.maximum(gap, least)) for gap in (action - self.low, self.high - action))
        slopes = below + above - jnp.log(width / 2)
        return self._base.log_prob((below - above) / 2) - jnp.sum(slopes, -1)

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An action, and the log of its density, exact however near to a bound it is."""
        before = self._base.sample(key)
        return self._squashed(before), self._base.log_prob(before) - jnp.sum(self._log_slopes(before), -1)

    def entropy(self) -> jax.Array:
        """In nats, `[batch...]`, by quadrature: to 1e-6 for scales up to 5."""
        nodes = jnp.asarray(_NODES, self.mean.dtype).reshape(-1, *[1] * self.mean.ndim)
        slopes = self._log_slopes(self.mean + self.scale * nodes)
        gained = jnp.tensordot(jnp.asarray(_WEIGHTS, self.mean.dtype), slopes, 1, precision="highest")
        return self._base.entropy() + jnp.sum(gained, -1)

    def mode(self) -> jax.Array:
        """Where the mean leads, `[batch..., actions]`; the density itself may be highest at a bound."""
        return self._squashed(self.mean)

    def _squashed(self, before: jax.Array) -> jax.Array:
        action = self.low + (self.high - self.low) / 2 * (1 + jnp.tanh(before))
        return jnp.clip(action, self.low, self.high)

    def _log_slopes(self, before: jax.Array) -> jax.Array:
        """The log of the derivative of `_squashed`."""
        return jnp.log((self.high - self.low) / 2) + 2 * (jnp.log(2.0) - before - jax.nn.softplus(-2 * before))

    @property
    def _base(self) -> Normal:
        return Normal(self.mean, self.scale)


def tanh_normal(mean: ArrayLike, scale: ArrayLike, *, low: ArrayLike = -1.0, high: ArrayLike = 1.0) -> TanhNormal:
    """Normal distributions sent between bounds by a tanh, as of SAC: `low + (high - low) * (1 + tanh(u)) / 2`.

    Source: Haarnoja, Zhou, Abbeel, Levine 2018, https://arxiv.org/abs/1801.01290, appendix C.

    Args:
      mean: of `u`, `[batch..., actions]`.
      scale: standard deviations of `u`, above 0, that broadcast to the mean.
      low: the least action, that broadcasts to the mean.
      high: the greatest action, above `low`.
    Returns:
      A `TanhNormal`: a `Distribution`, a pytree of `[batch..., actions]`, in at least single precision.
    Raises:
      ValueError: for a mean without axes, what does not broadcast to it, and numbers out of order.
      ImportError: without NumPyro, of the extra `rl`.

    >>> policy = tanh_normal(jnp.zeros((5, 2)), 1.0, low=0.0, high=10.0)
    >>> action, log_prob = policy.sample_and_log_prob(jax.random.key(0))
    >>> action.shape, log_prob.shape, policy.mode()[0].tolist()
    ((5, 2), (5,), [5.0, 5.0])
    """
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
        raise ValueError(f"tanh_normal: expected low below high, got {low!r} and {high!r}.")
    mean, scale = real_parameters("tanh_normal", mean, scale)
    bounds = (("low", low), ("high", high))
    return TanhNormal(mean, scale, *(like("tanh_normal", name, bound, mean) for name, bound in bounds))
