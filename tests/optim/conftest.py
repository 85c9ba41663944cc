"""What tests of optim may ask for."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly(quick_compiler: None) -> None:
    """Hundreds of small programs: compile time is most of what they cost."""


@pytest.fixture
def float64() -> Iterator[None]:
    """Numbers of 64 bits, for known answers to many digits."""
    with jax.enable_x64(True):
        yield
