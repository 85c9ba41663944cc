"""What is collected: tests against torch where it is installed. What the laws ask for."""

import importlib.util
from collections.abc import Iterator

import jax
import pytest

from .made import Made, make, marks
from .registry import NETS

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*_torch.py"]

# Compiled programs are a megabyte each, and the laws make thousands.
NETS_BETWEEN_SWEEPS = 16


@pytest.fixture(scope="session", params=[pytest.param(name, marks=marks(name)) for name in NETS])
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """Every network of the registry in turn: all its laws, of whatever file, run one after another."""
    yield make(request.param)
    if list(NETS).index(request.param) % NETS_BETWEEN_SWEEPS == 0:
        jax.clear_caches()
