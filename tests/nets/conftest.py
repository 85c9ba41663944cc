"""What is collected, and how it is compiled."""

import importlib.util
from collections.abc import Iterator

import jax
import pytest

collect_ignore = [] if importlib.util.find_spec("torch") else ["test_parity_torch.py"]


@pytest.fixture(scope="module")
def quick_compiler() -> Iterator[None]:
    """For tests whose time is that of the compiler, and whose facts do not depend on how well it optimises."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
