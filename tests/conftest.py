"""What every test may ask for."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def full_compiler(_compiled_quickly: None) -> Iterator[None]:
    """For tests whose time is that of their runs."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs() -> Iterator[None]:
    """Every compiled program holds mappings of memory, of which a process may have 65,530: more, and it dies."""
    yield
    jax.clear_caches()
