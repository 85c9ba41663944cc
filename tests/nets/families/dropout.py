"""Dropouts."""

from renga import nets

from ..kit import Case, floats

CASES = {
    "dropout of channels": Case(
        lambda: nets.dropout(0.5, broadcast_axes=(-3, -2)), floats(2, 3, 3, 16), draws=True, constant=True, long=True
    ),
    "drop_path": Case(lambda: nets.drop_path(0.5, num_axes=2), floats(32, 3, 2), draws=True, constant=True),
    "drop_path in a residual": Case(
        lambda: nets.residual(nets.linear(5), nets.drop_path(0.5, num_axes=1)), floats(32, 5), draws=True
    ),
    "alpha_dropout": Case(lambda: nets.alpha_dropout(0.25), floats(4, 16), draws=True, constant=True),
}
