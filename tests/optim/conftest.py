"""What tests of optim may ask for."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_compiler() -> Iterator[None]:
    """Compile time is most of what tests cost; what they say does not depend on the optimiser."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def float64() -> Iterator[None]:
    """Numbers of 64 bits, for known answers to many digits."""
    with jax.enable_x64(True):
        yield
