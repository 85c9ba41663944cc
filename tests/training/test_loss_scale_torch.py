"""How the scale of a loss moves, beside torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import training

torch = pytest.importorskip("torch")


def test_scales_and_gradients_are_those_of_torchs_scaler_over_good_and_bad_batches():
    factors = np.where(np.random.default_rng(0).random(60) < 0.25, np.inf, 1.5).astype(np.float32)
    weight = torch.nn.Parameter(torch.tensor(2.0))
    sgd = torch.optim.SGD([weight], lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    grad = jax.jit(jax.grad(training.loss_scaled(lambda w, x, key: w**2 * x, double_every=3), has_aux=True))
    state = training.loss_scale(2.0**10)
    for factor in factors:
        assert state.scale == scaler.get_scale()
        found, (state, _) = grad(jnp.float32(weight.item()), state, factor)
        sgd.zero_grad()
        scaler.scale(weight**2 * torch.tensor(factor)).backward()
        scaler.unscale_(sgd)
        np.testing.assert_allclose(found, weight.grad.numpy(), rtol=1e-6)
        scaler.step(sgd)
        scaler.update()
