"""Norms: of examples, of batches, of groups of channels, and of weights."""

import jax
import jax.numpy as jnp

from renga import nets

from ..kit import Case, floats

CONSTANT = {"derivatives": "gradients see the singular vectors as constants, as in the paper"}

noisy = nets.residual(nets.linear(5), nets.batch_norm(), nets.dropout(0.5))

CASES = {
    "layer_norm of two axes": Case(
        lambda: nets.layer_norm(num_axes=2, offset=False), floats(3, 4, 5), constant=True, normalises=True, long=True
    ),
    "rms_norm": Case(lambda: nets.rms_norm(), floats(4, 5), constant=True),
    "plain rms_norm of two axes": Case(
        lambda: nets.rms_norm(num_axes=2, scale=False), floats(2, 3, 4), constant=True, long=True
    ),
    "rms_norm from normal": Case(lambda: nets.rms_norm(scale_init=nets.normal(1.0)), floats(4, 6), long=True),
    "group_norm": Case(lambda: nets.group_norm(2), floats(2, 3, 4, 6), constant=True, normalises=True),
    "group_norm of one axis": Case(
        lambda: nets.group_norm(3, num_axes=1, offset=False), floats(2, 5, 6), constant=True, normalises=True, long=True
    ),
    "plain group_norm without axes": Case(
        lambda: nets.group_norm(2, num_axes=0, scale=False, offset=False),
        floats(3, 8),
        constant=True,
        normalises=True,
        long=True,
    ),
    "instance_norm": Case(lambda: nets.instance_norm(), floats(2, 4, 3, 3), constant=True, normalises=True),
    "plain instance_norm of one axis": Case(
        lambda: nets.instance_norm(num_axes=1, scale=False, offset=False),
        floats(3, 6, 2),
        constant=True,
        normalises=True,
        long=True,
    ),
    "masked batch_norm": Case(
        lambda: nets.batch_norm(decay_rate=0.5),
        floats(6, 5),
        constant=True,
        keywords={"mask": jax.ShapeDtypeStruct((6,), jnp.bool)},
    ),
    "weight_norm": Case(
        lambda: nets.weight_norm(nets.serial(nets.linear(4), jax.nn.tanh, nets.linear(2))), floats(4, 5)
    ),
    "weight_norm of stacked weights": Case(
        lambda: nets.weight_norm(nets.repeat(nets.mlp(4, 5), 2), "**/w", num_stacked=1), floats(4, 5), long=True
    ),
    "weight_norm of a conv": Case(lambda: nets.weight_norm(nets.conv(3, 3), "w"), floats(2, 5, 4, 2), long=True),
    "repeated weight_norm": Case(lambda: nets.repeat(nets.weight_norm(nets.linear(5)), 2), floats(4, 5), long=True),
    "weight_norm with state and keys": Case(lambda: nets.weight_norm(noisy), floats(4, 5), draws=True, long=True),
    "spectral_norm": Case(lambda: nets.spectral_norm(nets.mlp(4, 2), num_steps=2), floats(4, 5), exempt=CONSTANT),
    "spectral_norm of a conv": Case(
        lambda: nets.spectral_norm(nets.conv(3, 3)), floats(2, 5, 4, 2), exempt=CONSTANT, long=True
    ),
    "spectral_norm of stacked weights": Case(
        lambda: nets.spectral_norm(nets.repeat(nets.linear(5), 2), num_stacked=1),
        floats(4, 5),
        exempt=CONSTANT,
        long=True,
    ),
    "repeated spectral_norm": Case(
        lambda: nets.repeat(nets.spectral_norm(nets.linear(5)), 2), floats(4, 5), exempt=CONSTANT, long=True
    ),
    "spectral_norm with state and keys": Case(
        lambda: nets.spectral_norm(noisy), floats(4, 5), draws=True, exempt=CONSTANT, long=True
    ),
}
