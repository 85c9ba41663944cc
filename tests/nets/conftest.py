"""What is collected: tests against torch where it is installed. What the laws ask for."""

import importlib.util

import pytest

from .made import Made, make
from .registry import NETS

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*_torch.py"]


@pytest.fixture(scope="module", params=NETS)
def made(request: pytest.FixtureRequest) -> Made:
    """Every network of the registry in turn."""
    return make(request.param)
