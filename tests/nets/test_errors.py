"""What is refused, and the whole message that says why, and where the network was built."""

import importlib
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import pytest

from renga.nets import NetError, ShapeError

from . import messages

# name: (what is done, error, message)
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {}
for _family in pkgutil.iter_modules(messages.__path__):
    ERRORS |= importlib.import_module(f"{messages.__name__}.{_family.name}").ERRORS


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_refused_says_where_and_what_was_expected_and_given(case: str):
    do, kind, message = ERRORS[case]
    with pytest.raises(kind) as caught:
        do()
    error = caught.value
    assert type(error) is kind
    assert getattr(error, "message", str(error)) == message
    assert "dot_general" not in str(error)
    if isinstance(error, NetError):
        assert error.net is not None
        assert error.net.call is not None
        assert re.search(r"\n  .* was built at .*/tests/nets/[a-z_/]*\.py:[0-9]+$", str(error)), str(error)


def test_errors_of_nets_are_value_errors():
    assert issubclass(ShapeError, NetError)
    assert issubclass(NetError, ValueError)
