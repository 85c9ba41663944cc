"""What convolutions and pools refuse."""

from collections.abc import Callable
from typing import Any

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

images, sequences = zeros(2, 8, 8, 4), zeros(2, 8, 4)
axes, line = "[..., height, width, channels]", "[..., length, channels]"

# name: (what is done, error, message)
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # Inputs of another shape.
    "reflecting conv, too few positions": (
        lambda: applied(nets.conv(3, (5,), padding="reflect"), (sequences,), zeros(2, 2, 4)),
        ShapeError,
        f"conv(3, (5,), padding='reflect'): expected {line} of at least (3,) positions to continue, got (2, 2, 4).",
    ),
    "circular conv, no position": (
        lambda: applied(nets.conv(3, (5,), padding="circular"), (sequences,), zeros(2, 0, 4)),
        ShapeError,
        f"conv(3, (5,), padding='circular'): expected {line} of at least (1,) positions to continue, got (2, 0, 4).",
    ),
    "depthwise_conv, rank": (
        lambda: nets.depthwise_conv(3).init(KEY, zeros(8, 8)),
        ShapeError,
        f"depthwise_conv(3): expected {axes}, got (8, 8).",
    ),
    "depthwise_conv, channels": (
        lambda: applied(nets.depthwise_conv(3, multiplier=2), (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"depthwise_conv(3, multiplier=2): expected {axes} with 4 channels, got (2, 8, 8, 3).",
    ),
    "depthwise_conv, window larger than the image": (
        lambda: applied(nets.depthwise_conv(3, padding="valid"), (images,), zeros(2, 3, 4)),
        ShapeError,
        f"depthwise_conv(3, padding='valid'): expected {axes} that hold the window (3, 3), got (2, 3, 4).",
    ),
    "separable_conv, rank": (
        lambda: nets.separable_conv(3, (3,)).init(KEY, zeros(8)),
        ShapeError,
        f"separable_conv/depthwise = depthwise_conv((3,), bias=False): expected {line}, got (8,).",
    ),
    "separable_conv, channels": (
        lambda: applied(nets.separable_conv(3, 3), (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"separable_conv/depthwise = depthwise_conv((3, 3), bias=False): expected {axes} with 4 channels, got "
        "(2, 8, 8, 3).",
    ),
    "conv_transpose, rank": (
        lambda: nets.conv_transpose(3, 3).init(KEY, zeros(8, 8)),
        ShapeError,
        f"conv_transpose(3, 3): expected {axes}, got (8, 8).",
    ),
    "conv_transpose, channels": (
        lambda: applied(nets.conv_transpose(3, 3), (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"conv_transpose(3, 3): expected {axes} with 4 channels, got (2, 8, 8, 3).",
    ),
    "conv_transpose in JAX's layout, channels": (
        lambda: applied(nets.conv_transpose(4, 3, groups=2, transpose_kernel=False), (images,), zeros(8, 8, 6)),
        ShapeError,
        f"conv_transpose(4, 3, groups=2, transpose_kernel=False): expected {axes} with 4 channels, got (8, 8, 6).",
    ),
    "conv_transpose, groups": (
        lambda: nets.conv_transpose(4, 3, groups=2).init(KEY, zeros(8, 8, 3)),
        ShapeError,
        f"conv_transpose(4, 3, groups=2): expected {axes} with a multiple of 2 channels, got (8, 8, 3).",
    ),
    "conv_transpose, parameters that do not make groups": (
        lambda: nets.conv_transpose(4, 3, groups=2).apply({"w": zeros(3, 3, 2, 3), "b": zeros(4)}, zeros(8, 8, 3)),
        ShapeError,
        f"conv_transpose(4, 3, groups=2): expected {axes} with a multiple of 2 channels, got (8, 8, 3).",
    ),
    "conv_transpose, nothing left": (
        lambda: applied(nets.conv_transpose(4, 3, padding=2), (images,), zeros(2, 1, 1, 4)),
        ShapeError,
        f"conv_transpose(4, 3, padding=2): expected {axes} of which the padding leaves something, got (2, 1, 1, 4).",
    ),
    "conv_transpose, no position": (
        lambda: applied(nets.conv_transpose(4, 3), (images,), zeros(2, 0, 1, 4)),
        ShapeError,
        f"conv_transpose(4, 3): expected {axes} of which the padding leaves something, got (2, 0, 1, 4).",
    ),
    "conv_local, rank": (
        lambda: nets.conv_local(3, 3).init(KEY, zeros(3, 4)),
        ShapeError,
        f"conv_local(3, 3): expected {axes}, got (3, 4).",
    ),
    "conv_local, no position": (
        lambda: nets.conv_local(3, 3).init(KEY, zeros(0, 2, 3)),
        ShapeError,
        f"conv_local(3, 3): expected {axes} of at least one position, got (0, 2, 3).",
    ),
    "conv_local, window larger than the image": (
        lambda: nets.conv_local(3, 3, padding="valid").init(KEY, zeros(2, 2, 3)),
        ShapeError,
        f"conv_local(3, 3, padding='valid'): expected {axes} that hold the window (3, 3), got (2, 2, 3).",
    ),
    "conv_local, positions": (
        lambda: applied(nets.conv_local(3, 3), (images,), zeros(2, 8, 7, 4)),
        ShapeError,
        f"conv_local(3, 3): expected {axes} that give (8, 8) positions, got (2, 8, 7, 4).",
    ),
    "conv_local, channels": (
        lambda: applied(nets.conv_local(3, 3), (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"conv_local(3, 3): expected {axes} with 4 channels, got (2, 8, 8, 3).",
    ),
    "min_pool, rank": (
        lambda: nets.min_pool(2)(zeros(4, 4)),
        ShapeError,
        f"min_pool(2): expected {axes}, got (4, 4).",
    ),
    "min_pool, window larger than the image": (
        lambda: nets.min_pool(2)(zeros(1, 4, 4)),
        ShapeError,
        f"min_pool(2): expected {axes} that hold the window (2, 2), got (1, 4, 4).",
    ),
    "avg_pool, window larger than the image": (
        lambda: nets.avg_pool(3, count_padding=True)(zeros(2, 4, 4)),
        ShapeError,
        f"avg_pool(3, count_padding=True): expected {axes} that hold the window (3, 3), got (2, 4, 4).",
    ),
    "overlapping max_pool, window larger than the image": (
        lambda: nets.max_pool(3, stride=1)(zeros(2, 4, 4)),
        ShapeError,
        f"max_pool(3, stride=1): expected {axes} that hold the window (3, 3), got (2, 4, 4).",
    ),
    "adaptive_avg_pool, rank": (
        lambda: nets.adaptive_avg_pool(2)(zeros(4, 4)),
        ShapeError,
        f"adaptive_avg_pool(2): expected {axes}, got (4, 4).",
    ),
    "adaptive_avg_pool, no position": (
        lambda: nets.adaptive_avg_pool(2)(zeros(2, 0, 4, 1)),
        ShapeError,
        f"adaptive_avg_pool(2): expected {axes} of at least one position, got (2, 0, 4, 1).",
    ),
    "adaptive_max_pool, rank": (
        lambda: nets.adaptive_max_pool((2,))(zeros(4)),
        ShapeError,
        f"adaptive_max_pool((2,)): expected {line}, got (4,).",
    ),
    "adaptive_max_pool, no position": (
        lambda: nets.adaptive_max_pool((2,))(zeros(0, 4)),
        ShapeError,
        f"adaptive_max_pool((2,)): expected {line} of at least one position, got (0, 4).",
    ),
    "global_avg_pool, rank": (
        lambda: nets.global_avg_pool()(zeros(4, 4)),
        ShapeError,
        f"global_avg_pool(): expected {axes}, got (4, 4).",
    ),
    "global_avg_pool, no position": (
        lambda: nets.global_avg_pool()(zeros(4, 0, 4)),
        ShapeError,
        f"global_avg_pool(): expected {axes} of at least one position, got (4, 0, 4).",
    ),
    "global_max_pool, rank": (
        lambda: nets.global_max_pool(3)(zeros(4, 4, 4)),
        ShapeError,
        "global_max_pool(num_axes=3): expected [..., depth, height, width, channels], got (4, 4, 4).",
    ),
    "global_max_pool, no position": (
        lambda: nets.global_max_pool(1)(zeros(0, 4)),
        ShapeError,
        f"global_max_pool(num_axes=1): expected {line} of at least one position, got (0, 4).",
    ),
    "upsample, rank": (
        lambda: nets.upsample(2)(zeros(4, 4)),
        ShapeError,
        f"upsample(2): expected {axes}, got (4, 4).",
    ),
    "linear upsample, rank": (
        lambda: nets.upsample((2,), method="linear")(zeros(4)),
        ShapeError,
        f"upsample((2,), method='linear'): expected {line}, got (4,).",
    ),
    "linear upsample, no position": (
        lambda: nets.upsample(2, method="linear")(zeros(4, 0, 4)),
        ShapeError,
        f"upsample(2, method='linear'): expected {axes} of at least one position, got (4, 0, 4).",
    ),
    # Parameters of another network.
    "parameters of a conv for a depthwise_conv": (
        lambda: nets.depthwise_conv(3).apply(params_of(nets.conv(3, 3), images), images),
        ShapeError,
        "depthwise_conv(3): expected parameters w [3, 3, 1, any], b [any], got {'b': (3,), 'w': (3, 3, 4, 3)}."
        + REMEDY,
    ),
    "parameters of a depthwise_conv of another multiplier": (
        lambda: nets.depthwise_conv(3, multiplier=3).apply(params_of(nets.depthwise_conv(3), images), images),
        ShapeError,
        "depthwise_conv(3, multiplier=3): expected parameters w [3, 3, 1, 3], b [3], got {'b': (4,), "
        "'w': (3, 3, 1, 4)}." + REMEDY,
    ),
    "parameters of a depthwise_conv, too few for one channel": (
        lambda: nets.depthwise_conv(3, multiplier=5).apply(params_of(nets.depthwise_conv(3), images), zeros(8, 8, 1)),
        ShapeError,
        "depthwise_conv(3, multiplier=5): expected parameters w [3, 3, 1, 5], b [5], got {'b': (4,), "
        "'w': (3, 3, 1, 4)}." + REMEDY,
    ),
    "parameters of a separable_conv without the linear map": (
        lambda: nets.separable_conv(3, 3).apply({"depthwise": {"w": zeros(3, 3, 1, 4)}}, images),
        ShapeError,
        "separable_conv/pointwise = conv(3, (1, 1)): expected parameters w [1, 1, any, 3], b [3], got nothing."
        + REMEDY,
    ),
    "parameters of a conv for a separable_conv": (
        lambda: nets.separable_conv(3, 3).apply(params_of(nets.conv(3, 3), images), images),
        NetError,
        "separable_conv(3, 3): expected params of the children ['depthwise', 'pointwise'], got ['b', 'w']." + REMEDY,
    ),
    "parameters of a conv_transpose of other groups": (
        lambda: nets.conv_transpose(4, 3, groups=2).apply(params_of(nets.conv_transpose(4, 3), images), images),
        ShapeError,
        "conv_transpose(4, 3, groups=2): expected parameters w [3, 3, 2, any], b [4], got {'b': (4,), "
        "'w': (3, 3, 4, 4)}." + REMEDY,
    ),
    "parameters of a conv_local of another kernel": (
        lambda: nets.conv_local(3, 3).apply(params_of(nets.conv_local(3, 5), images), images),
        ShapeError,
        "conv_local(3, 3): expected parameters w [any, any, 3, 3, any, 3], b [any, any, 3], got {'b': (8, 8, 3), "
        "'w': (8, 8, 5, 5, 4, 3)}." + REMEDY,
    ),
    "parameters of a conv_local of two sizes": (
        lambda: nets.conv_local(3, 3).apply({"w": zeros(8, 8, 3, 3, 4, 3), "b": zeros(1, 8, 3)}, images),
        ShapeError,
        "conv_local(3, 3): expected parameters w [8, 8, 3, 3, any, 3], b [8, 8, 3], got {'b': (1, 8, 3), "
        "'w': (8, 8, 3, 3, 4, 3)}." + REMEDY,
    ),
    "parameters for a pool": (
        lambda: nets.adaptive_avg_pool(2).apply({"w": zeros(3)}, images),
        ShapeError,
        "adaptive_avg_pool(2): expected parameters none, got {'w': (3,)}." + REMEDY,
    ),
    # Constructors.
    "causal conv over two axes": (
        lambda: nets.conv(3, 3, padding="causal"),
        ValueError,
        "conv: expected a kernel of one axis, that of time, for 'causal', got 3",
    ),
    "depthwise_conv, kernel": (
        lambda: nets.depthwise_conv(0),
        ValueError,
        "depthwise_conv: expected kernel to be an integer of at least 1, got 0",
    ),
    "depthwise_conv, multiplier": (
        lambda: nets.depthwise_conv(3, multiplier=0),
        ValueError,
        "depthwise_conv: expected multiplier to be an integer of at least 1, got 0",
    ),
    "depthwise_conv, stride of another length": (
        lambda: nets.depthwise_conv(3, stride=(1,)),
        ValueError,
        "depthwise_conv: expected stride to be an integer or 2 of them, got (1,)",
    ),
    "separable_conv, features": (
        lambda: nets.separable_conv(0, 3),
        ValueError,
        "separable_conv: expected features to be an integer of at least 1, got 0",
    ),
    "separable_conv, multiplier": (
        lambda: nets.separable_conv(3, 3, multiplier=1.5),  # pyright: ignore[reportArgumentType]
        ValueError,
        "separable_conv: expected multiplier to be an integer of at least 1, got 1.5",
    ),
    "separable_conv, dilation": (
        lambda: nets.separable_conv(3, 3, dilation=0),
        ValueError,
        "separable_conv: expected dilation to be an integer of at least 1, got 0",
    ),
    "conv_transpose, features": (
        lambda: nets.conv_transpose(0, 3),
        ValueError,
        "conv_transpose: expected features to be an integer of at least 1, got 0",
    ),
    "conv_transpose, number of groups": (
        lambda: nets.conv_transpose(3, 3, groups=0),
        ValueError,
        "conv_transpose: expected groups to be an integer of at least 1, got 0",
    ),
    "conv_transpose, features and groups": (
        lambda: nets.conv_transpose(3, 3, groups=2),
        ValueError,
        "conv_transpose: expected features to be a multiple of groups = 2, got 3",
    ),
    "conv_transpose, unknown padding": (
        lambda: nets.conv_transpose(3, 3, padding="circular"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "conv_transpose: expected padding to be 'same', 'valid', a number or 2 pairs (before, after), got 'circular'",
    ),
    "conv_transpose, output_padding with a word": (
        lambda: nets.conv_transpose(3, 3, stride=2, output_padding=1),
        ValueError,
        "conv_transpose: expected padding to be numbers where output_padding is given, got 'same'",
    ),
    "conv_transpose, output_padding of a whole step": (
        lambda: nets.conv_transpose(3, 3, padding=0, stride=2, output_padding=2),
        ValueError,
        "conv_transpose: expected output_padding smaller than the stride or the dilation, (2, 2), got 2",
    ),
    "conv_transpose, negative output_padding": (
        lambda: nets.conv_transpose(3, 3, padding=0, output_padding=-1),
        ValueError,
        "conv_transpose: expected output_padding to be an integer of at least 0, got -1",
    ),
    "conv_local, features": (
        lambda: nets.conv_local(0, 3),
        ValueError,
        "conv_local: expected features to be an integer of at least 1, got 0",
    ),
    "conv_local, causal over two axes": (
        lambda: nets.conv_local(3, (3, 3), padding="causal"),
        ValueError,
        "conv_local: expected a kernel of one axis, that of time, for 'causal', got (3, 3)",
    ),
    "min_pool, padding": (
        lambda: nets.min_pool(2, padding="circular"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "min_pool: expected padding to be 'same', 'valid', a number or 2 pairs (before, after), got 'circular'",
    ),
    "min_pool, stride": (
        lambda: nets.min_pool(2, stride=0),
        ValueError,
        "min_pool: expected stride to be an integer of at least 1, got 0",
    ),
    "adaptive_avg_pool, sizes": (
        lambda: nets.adaptive_avg_pool((1, 2, 3, 4)),
        ValueError,
        "adaptive_avg_pool: expected sizes for one to three spatial axes, got (1, 2, 3, 4)",
    ),
    "adaptive_max_pool, sizes": (
        lambda: nets.adaptive_max_pool(0),
        ValueError,
        "adaptive_max_pool: expected sizes to be an integer of at least 1, got 0",
    ),
    "global_avg_pool, num_axes": (
        lambda: nets.global_avg_pool(0),
        ValueError,
        "global_avg_pool: expected num_axes to be an integer of at least 1, got 0",
    ),
    "global_max_pool, four axes": (
        lambda: nets.global_max_pool(4),
        ValueError,
        "global_max_pool: expected num_axes of at most 3, got 4",
    ),
    "upsample, factor": (
        lambda: nets.upsample(0),
        ValueError,
        "upsample: expected factor to be an integer of at least 1, got 0",
    ),
    "upsample, method": (
        lambda: nets.upsample(2, method="cubic"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "upsample: expected method to be 'nearest' or 'linear', got 'cubic'",
    ),
    **{
        f"{net!r}, complex numbers": (
            lambda net=net: net(zeros(4, 4, 3, dtype="complex64")),
            ShapeError,
            f"{net!r}: expected an input of real numbers, got complex64 (4, 4, 3).",
        )
        for net in (nets.max_pool(2), nets.min_pool(3, padding=1), nets.adaptive_max_pool(2), nets.global_max_pool())
    },
}
