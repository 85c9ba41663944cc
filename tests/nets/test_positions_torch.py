"""Positions equal those of libraries that the benchmarks' extra installs, torch and Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from renga import nets

from .kit import floats, values
from .test_first_torch import assert_parity


def test_rotary_equals_equinox():
    (x,) = values(floats(7, 3, 8))
    # Equinox keeps its first theta for every later one of the same size: its default is the only one to trust.
    peer = jax.vmap(eqx.nn.RotaryPositionalEmbedding(8), 1, 1)
    np.testing.assert_allclose(nets.rotary()(x), peer(x), atol=1e-5)
    weights = jnp.flip(x)
    grads = [jax.grad(lambda x, f=f: jnp.sum(weights * f(x)))(x) for f in (nets.rotary(), peer)]
    np.testing.assert_allclose(*grads, atol=1e-4)


def test_learned_positions_equal_torch():
    assert_parity(nets.learned_positions(5), lambda params, x: x + params["w"][:4], values(floats(2, 4, 3))[0])
