"""What squeeze and excitation, mixtures of experts, quantisers and moving averages refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

rows, images = zeros(4, 3), zeros(2, 4, 4, 8)
excite, quantise, follow, average = (
    nets.squeeze_excite(4),
    nets.vector_quantise(5),
    nets.vector_quantise_ema(5),
    nets.ema(0.9),
)
experts = nets.mixture_of_experts(nets.linear(2), 3)
limited = nets.mixture_of_experts(nets.linear(2), 3, capacity_factor=1.0)
LINEAR = "mixture_of_experts(linear(2), 3)"


def experts_of(**options: Any) -> nets.Net:
    return nets.mixture_of_experts(nets.linear(2), 3, **options)


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "squeeze_excite, rank at init": (
        lambda: excite.init(KEY, rows),
        ShapeError,
        "squeeze_excite(ratio=4): expected [..., height, width, channels], got (4, 3).",
    ),
    "squeeze_excite, channels": (
        lambda: applied(excite, (images,), zeros(2, 4, 4, 5)),
        ShapeError,
        "squeeze_excite(ratio=4): expected [..., height, width, channels] with 8 channels, got (2, 4, 4, 5).",
    ),
    "squeeze_excite, rank": (
        lambda: applied(excite, (images,), zeros(4, 8)),
        ShapeError,
        "squeeze_excite(ratio=4): expected [..., height, width, channels] with 8 channels, got (4, 8).",
    ),
    "squeeze_excite, parameters of another ratio": (
        lambda: excite.apply(params_of(nets.squeeze_excite(2), images), images),
        ShapeError,
        "squeeze_excite(ratio=4): expected parameters squeeze/w [8, 2], squeeze/b [2], excite/w [2, 8], excite/b [8], "
        "got {'excite/b': (8,), 'excite/w': (4, 8), 'squeeze/b': (4,), 'squeeze/w': (8, 4)}." + REMEDY,
    ),
    "squeeze_excite, parameters without a layer": (
        lambda: excite.apply({"squeeze": zeros(3)}, images),
        NetError,
        "squeeze_excite(ratio=4): expected params of ['squeeze', 'excite'], got ['squeeze']." + REMEDY,
    ),
    "squeeze_excite, arrays for layers": (
        lambda: excite.apply({"squeeze": zeros(3), "excite": zeros(3)}, images),
        ShapeError,
        "squeeze_excite(ratio=4): expected parameters squeeze/w [any, any], squeeze/b [any], excite/w [any, any], "
        "excite/b [any], got {'excite/': (3,), 'squeeze/': (3,)}." + REMEDY,
    ),
    "squeeze_excite, ratio": (
        lambda: nets.squeeze_excite(0),
        ValueError,
        "squeeze_excite: expected ratio to be an integer of at least 1, got 0",
    ),
    "squeeze_excite, hidden": (
        lambda: nets.squeeze_excite(hidden=0),
        ValueError,
        "squeeze_excite: expected hidden to be an integer of at least 1, got 0",
    ),
    "squeeze_excite, num_axes": (
        lambda: nets.squeeze_excite(num_axes=4),
        ValueError,
        "squeeze_excite: expected num_axes to be 1, 2 or 3, got 4",
    ),
    "mixture_of_experts, rank": (
        lambda: experts.init(KEY, zeros()),
        ShapeError,
        f"{LINEAR}: expected an input [..., features], got ().",
    ),
    "mixture_of_experts, rank with a capacity": (
        lambda: limited.init(KEY, zeros(3)),
        ShapeError,
        "mixture_of_experts(linear(2), 3, capacity_factor=1.0): expected an input [..., tokens, features], got (3,).",
    ),
    "mixture_of_experts, size": (
        lambda: applied(experts, (rows,), zeros(4, 5)),
        ShapeError,
        "mixture_of_experts/router = linear(3, bias=False): expected an input [..., 3], got (4, 5).",
    ),
    "mixture_of_experts, parameters of another number": (
        lambda: experts.apply(params_of(nets.mixture_of_experts(nets.linear(2), 4), rows), rows),
        ShapeError,
        "mixture_of_experts/router = linear(3, bias=False): expected parameters w [any, 3], got {'w': (3, 4)}."
        + REMEDY,
    ),
    "mixture_of_experts, parameters of other experts": (
        lambda: experts.apply(params_of(nets.mixture_of_experts(nets.linear(4), 3), rows), rows),
        ShapeError,
        "mixture_of_experts/experts = linear(2): expected parameters w [any, 2], b [2], got {'b': (4,), 'w': (3, 4)}."
        + REMEDY,
    ),
    "mixture_of_experts, an expert of two outputs": (
        lambda: nets.mixture_of_experts(nets.parallel(nets.linear(2), nets.linear(3)), 3).init(KEY, rows),
        ShapeError,
        "mixture_of_experts(parallel(linear(2), linear(3)), 3): expected an expert that returns one array [4, out], "
        "got ((4, 2), (4, 3)).",
    ),
    "mixture_of_experts, an expert that sums": (
        lambda: nets.mixture_of_experts(nets.serial(nets.linear(2), np.sum), 3, capacity_factor=1).init(KEY, rows),
        ShapeError,
        "mixture_of_experts(serial(linear(2), sum), 3, capacity_factor=1): expected an expert that returns one array "
        "[3, out], got ().",
    ),
    "mixture_of_experts, an expert of a number": (
        lambda: nets.mixture_of_experts(nets.serial(nets.linear(2), np.sum), 3).init(KEY, zeros(5)),
        ShapeError,
        "mixture_of_experts(serial(linear(2), sum), 3): expected an expert that returns one array [out], got ().",
    ),
    "mixture_of_experts, not a network": (
        lambda: nets.mixture_of_experts(3, 2),  # pyright: ignore[reportArgumentType]
        TypeError,
        "mixture_of_experts: expected a network, got 3",
    ),
    "mixture_of_experts, num_experts": (
        lambda: nets.mixture_of_experts(nets.linear(2), 0),
        ValueError,
        "mixture_of_experts: expected num_experts to be an integer of at least 1, got 0",
    ),
    "mixture_of_experts, top_k of 0": (
        lambda: experts_of(top_k=0),
        ValueError,
        "mixture_of_experts: expected top_k to be an integer of at least 1, got 0",
    ),
    "mixture_of_experts, top_k of too many": (
        lambda: experts_of(top_k=4),
        ValueError,
        "mixture_of_experts: expected top_k to be at most num_experts = 3, got 4",
    ),
    "mixture_of_experts, gates": (
        lambda: experts_of(gates="none"),
        ValueError,
        "mixture_of_experts: expected gates to be 'chosen' or 'all', got 'none'",
    ),
    "mixture_of_experts, a gate of 1": (
        lambda: experts_of(top_k=1),
        ValueError,
        "mixture_of_experts: expected gates='all' with top_k=1, got 'chosen': the router would not learn",
    ),
    "mixture_of_experts, capacity_factor": (
        lambda: experts_of(capacity_factor=0.0),
        ValueError,
        "mixture_of_experts: expected capacity_factor to be None or above 0, got 0.0",
    ),
    "vector_quantise, rank": (
        lambda: quantise.init(KEY, zeros()),
        ShapeError,
        "vector_quantise(5): expected an input [..., features], got ().",
    ),
    "vector_quantise, size": (
        lambda: applied(quantise, (rows,), zeros(4, 5)),
        ShapeError,
        "vector_quantise(5): expected an input [..., 3], got (4, 5).",
    ),
    "vector_quantise, parameters of another number": (
        lambda: quantise.apply(params_of(nets.vector_quantise(4), rows), rows),
        ShapeError,
        "vector_quantise(5): expected parameters w [5, any], got {'w': (4, 3)}." + REMEDY,
    ),
    "vector_quantise, num_codes": (
        lambda: nets.vector_quantise(0),
        ValueError,
        "vector_quantise: expected num_codes to be an integer of at least 1, got 0",
    ),
    "vector_quantise, commitment": (
        lambda: nets.vector_quantise(5, commitment=-1.0),
        ValueError,
        "vector_quantise: expected commitment of at least 0, got -1.0",
    ),
    "vector_quantise_ema, rank": (
        lambda: follow.init(KEY, zeros()),
        ShapeError,
        "vector_quantise_ema(5): expected an input [..., features], got ().",
    ),
    "vector_quantise_ema, size": (
        lambda: applied(follow, (rows,), zeros(4, 5)),
        ShapeError,
        "vector_quantise_ema(5): expected an input [..., 3], got (4, 5).",
    ),
    "vector_quantise_ema, parameters": (
        lambda: follow.apply({"w": rows}, params_of(follow, rows)[1], rows),
        ShapeError,
        "vector_quantise_ema(5): expected parameters none, got {'w': (4, 3)}." + REMEDY,
    ),
    "vector_quantise_ema, state of another number": (
        lambda: follow.apply({}, params_of(nets.vector_quantise_ema(4), rows)[1], rows),
        ShapeError,
        "vector_quantise_ema(5): expected state w [5, any], number [5], sum [5, any], weight [], got {'number': (4,), "
        "'sum': (4, 3), 'w': (4, 3), 'weight': ()}." + REMEDY,
    ),
    "vector_quantise_ema, num_codes": (
        lambda: nets.vector_quantise_ema(0),
        ValueError,
        "vector_quantise_ema: expected num_codes to be an integer of at least 1, got 0",
    ),
    "vector_quantise_ema, commitment": (
        lambda: nets.vector_quantise_ema(5, commitment=-1.0),
        ValueError,
        "vector_quantise_ema: expected commitment of at least 0, got -1.0",
    ),
    "vector_quantise_ema, decay": (
        lambda: nets.vector_quantise_ema(5, decay=1.0),
        ValueError,
        "vector_quantise_ema: expected decay in [0, 1), got 1.0",
    ),
    "vector_quantise_ema, eps": (
        lambda: nets.vector_quantise_ema(5, eps=0.0),
        ValueError,
        "vector_quantise_ema: expected eps above 0, got 0.0",
    ),
    "ema, decay": (
        lambda: nets.ema(1.0),
        ValueError,
        "ema: expected decay in [0, 1), got 1.0",
    ),
    "ema, parameters": (
        lambda: average.apply({"w": rows}, params_of(average, rows)[1], rows),
        ShapeError,
        "ema(0.9): expected parameters none, got {'w': (4, 3)}." + REMEDY,
    ),
    "ema, state of another network": (
        lambda: average.apply({}, {"mean": rows}, rows),
        ShapeError,
        "ema(0.9): expected state average and weight [], got {'mean': (4, 3)}." + REMEDY,
    ),
    "ema, shape": (
        lambda: applied(average, (rows,), zeros(4, 5)),
        ShapeError,
        "ema(0.9): expected an input like the average, (4, 3), got (4, 5).",
    ),
    "ema, structure": (
        lambda: applied(average, ({"a": rows, "b": rows},), {"a": rows}),
        ShapeError,
        "ema(0.9): expected an input like the average, {'a': (4, 3), 'b': (4, 3)}, got {'a': (4, 3)}.",
    ),
}  # fmt: skip
