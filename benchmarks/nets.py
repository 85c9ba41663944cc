"""A train step of whole networks in renga, Haiku, Flax, Equinox and torch.

One of: conv, a convolutional network on 32x32 images; transformer, a language model of 4 layers; lstm and gru, batch
64, 128 steps, 256 units; lstm-small and gru-small, batch 32, 64 steps, 128 units.

    pip install -e '.[bench]'
    python benchmarks/nets.py conv
"""

import argparse
import functools
import sys

import convolutional
import language
import recurrence
from runner import main

NETWORKS = {
    "conv": convolutional.cases,
    "transformer": language.cases,
    "lstm": functools.partial(recurrence.cases, "lstm", "big"),
    "lstm-small": functools.partial(recurrence.cases, "lstm", "char"),
    "gru": functools.partial(recurrence.cases, "gru", "big"),
    "gru-small": functools.partial(recurrence.cases, "gru", "char"),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("network", choices=NETWORKS)
    network = parser.parse_known_args()[0].network
    sys.argv.remove(network)
    main(f"a train step: {network}, microseconds", NETWORKS[network], "renga", num_rounds=9)
