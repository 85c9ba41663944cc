"""What tests of optim may ask for."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def float64() -> Iterator[None]:
    """Numbers of 64 bits, for known answers to many digits."""
    with jax.enable_x64(True):
        yield
