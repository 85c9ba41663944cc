"""What tests of training see."""

from ..optim.conftest import quick_compiler

__all__ = ["quick_compiler"]
