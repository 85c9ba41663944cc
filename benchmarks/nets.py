"""A train step of whole networks in renga, Haiku, Flax, Equinox and torch, and passes through recurrent layers.

The comparisons of `mlp.py`, `convolutional.py`, `language.py` and `recurrence.py`: mlp; conv, on 32x32 images;
transformer, a language model of 4 layers; lstm, gru, linear and their variants.

    pip install -e '.[bench]'
    python benchmarks/nets.py conv
"""

import convolutional  # noqa: F401
import language  # noqa: F401
import mlp  # noqa: F401
import recurrence  # noqa: F401
from runner import main

if __name__ == "__main__":
    main()
