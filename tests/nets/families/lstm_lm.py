"""The recurrent language model."""

from renga import nets

from ..kit import Case, integers

CASES = {
    "lstm_lm": Case(lambda: nets.lstm_lm(5, 4), integers(2, 3)),
    "deep lstm_lm that drops": Case(
        lambda: nets.lstm_lm(5, 4, num_layers=2, drop_rate=0.5), integers(2, 3), draws=True, long=True
    ),
}
