"""Dropouts take the values that torch's take; collected where torch is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from renga import nets


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_alpha_dropout_takes_the_two_values_that_torch_takes(rate: float, value: float):
    ours = nets.alpha_dropout(rate)(jnp.full(1000, value), key=jax.random.key(0), train=True)
    torch.manual_seed(0)
    theirs = F.alpha_dropout(torch.full((1000,), value), rate, training=True)
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs.numpy()), rtol=1e-6)


def test_dropout_of_channels_takes_the_values_of_torch():
    ours = nets.dropout(0.25, broadcast_axes=(-3, -2))(jnp.ones((8, 4, 4, 32)), key=jax.random.key(0), train=True)
    torch.manual_seed(0)
    theirs = F.dropout2d(torch.ones(8, 32, 4, 4), 0.25, training=True)
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs.numpy()), rtol=1e-6)
