"""What the recurrent language model refuses."""

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, applied, zeros

net, ids = nets.lstm_lm(5, 4, num_layers=2), zeros(2, 3, dtype=int)
CACHE = (
    "lstm_lm(5, 4, num_layers=2): expected a number above 0, or a cache of 2 carries, as the call before returned it"
)

ERRORS = {
    "lstm_lm, ids that are no integers": (
        lambda: net.init(KEY, zeros(2, 3)),
        ShapeError,
        "lstm_lm(5, 4, num_layers=2): expected ids [..., time] of integers, got float32 (2, 3).",
    ),
    "lstm_lm, no time": (
        lambda: net.init(KEY, zeros(dtype=int)),
        ShapeError,
        "lstm_lm(5, 4, num_layers=2): expected ids [..., time] of integers, got int32 ().",
    ),
    "lstm_lm, cache of another depth": (
        lambda: applied(net, (ids,), ids, cache=[zeros(2, 4)]),
        NetError,
        f"{CACHE}, got 1 of them.",
    ),
    "lstm_lm, no cache": (
        lambda: applied(net, (ids,), ids, cache=zeros(2, 4)),
        NetError,
        f"{CACHE}, got ndarray.",
    ),
    "lstm_lm, a cache below 0": (
        lambda: applied(net, (ids,), ids, cache=-3),
        NetError,
        f"{CACHE}, got -3.",
    ),
    "lstm_lm, vocabulary": (
        lambda: nets.lstm_lm(0, 4),
        ValueError,
        "lstm_lm: expected vocab_size to be an integer of at least 1, got 0",
    ),
    "lstm_lm, features": (
        lambda: nets.lstm_lm(5, 0),
        ValueError,
        "lstm_lm: expected features to be an integer of at least 1, got 0",
    ),
    "lstm_lm, layers": (
        lambda: nets.lstm_lm(5, 4, num_layers=0),
        ValueError,
        "lstm_lm: expected num_layers to be an integer of at least 1, got 0",
    ),
}
