"""Positions: added, turned by, and as a bias."""

from renga import nets

from ..kit import Case, floats, integers

CASES = {
    "rotary": Case(lambda: nets.rotary(), floats(2, 6, 2, 8), constant=True),
    "rotary of pairs at positions": Case(
        lambda: nets.rotary(theta=100.0, layout="pairs"), floats(2, 5, 2, 4) + integers(2, 5), constant=True, long=True
    ),
    "partial rotary": Case(lambda: nets.rotary(num_features=4), floats(2, 6, 1, 7), constant=True, long=True),
    "rotary with positions by name": Case(
        lambda: nets.rotary(theta=500.0),
        floats(2, 5, 1, 4),
        constant=True,
        keywords={"positions": integers(2, 5)[0]},
        long=True,
    ),
    "alibi": Case(lambda: nets.alibi(6), integers(2, 3) + integers(2, 5), constant=True),
    "learned_positions": Case(lambda: nets.learned_positions(6), floats(2, 5, 3)),
    "learned_positions at positions": Case(
        lambda: nets.learned_positions(5, w_init=nets.normal(1.0)),
        floats(2, 7, 3),
        keywords={"positions": integers(2, 7)[0]},
        long=True,
    ),
    "sinusoidal_positions": Case(lambda: nets.sinusoidal_positions(), floats(2, 5, 6), constant=True),
    "sinusoidal_positions at positions": Case(
        lambda: nets.sinusoidal_positions(max_period=100.0),
        floats(2, 5, 3),
        constant=True,
        keywords={"positions": integers(2, 5)[0]},
        long=True,
    ),
}
