"""Renga: networks, optimizers and training as pure functions that compose, for JAX."""

from . import nets as nets
from . import optim as optim
from . import training as training
