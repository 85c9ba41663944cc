"""Losses of generators and their critics, and penalties on the critic's slope."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Critic = Callable[[Any], jax.Array]


class GanLosses(NamedTuple):
    """The losses of both players, each `[]`.

    Attributes:
      generator: what the generator descends.
      critic: what the critic, or discriminator, descends.
    """

    generator: jax.Array
    critic: jax.Array


def non_saturating_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """The critic tells real from fake by the logistic loss; the generator wants its samples to be called real.

    Source: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, section 3.

    Args:
      on_real: the critic's logits on data, of any shape.
      on_fake: its logits on samples.
    Returns:
      `GanLosses(generator, critic)`.

    >>> [round(loss.item(), 4) for loss in non_saturating_gan(jnp.zeros(3), jnp.zeros(3))]
    [0.6931, 1.3863]
    """
    return GanLosses(jnp.mean(_softplus(-on_fake)), jnp.mean(_softplus(-on_real)) + jnp.mean(_softplus(on_fake)))


def saturating_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """The zero-sum game of the logistic loss, whose generator learns little while the critic is sure.

    Source: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, equation 1.

    Args:
      on_real: the critic's logits on data, of any shape.
      on_fake: its logits on samples.
    Returns:
      `GanLosses(generator, critic)`.

    >>> [round(loss.item(), 4) for loss in saturating_gan(jnp.zeros(3), jnp.zeros(3))]
    [-1.3863, 1.3863]
    """
    critic = non_saturating_gan(on_real, on_fake).critic
    return GanLosses(-critic, critic)


def wasserstein_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """The critic's means apart: its loss needs a penalty, or weights, that keep it Lipschitz.

    Source: Arjovsky, Chintala, Bottou 2017, https://arxiv.org/abs/1701.07875, equation 2.

    Args:
      on_real: the critic's values on data, of any shape.
      on_fake: its values on samples.
    Returns:
      `GanLosses(generator, critic)`.

    >>> [loss.item() for loss in wasserstein_gan(jnp.array([3.0]), jnp.array([1.0]))]
    [-1.0, -2.0]
    """
    return GanLosses(-jnp.mean(on_fake), jnp.mean(on_fake) - jnp.mean(on_real))


def hinge_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """The critic wants margins of 1, and no more.

    Source: Lim, Ye 2017, https://arxiv.org/abs/1705.02894; Miyato et al. 2018, https://arxiv.org/abs/1802.05957,
    equations 16 and 17.

    Args:
      on_real: the critic's values on data, of any shape.
      on_fake: its values on samples.
    Returns:
      `GanLosses(generator, critic)`.

    >>> [loss.item() for loss in hinge_gan(jnp.array([0.5]), jnp.array([-2.0]))]
    [2.0, 0.5]
    """
    critic = jnp.mean(jax.nn.relu(1 - on_real)) + jnp.mean(jax.nn.relu(1 + on_fake))
    return GanLosses(-jnp.mean(on_fake), critic)


def least_squares_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """The critic wants 1 on data and 0 on samples, the generator 1 on samples.

    Source: Mao et al. 2017, https://arxiv.org/abs/1611.04076, equation 9.

    Args:
      on_real: the critic's values on data, of any shape.
      on_fake: its values on samples.
    Returns:
      `GanLosses(generator, critic)`.

    >>> [loss.item() for loss in least_squares_gan(jnp.array([0.0]), jnp.array([1.0]))]
    [0.0, 1.0]
    """
    critic = 0.5 * jnp.mean((on_real - 1) ** 2) + 0.5 * jnp.mean(on_fake**2)
    return GanLosses(0.5 * jnp.mean((on_fake - 1) ** 2), critic)


def relativistic_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """The critic tells which is more real, the generator wants the contrary; both look at both.

    Source: Jolicoeur-Martineau 2019, https://arxiv.org/abs/1807.00734, equations 7 and 8 (pairs).

    Args:
      on_real: the critic's logits on data, `[...]`.
      on_fake: its logits on as many samples, `[...]`; the first is paired with the first.
    Returns:
      `GanLosses(generator, critic)`.
    Raises:
      ValueError: if the shapes differ.

    >>> [round(loss.item(), 4) for loss in relativistic_gan(jnp.array([1.0]), jnp.array([1.0]))]
    [0.6931, 0.6931]
    """
    _check_pairs("relativistic_gan", on_real, on_fake)
    return GanLosses(jnp.mean(_softplus(on_real - on_fake)), jnp.mean(_softplus(on_fake - on_real)))


def relativistic_average_gan(on_real: jax.Array, on_fake: jax.Array) -> GanLosses:
    """As `relativistic_gan`, against the mean of the other kind.

    Source: Jolicoeur-Martineau 2019, https://arxiv.org/abs/1807.00734, equations 9 and 10.

    Args:
      on_real: the critic's logits on data, of any shape.
      on_fake: its logits on samples.
    Returns:
      `GanLosses(generator, critic)`.

    >>> [round(loss.item(), 4) for loss in relativistic_average_gan(jnp.zeros(2), jnp.zeros(3))]
    [1.3863, 1.3863]
    """
    real, fake = on_real - jnp.mean(on_fake), on_fake - jnp.mean(on_real)
    return GanLosses(
        jnp.mean(_softplus(real)) + jnp.mean(_softplus(-fake)), jnp.mean(_softplus(-real)) + jnp.mean(_softplus(fake))
    )


def gradient_penalty(
    critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, *, target: float = 1.0
) -> jax.Array:
    """How far the critic's slope is from 1 between data and samples: `mean((|slope| - target)^2)`.

    Source: Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, equation 3 (without its weight of 10).

    Args:
      critic: `critic(x) -> values`, one for each example, `[batch]` or `[batch, 1]`; or of one example.
      real: data, `[batch, ...]`.
      fake: as many samples, `[batch, ...]`.
      key: for the places between them.
      target: the slope that is wanted.
    Returns:
      The mean over the batch, `[]`.
    Raises:
      ValueError: if `real` and `fake` differ in shape, or the critic has not one value an example.

    >>> slope_of_three = lambda x: 3 * x[..., 0]
    >>> gradient_penalty(slope_of_three, jnp.ones((4, 2)), jnp.zeros((4, 2)), jax.random.key(0)).item()
    4.0
    """
    _check_pairs("gradient_penalty", real, fake)
    share = jax.random.uniform(key, (len(real), *[1] * (real.ndim - 1)), real.dtype)
    squares = _slopes("gradient_penalty", critic, share * real + (1 - share) * fake)
    above = squares > 0  # the double where keeps the derivative finite where the slope is zero
    return jnp.mean((jnp.where(above, jnp.sqrt(jnp.where(above, squares, 1)), 0) - target) ** 2)


def slope_penalty(critic: Critic, x: jax.Array) -> jax.Array:
    """The critic's mean squared slope, `mean(|slope|^2)`: R1 on data, R2 on samples.

    Source: Mescheder, Geiger, Nowozin 2018, https://arxiv.org/abs/1801.04406, equations 9 and 10 (without `gamma/2`).

    Args:
      critic: as for `gradient_penalty`.
      x: data or samples, `[batch, ...]`.
    Returns:
      The mean over the batch, `[]`.
    Raises:
      ValueError: if the critic has not one value an example.

    >>> slope_penalty(lambda x: 3 * x[..., 0], jnp.ones((4, 2))).item()
    9.0
    """
    return jnp.mean(_slopes("slope_penalty", critic, x))


def _slopes(name: str, critic: Critic, x: jax.Array) -> jax.Array:
    """Squared norms of the critic's slope, `[batch]`."""

    def total(x: jax.Array) -> jax.Array:
        values = critic(x)
        if values.size != len(x):
            raise ValueError(f"{name}: expected critic to return one value an example, got shape {values.shape}")
        return jnp.sum(values)

    slope = jax.grad(total)(x)
    wide = slope.astype(jnp.promote_types(slope.dtype, jnp.float32))  # half precision squares no more than 255
    return jnp.sum(jnp.square(wide), tuple(range(1, x.ndim)))


def _softplus(x: jax.Array) -> jax.Array:
    return jax.nn.softplus(x)


def _check_pairs(name: str, real: jax.Array, fake: jax.Array) -> None:
    if jnp.shape(real) != jnp.shape(fake):
        raise ValueError(f"{name}: expected as many samples as data, got {jnp.shape(real)} and {jnp.shape(fake)}")
