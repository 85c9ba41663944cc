"""What tests of training see."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly(quick_compiler: None) -> None:
    """Many small programs: compile time is most of what they cost."""
