"""What an ensemble says: its mean, and how far its members agree."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class ClassPrediction(NamedTuple):
    """What classifiers say together.

    Attributes:
      probs: mean of the members' probabilities, `[..., classes]`.
      variance: of the members' probabilities, `[..., classes]`.
      entropy: of `probs`, in nats, `[...]`: all uncertainty.
      mutual_information: between the class and the member, in nats, `[...]`: the part of the entropy that members do
        not agree on, 0 if they say the same.
      disagreement: share of pairs of members whose most probable classes differ, `[...]`; 0 for one member.
    """

    probs: jax.Array
    variance: jax.Array
    entropy: jax.Array
    mutual_information: jax.Array
    disagreement: jax.Array


class ValuePrediction(NamedTuple):
    """What regressions say together.

    Attributes:
      mean: of the members' values, `[...]`.
      variance: of the mixture, `[...]`: that of the members' values, and the mean of their own variances.
    """

    mean: jax.Array
    variance: jax.Array


def predict_classes(logits: ArrayLike) -> ClassPrediction:
    """What an ensemble of classifiers says: the mean of their probabilities, and how uncertain it is.

    Source: Lakshminarayanan, Pritzel, Blundell 2017, https://arxiv.org/abs/1612.01474, section 2.4; mutual information:
    Houlsby, Huszar, Ghahramani, Lengyel 2011, https://arxiv.org/abs/1112.5745, equation 2.

    Args:
      logits: `[members, ..., classes]`.
    Returns:
      A `ClassPrediction`.
    Raises:
      ValueError: if there are no members, or fewer than two axes.

    >>> said = predict_classes(jnp.array([[9.0, -9.0], [-9.0, 9.0]]))
    >>> said.probs.round(3).tolist(), said.disagreement.item(), round(said.mutual_information.item(), 3)
    ([0.5, 0.5], 1.0, 0.693)
    """
    logits = jnp.asarray(logits)
    if logits.ndim < 2 or logits.shape[0] == 0:
        raise ValueError(
            f"predict_classes: expected logits [members, ..., classes], got {logits.shape}. Stack those of the members."
        )
    log_probs = jax.nn.log_softmax(logits)
    each = jnp.exp(log_probs)
    probs = each.mean(0)
    entropy = _entropy(jax.nn.logsumexp(log_probs, 0) - jnp.log(len(logits)))
    shared = jnp.maximum(entropy - _entropy(log_probs).mean(0), 0)
    return ClassPrediction(probs, each.var(0), entropy, shared, _disagreement(logits))


def predict_values(values: ArrayLike, variances: ArrayLike | None = None) -> ValuePrediction:
    """What an ensemble of regressions says: the mean and the variance of the mixture.

    Source: Lakshminarayanan, Pritzel, Blundell 2017, https://arxiv.org/abs/1612.01474, section 2.4.

    Args:
      values: `[members, ...]`, what each predicts.
      variances: `[members, ...]`, how uncertain each says it is; zero unless given.
    Returns:
      A `ValuePrediction`.
    Raises:
      ValueError: if there are no members, or the shapes differ.

    >>> said = predict_values(jnp.array([1.0, 3.0]), jnp.array([0.5, 0.5]))
    >>> said.mean.item(), said.variance.item()
    (2.0, 1.5)
    """
    values = jnp.asarray(values)
    if values.ndim < 1 or values.shape[0] == 0:
        raise ValueError(f"predict_values: expected values [members, ...], got {values.shape}. Stack the members'.")
    if variances is not None and jnp.shape(variances) != values.shape:
        raise ValueError(
            f"predict_values: expected variances of the shape of values, {values.shape}, got {jnp.shape(variances)}. "
            "Give each member's own."
        )
    own = 0 if variances is None else jnp.asarray(variances).mean(0)
    return ValuePrediction(values.mean(0), values.var(0) + own)


def _entropy(log_probs: jax.Array) -> jax.Array:
    probs = jnp.exp(log_probs)
    return -jnp.sum(jnp.where(probs > 0, probs * log_probs, 0), -1)


def _disagreement(logits: jax.Array) -> jax.Array:
    num, classes = logits.shape[0], logits.shape[-1]
    votes = jax.nn.one_hot(jnp.argmax(logits, -1), classes, dtype=logits.dtype).mean(0)
    return (1 - jnp.sum(votes**2, -1)) * (num / max(num - 1, 1))
