"""Convolutions in a program, and whether XLA's CPU backend is slow at them."""

from collections.abc import Iterator
from typing import Any

from jax.extend.core import Jaxpr, jaxprs_in_params


def convolves(jaxpr: Jaxpr) -> bool:
    """Whether there is a convolution in a program, or in one inside it."""
    return any(True for _ in _convolutions(jaxpr))


def is_slow_in_loops(jaxpr: Jaxpr) -> bool:
    """Whether there is a convolution that XLA's CPU backend is fast at outside of loops alone.

    It wants the batch first, channels last and no groups. It brings others into this form, but only outside of loops
    (jaxlib 0.10): inside, the gradient of a 3x3 kernel takes 70 times as long. Gradients of `nets.conv` have this form,
    unless it has groups; those of `lax.conv_general_dilated` have not.
    """
    return not all(map(_has_fast_form, _convolutions(jaxpr)))


def _convolutions(jaxpr: Jaxpr) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _convolutions(inner)


def _has_fast_form(eqn: Any) -> bool:
    rows, w, out = eqn.params["dimension_numbers"]
    num = len(rows)
    batch_first, kernel = (0, num - 1, *range(1, num - 1)), (num - 1, num - 2, *range(num - 2))
    groups = eqn.params["feature_group_count"] * eqn.params["batch_group_count"]
    return (rows, w, out, groups) == (batch_first, kernel, batch_first, 1)
