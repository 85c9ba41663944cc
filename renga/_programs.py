"""Traced programs, run an equation at a time."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun


def evaluated(jaxpr: Jaxpr, eqn: Any, args: Sequence[Any]) -> list[Any]:
    """What an equation of a program makes of these arguments."""
    given = {place: arg for place, arg in zip(eqn.invars, args, strict=True) if not isinstance(place, Literal)}
    alone = jaxpr.replace(constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn])
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values())
