"""Convolutions and pools beyond the plain ones."""

import jax
import jax.numpy as jnp

from renga import nets

from ..kit import Case, floats

CASES: dict[str, Case] = {
    "causal conv": Case(lambda: nets.conv(3, (3,), padding="causal", stride=2, dilation=2), floats(2, 7, 3)),
    "circular conv": Case(
        lambda: nets.conv(3, (4, 3), padding="circular", stride=(1, 2)), floats(2, 5, 4, 2), long=True
    ),
    "reflected conv": Case(lambda: nets.conv(2, (2, 3, 2), padding="reflect"), floats(2, 3, 4, 3, 1), long=True),
    "depthwise conv": Case(lambda: nets.depthwise_conv(3), floats(2, 5, 4, 3)),
    "depthwise conv of one axis": Case(
        lambda: nets.depthwise_conv((3,), multiplier=2, dilation=2, bias=False), floats(2, 6, 3), long=True
    ),
    "separable conv": Case(lambda: nets.separable_conv(4, 3), floats(2, 5, 4, 3)),
    "separable conv of three axes": Case(
        lambda: nets.separable_conv(2, (2, 2, 2), multiplier=3, stride=2, bias=False), floats(2, 4, 3, 2, 2), long=True
    ),
    "transposed conv": Case(lambda: nets.conv_transpose(3, 3, stride=2), floats(2, 4, 3, 2)),
    "transposed conv of one axis": Case(
        lambda: nets.conv_transpose(3, (2,), stride=3, padding="valid"), floats(2, 4, 2), long=True
    ),
    "transposed conv of numbers": Case(
        lambda: nets.conv_transpose(4, 3, stride=2, padding=1, output_padding=1, dilation=(2, 1), groups=2),
        floats(2, 4, 3, 2),
    ),
    "transposed conv in JAX's layout": Case(
        lambda: nets.conv_transpose(3, (2, 3, 2), transpose_kernel=False, bias=False), floats(2, 3, 2, 3, 2), long=True
    ),
    "local conv": Case(lambda: nets.conv_local(3, 2), floats(2, 4, 3, 2)),
    "local conv of one axis": Case(
        lambda: nets.conv_local(3, (3,), stride=2, padding="valid", dilation=2, bias=False), floats(2, 8, 2), long=True
    ),
    "large max_pool": Case(lambda: nets.max_pool(5), floats(2, 6, 5, 3), constant=True),
    "max_pool of three axes": Case(lambda: nets.max_pool((1, 2, 3)), floats(2, 3, 5, 6, 2), constant=True, long=True),
    "min_pool": Case(lambda: nets.min_pool(2), floats(2, 5, 4, 3), constant=True),
    "overlapping min_pool": Case(lambda: nets.min_pool((3,), stride=2, padding=1), floats(2, 6, 3), constant=True),
    "avg_pool that counts padding": Case(
        lambda: nets.avg_pool(3, padding=1, count_padding=True), floats(2, 5, 4, 3), constant=True, long=True
    ),
    "adaptive_avg_pool": Case(lambda: nets.adaptive_avg_pool((3, 2)), floats(2, 7, 4, 3), constant=True),
    "adaptive_max_pool": Case(lambda: nets.adaptive_max_pool((3, 2, 4)), floats(2, 4, 3, 5, 2), constant=True),
    "global_avg_pool": Case(lambda: nets.global_avg_pool(), floats(2, 5, 4, 3), constant=True),
    "global_max_pool": Case(lambda: nets.global_max_pool(1), floats(2, 5, 3), constant=True, long=True),
    "upsample": Case(lambda: nets.upsample(2), floats(2, 3, 4, 3), constant=True),
    "linear upsample": Case(
        lambda: nets.upsample((2, 1, 3), method="linear"), floats(2, 3, 2, 2, 2), constant=True, long=True
    ),
    "convolutional autoencoder": Case(
        lambda: nets.serial(nets.conv(4, 4, stride=2), jax.nn.relu, nets.conv_transpose(2, 4, stride=2)),
        floats(2, 4, 6, 2),
        long=True,
    ),
    "inverted bottleneck": Case(
        lambda: nets.serial(
            nets.conv(6, 1), nets.depthwise_conv(3), jax.nn.relu6, nets.conv(2, 1), nets.global_avg_pool()
        ),
        floats(2, 4, 4, 2),
        long=True,
    ),
    "causal residual": Case(
        lambda: nets.residual(nets.conv(3, (2,), padding="causal", dilation=4), jnp.tanh), floats(2, 6, 3), long=True
    ),
}

DERIVATIVES: dict[str, tuple[nets.Net, tuple[int, ...]]] = {
    "causal conv": (nets.conv(3, (3,), padding="causal", dilation=2), (2, 5, 2)),
    "circular conv": (nets.conv(2, 3, padding="circular"), (1, 3, 4, 2)),
    "depthwise conv": (nets.depthwise_conv((3,), multiplier=2), (2, 4, 2)),
    "separable conv": (nets.separable_conv(2, 2), (1, 3, 3, 2)),
    "transposed conv": (nets.conv_transpose(2, 3, stride=2, padding=1, output_padding=1, groups=2), (1, 2, 3, 2)),
    "local conv": (nets.conv_local(2, (3,)), (2, 4, 2)),
    "min_pool": (nets.min_pool(2), (1, 4, 5, 2)),
    "max_pool of three axes": (nets.max_pool((2, 1, 3)), (1, 4, 2, 3, 2)),
    "adaptive_avg_pool": (nets.adaptive_avg_pool((3, 2)), (1, 5, 4, 2)),
    "adaptive_max_pool": (nets.adaptive_max_pool((3, 2)), (1, 5, 4, 2)),
    "global_max_pool": (nets.global_max_pool(), (2, 3, 3, 2)),
    "linear upsample": (nets.upsample((3,), method="linear"), (2, 3, 2)),
}
