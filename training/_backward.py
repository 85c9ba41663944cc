"""One backward pass for all examples of a batch, which stops short of the gradients of the parameters."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from ._factors import Rule, rule
from ._traced import Traced, inexact, read, run, shared_values


@dataclasses.dataclass(frozen=True)
class Backward:
    """What is known once the derivatives at every use of a parameter are.

    Attributes:
      program: the program of the loss of one example.
      leaves: the parameters.
      losses: `[examples]`.
      operands: of each equation of `program.varying` that ports enter, by its number; all but the ports are
        `[examples, ...]`.
      deltas: derivatives of each example's loss with respect to the outputs of these equations.
      plain: derivatives with respect to the ports that enter a program, such as a scan.
    """

    program: Traced
    leaves: list[jax.Array]
    losses: jax.Array
    operands: dict[int, list[Any]]
    deltas: dict[int, list[Any]]
    plain: dict[Any, jax.Array]

    def gradients(self, numbers: Iterable[int]) -> dict[int, jax.Array]:
        """Gradients `[examples, ...]` of these parameters."""
        ports = self.program.ports
        found = {
            number: jnp.zeros((*self.losses.shape, *self.leaves[number].shape), self.leaves[number].dtype)
            for number in numbers
        }
        used = [number for number in found if any(number in port.leaves for port in ports.values())]
        entered = [port for port, about in ports.items() if not about.leaves.isdisjoint(used)]
        if used:
            pull = jax.vmap(pullback(self.program, self.leaves, used, entered))
            found |= zip(used, pull([self._of_port(port) for port in entered]), strict=True)
        return found

    def squares(self, number: int) -> tuple[jax.Array, jax.Array]:
        """Squared norms `[examples]` of the gradients of a parameter that `by_factors` names, and their margins."""
        use = by_factors(self.program)[number]
        squares = rule_of(self.program, use).squares
        assert squares is not None
        return squares(self.operands[use], self.deltas[use])

    def all_squares(self) -> tuple[list[jax.Array], list[jax.Array], dict[int, jax.Array]]:
        """Squared norms for each parameter, their margins, and the gradients that had to be computed for them."""
        cheap = by_factors(self.program)
        gradients = self.gradients(number for number in range(len(self.leaves)) if number not in cheap)
        found = [
            self.squares(number) if number in cheap else (_squares(gradients[number]), jnp.zeros(self.losses.shape))
            for number in range(len(self.leaves))
        ]
        return [squares for squares, _ in found], [margins for _, margins in found], gradients

    def totals(self, scales: dict[int, jax.Array]) -> dict[int, jax.Array]:
        """Weighted sums over the examples of the gradients of parameters that `by_factors` names.

        Args:
          scales: weights `[examples]` for each parameter, by its number.
        """
        uses, ports = by_factors(self.program), []
        found = []
        for number, scale in scales.items():
            use = uses[number]
            (learned,) = places_of(self.program, use)
            total = rule_of(self.program, use).total
            assert total is not None
            operands = [
                value if place == learned else _kept(value, scale) for place, value in enumerate(self.operands[use])
            ]
            found.append(total(operands, [weighed(self.deltas[use][0], scale)])[learned])
            ports.append(self.program.varying[use].invars[learned])
        pull = pullback(self.program, self.leaves, list(scales), ports)
        return dict(zip(scales, pull(found), strict=True))

    def _of_port(self, port: Any) -> jax.Array:
        if port in self.plain:
            return self.plain[port]
        found = []
        for use in self.program.ports[port].uses:
            gradients = rule_of(self.program, use).gradients(self.operands[use], self.deltas[use])
            invars = self.program.varying[use].invars
            found += [gradients[place] for place in places_of(self.program, use) if invars[place] is port]
        return sum(found[1:], found[0])


def backward(program: Traced, leaves: list[jax.Array], examples: list[jax.Array]) -> Backward:
    """Takes the losses of all examples and their derivatives at every use of a parameter."""
    values, varying = shared_values(program, leaves), program.varying
    places = {number: places_of(program, number) for number in range(len(varying))}
    plain = [port for port, about in program.ports.items() if about.inside]
    nudges = {
        number: [jnp.zeros(out.aval.shape, out.aval.dtype) if inexact(out) else None for out in varying[number].outvars]
        for number, learned in places.items()
        if learned
    }

    def one(example: list[jax.Array]) -> Any:
        def loss(nudges: dict[int, list[Any]], entering: list[jax.Array]) -> Any:
            known, operands = values | dict(zip(plain, entering, strict=True)), {}
            known |= zip(program.jaxpr.invars[len(leaves) :], example, strict=True)
            for number, eqn in enumerate(varying):
                outputs = run(program.jaxpr, eqn, known)
                if number in nudges:
                    operands[number] = [
                        None if place in places[number] else read(known, variable)
                        for place, variable in enumerate(eqn.invars)
                    ]
                    nudged = [
                        out if by is None else _nudged(out, by) for out, by in zip(outputs, nudges[number], strict=True)
                    ]
                    known.update(zip(eqn.outvars, nudged, strict=True))
            return read(known, program.jaxpr.outvars[0]), operands

        value, pull, operands = jax.vjp(loss, nudges, [values[port] for port in plain], has_aux=True)
        return value, operands, *pull(jnp.ones((), value.dtype))

    losses, operands, deltas, cotangents = jax.vmap(one)(examples)
    for number, learned in places.items():
        for place in learned:
            operands[number][place] = values[varying[number].invars[place]]
    return Backward(program, leaves, losses, operands, deltas, dict(zip(plain, cotangents, strict=True)))


def places_of(program: Traced, number: int) -> tuple[int, ...]:
    """The operands of an equation that are ports, and whose derivatives come from its own rule."""
    ports, invars = program.ports, program.varying[number].invars
    return tuple(
        place
        for place, variable in enumerate(invars)
        if not isinstance(variable, Literal)
        and variable in ports
        and not ports[variable].inside
        and number in ports[variable].uses
    )


def rule_of(program: Traced, number: int) -> Rule:
    """The rule of an equation that ports enter."""
    return rule(program.jaxpr, program.varying[number], places_of(program, number))


def by_factors(program: Traced) -> dict[int, int]:
    """The parameters whose gradients need not be computed, and the equation that each enters, by their numbers.

    Such a parameter enters one equation, once and as it is, and that has a rule for norms.
    """
    found: dict[int, int] = {}
    for number in range(program.num_leaves):
        entered = [port for port in program.ports.values() if number in port.leaves]
        if len(entered) != 1 or not entered[0].moved or entered[0].inside or len(entered[0].uses) != 1:
            continue
        if rule_of(program, entered[0].uses[0]).squares is not None:
            found[number] = entered[0].uses[0]
    return found


def pullback(
    program: Traced, leaves: Sequence[jax.Array], numbers: Sequence[int], ports: Sequence[Any]
) -> Callable[[list[jax.Array]], list[jax.Array]]:
    """From derivatives with respect to ports to those with respect to parameters."""

    def entered(chosen: list[jax.Array]) -> list[jax.Array]:
        given = list(leaves)
        for number, leaf in zip(numbers, chosen, strict=True):
            given[number] = leaf
        values = shared_values(program, given)
        return [values[port] for port in ports]

    _, pull = jax.vjp(entered, [leaves[number] for number in numbers])
    return lambda cotangents: pull(cotangents)[0]


def weighed(value: jax.Array, scale: jax.Array) -> jax.Array:
    """Rows times their weights; a row of weight 0 is 0 whatever it holds."""
    scale = scale.reshape(-1, *[1] * (value.ndim - 1))
    return jnp.where(scale != 0, value * scale, 0)


def _squares(rows: jax.Array) -> jax.Array:
    wide = jnp.abs(rows).astype(jnp.promote_types(jnp.abs(rows).dtype, jnp.float32))
    return jnp.sum(wide * wide, tuple(range(1, rows.ndim)))


def _kept(value: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.where(scale.reshape(-1, *[1] * (value.ndim - 1)) != 0, value, 0)


# Adds to the derivative and not to the value: no zeros are added up in the forward pass.
@jax.custom_jvp
def _nudged(value: jax.Array, by: jax.Array) -> jax.Array:
    return value


@_nudged.defjvp
def _nudged_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return primals[0], tangents[0] + tangents[1]
