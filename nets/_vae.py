"""Networks that learn a distribution of codes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._check import at_least_float32, check_size, dtype_for
from ._combine import Layer, as_net
from ._define import define
from ._errors import NetError
from ._linear import linear
from ._net import Net, layer


class VAEOutput(NamedTuple):
    """What a `vae` returns: what it reads off a code, and the normal distribution that the code came from.

    Attributes:
      reconstruction: the decoder's output: of the kind that the likelihood takes, logits say.
      mean: of the codes, `[..., latent_size]`.
      log_var: logarithm of their variance, `[..., latent_size]`.
    """

    reconstruction: jax.Array
    mean: jax.Array
    log_var: jax.Array


@layer
def vae(encoder: Layer, decoder: Layer, latent_size: int) -> Net:
    """A variational autoencoder: inputs to a normal distribution over codes, and a code of it back.

    In training the code is `mean + exp(log_var / 2) * noise`; otherwise it is the mean. What is maximised is
    the evidence lower bound, `log p(x | code) - gaussian_kl(mean, log_var)` for each example; for
    pixels in [0, 1] and logits `r`, `log p` is `-sum(sigmoid_binary_cross_entropy(r, x))`. New
    examples are `decoder.apply(params["decoder"], normal(key, [..., latent_size]))`.

    Source: Kingma, Welling 2014, https://arxiv.org/abs/1312.6114, section 3 and appendices B and C.

    Args:
      encoder: a net from an input to `[..., features]`; two linear maps of these are `mean` and `log_var`.
      decoder: a net from `[..., latent_size]` to a reconstruction.
      latent_size: size of a code.
    Returns:
      A net from `x` to a `VAEOutput`, stateful if one of the two is, with params
      `{"encoder": ..., "mean": {"w", "b"}, "log_var": {"w", "b"}, "decoder": ...}`; it takes `key` in training.
    Raises:
      NetError: in training without a key.

    >>> net = vae(mlp(32), mlp(32, 64), 2)
    >>> x = jnp.ones((5, 64))
    >>> params = net.init(jax.random.key(0), x)
    >>> out = net.apply(params, x, key=jax.random.key(1), train=True)
    >>> out.reconstruction.shape, out.mean.shape, out.log_var.shape
    ((5, 64), (5, 2), (5, 2))
    """
    check_size("vae", "latent_size", latent_size)

    @define
    def body(
        x,
        *,
        encoder=as_net(encoder),
        mean=linear(latent_size),
        log_var=linear(latent_size),
        decoder=as_net(decoder),
        key,
        train,
    ):
        if train and key is None:
            raise NetError("a key in training", "None", "Pass key= to apply.")
        features = encoder(x)
        centre, spread = mean(features), log_var(features)
        code = centre
        if train:
            code += jnp.exp(spread / 2) * jax.random.normal(key, centre.shape, centre.dtype)
        return VAEOutput(decoder(code), centre, spread)

    return body


def gaussian_kl(mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of a normal distribution from the standard one, summed over the last axis.

    Source: Kingma, Welling 2014, https://arxiv.org/abs/1312.6114, appendix B.

    Args:
      mean: of each independent component, `[..., latents]`.
      log_var: logarithm of its variance, `[..., latents]`.
    Returns:
      The divergence `[...]` in nats, at least 0, and 0 where the distributions are equal.
    Raises:
      ValueError: if the two differ in shape, or have no last axis.

    >>> gaussian_kl(jnp.array([1.0, 0.0]), jnp.zeros(2)).item()
    0.5
    """
    mean, log_var = jnp.asarray(mean), jnp.asarray(log_var)
    if mean.shape != log_var.shape or mean.ndim < 1:
        raise ValueError(
            f"gaussian_kl: expected mean and log_var of one shape [..., latents], got {mean.shape} and {log_var.shape}"
        )
    dtype = dtype_for(mean)
    mean, log_var = (array.astype(at_least_float32(dtype)) for array in (mean, log_var))
    # expm1 is exact where the variance is near 1, and the divergence near 0.
    return ((jnp.square(mean) + jnp.expm1(log_var) - log_var) / 2).sum(-1).astype(dtype)
