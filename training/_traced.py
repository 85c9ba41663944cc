"""What a loss makes of its parameters, read off its program.

A traced loss falls into two parts: what depends on the parameters alone, and the rest, which sees the example too. A
value of the first that enters the second is a `Port`. The derivative with respect to a port is known from the operands
of the equations that it enters and from the derivatives with respect to their outputs. So these outputs are all that
the backward pass has to be taken for.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from .._programs import evaluated
from ..nets._conv import convolution

_CALLS = frozenset({"closed_call", "core_call", "jit", "pjit"})
_MOVES = frozenset({"convert_element_type", "copy", "copy_p", "expand_dims", "reshape", "squeeze", "transpose"})


class Port(NamedTuple):
    """A value that depends on parameters alone, where it meets the example.

    Attributes:
      leaves: numbers of the parameters that it depends on.
      moved: whether it is one parameter, its elements moved about.
      uses: numbers of the equations that it enters.
      inside: the equation with a program of its own that it enters, such as a scan; None if there is none.
    """

    leaves: frozenset[int]
    moved: bool
    uses: tuple[int, ...]
    inside: str | None


class Traced(NamedTuple):
    """The program of a loss, without what the loss does not depend on.

    Attributes:
      jaxpr: the program; its first inputs are the parameters.
      num_leaves: how many of them there are.
      consts: values of its constants.
      shared: equations without the example.
      varying: equations that see the example.
      ports: the values that go from the first to the second.
    """

    jaxpr: Jaxpr
    num_leaves: int
    consts: Sequence[Any]
    shared: list[Any]
    varying: list[Any]
    ports: dict[Any, Port]


def traced(loss: Callable[[Any, Any], Any], leaves: list[Any], example: Any) -> Traced:
    """Reads the program of `loss(leaves, example)`; calls inside it are opened."""
    shapes = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    closed = jax.make_jaxpr(loss)(shapes, example)
    flat = jax.make_jaxpr(lambda *args: _opened(closed.jaxpr, closed.consts, args))(*closed.in_avals)
    jaxpr = flat.jaxpr
    needed = _needed(jaxpr)
    varies, shared, varying = set(jaxpr.invars[len(leaves) :]), [], []
    for eqn in needed:
        seen = not varies.isdisjoint(_variables(eqn.invars))
        (varying if seen else shared).append(eqn)
        varies |= set(eqn.outvars) if seen else set()
    return Traced(jaxpr, len(leaves), flat.consts, shared, varying, _ports(jaxpr, len(leaves), shared, varying))


def shared_values(program: Traced, leaves: Sequence[Any]) -> dict[Any, Any]:
    """The values of all variables that do not see the example."""
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True)) | dict(zip(jaxpr.invars, leaves, strict=False))
    for eqn in program.shared:
        run(jaxpr, eqn, values)
    return values


def run(jaxpr: Jaxpr, eqn: Any, values: dict[Any, Any]) -> list[Any]:
    """Evaluates an equation, and writes its outputs down."""
    outputs = evaluated(jaxpr, eqn, [read(values, variable) for variable in eqn.invars])
    values.update(zip(eqn.outvars, outputs, strict=True))
    return outputs


def read(values: dict[Any, Any], variable: Any) -> Any:
    """The value of a variable or a literal."""
    return variable.val if isinstance(variable, Literal) else values[variable]


def inexact(variable: Any) -> bool:
    """Whether derivatives go through it."""
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)


def _opened(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    for eqn in jaxpr.eqns:
        body = _body(eqn)
        if body is not None:
            given = [read(values, variable) for variable in eqn.invars]
            values.update(zip(eqn.outvars, _opened(body.jaxpr, body.consts, given), strict=True))
        else:
            run(jaxpr, eqn, values)
    return [read(values, variable) for variable in jaxpr.outvars]


def _body(eqn: Any) -> ClosedJaxpr | None:
    """The program of a call; a convolution of `nets` is one, since its derivative is that of its program."""
    if eqn.primitive.name in _CALLS:
        return eqn.params["jaxpr"]
    body = eqn.params["call_jaxpr"] if eqn.primitive.name == "custom_jvp_call" else None
    named = body is not None and getattr(body.jaxpr.debug_info, "func_name", "") == convolution.__name__
    return body if named and "conv_general_dilated" in {each.primitive.name for each in body.jaxpr.eqns} else None


def _variables(places: Sequence[Any]) -> set[Any]:
    return {place for place in places if not isinstance(place, Literal)}


def _needed(jaxpr: Jaxpr) -> list[Any]:
    wanted, needed = _variables(jaxpr.outvars), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not wanted.isdisjoint(eqn.outvars):
            needed.append(eqn)
            wanted |= _variables(eqn.invars)
    return needed[::-1]


def _ports(jaxpr: Jaxpr, num_leaves: int, shared: list[Any], varying: list[Any]) -> dict[Any, Port]:
    leaves = {variable: frozenset({place}) for place, variable in enumerate(jaxpr.invars[:num_leaves])}
    moved = set(leaves)
    for eqn in shared:
        given = _variables(eqn.invars)
        depends = frozenset[int]().union(*(leaves.get(variable, ()) for variable in given))
        leaves |= dict.fromkeys(eqn.outvars, depends) if depends else {}
        if depends and given <= moved and _moves(eqn):
            moved |= set(eqn.outvars)
    found: dict[Any, list[int]] = {}
    for number, eqn in enumerate(varying):
        if not any(map(inexact, eqn.outvars)):
            continue
        for variable in dict.fromkeys(place for place in eqn.invars if not isinstance(place, Literal)):
            if variable in leaves and inexact(variable):
                found.setdefault(variable, []).append(number)
    ports = {}
    for variable in [*found, *(_variables(jaxpr.outvars) & set(leaves) - set(found))]:
        uses = found.get(variable, [])
        inside = [varying[number].primitive.name for number in uses if _holds_program(varying[number])]
        reason = inside[0] if inside else "no example" if variable in jaxpr.outvars else None
        ports[variable] = Port(leaves[variable], variable in moved, tuple(uses), reason)
    return ports


def _moves(eqn: Any) -> bool:
    given, returned = eqn.invars[0].aval, eqn.outvars[0].aval
    same_size = eqn.primitive.name == "broadcast_in_dim" and given.size == returned.size
    floats = all(jnp.issubdtype(aval.dtype, jnp.floating) for aval in (given, returned))
    return floats and (eqn.primitive.name in _MOVES or same_size)


def _holds_program(eqn: Any) -> bool:
    parts = [part for value in eqn.params.values() for part in (value if isinstance(value, tuple | list) else (value,))]
    return any(isinstance(part, Jaxpr | ClosedJaxpr) for part in parts)
