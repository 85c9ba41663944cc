"""How often a program evaluates a gradient: oracles that leave a mark, and the marks counted."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Cost:
    """How often something is evaluated in a step.

    Attributes:
      always: in every step; a share where it is in one of several steps.
      sometimes: beside that, at most, where a link chooses.
      rounds: beside that, in every round of a loop that ends by itself.
    """

    always: float = 0
    sometimes: float = 0
    rounds: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.always + other.always, self.sometimes + other.sometimes, self.rounds + other.rounds)

    def __str__(self) -> str:
        text = f"{self.always:g}" + (f" to {self.always + self.sometimes:g}" if self.sometimes else "")
        return text + (f" + {self.rounds:g} a round" if self.rounds else "")


GRADIENT, PRODUCT = "gradient_of_", "product_of_"


def oracles(number: int, *, players: bool) -> dict[str, Callable[..., Any]]:
    """Functions of parameters that leave marks with a number: how often they were differentiated, how often called.

    Args:
      number: of who asks.
      players: whether the loss is one of each player.
    Returns:
      `grad_fn` and `value_fn`, as `oracle` makes them.
    """

    @jax.custom_jvp
    def grad_fn(params: Any) -> Any:
        return _marked(f"{GRADIENT}{number}", params)

    @jax.custom_jvp
    def value_fn(params: Any) -> Any:
        return losses(params, 0.0, players=players)

    @grad_fn.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.zeros_like, primals[0]), _marked(f"{PRODUCT}{number}", tangents[0])

    @value_fn.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
        leaves = jax.tree.leaves(_marked(f"{GRADIENT}{number}", tangents[0]))
        along = sum((jnp.sum(leaf).astype(jnp.float32) for leaf in leaves), start=jnp.zeros(()))
        return losses(primals[0], 0.0, players=players), losses(primals[0], along, players=players)

    return {"grad_fn": grad_fn, "value_fn": lambda own, grad_fn=None: value_fn(own)}


def losses(params: Any, value: Any, *, players: bool) -> Any:
    """A loss, or one of each player."""
    value = jnp.asarray(value, jnp.float32)
    return dict.fromkeys(params, value) if players else value


def _marked(name: str, tree: Any) -> Any:
    def function(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: 2 * leaf, tree)

    function.__name__ = name
    return jax.jit(function)(tree)


def counted(jaxpr: Any, live: Iterable[Any] | None = None) -> dict[str, Cost]:
    """The marks of a program by name, but those of which nothing comes.

    Args:
      jaxpr: the program.
      live: the variables that are asked for, all of its outputs unless given.
    """
    wanted = set(filter(_is_variable, jaxpr.outvars if live is None else live))
    found: dict[str, Cost] = {}
    for equation in reversed(jaxpr.eqns):
        used = [variable in wanted for variable in equation.outvars]
        if any(used) or equation.effects:
            wanted |= set(filter(_is_variable, equation.invars))
            for name, cost in _of_equation(equation, used).items():
                found[name] = found.get(name, Cost()) + cost
    return found


def _of_equation(equation: Any, used: list[bool]) -> dict[str, Cost]:
    kind, parts = equation.primitive.name, equation.params
    if str(parts.get("name", "")).startswith((GRADIENT, PRODUCT)):
        return {parts["name"]: Cost(1)}

    def inside(value: Any) -> dict[str, Cost]:
        inner = getattr(value, "jaxpr", value)
        same = kind != "scan" and len(inner.outvars) == len(used)
        return counted(inner, [out for out, is_used in zip(inner.outvars, used, strict=False) if is_used or not same])

    if kind == "custom_linear_solve":  # it holds a transpose too, for derivatives
        parts = {"jaxpr": parts["jaxprs"].solve}
    held = [each for value in parts.values() for each in (value if isinstance(value, tuple) else [value])]
    counts = [inside(value) for value in held if hasattr(getattr(value, "jaxpr", value), "eqns")]
    names = {name for count in counts for name in count}
    return {name: _together(kind, [count.get(name, Cost()) for count in counts], parts) for name in names}


def _together(kind: str, costs: list[Cost], parts: Any) -> Cost:
    if kind == "cond":
        least, most = (choose(cost.always for cost in costs) for choose in (min, max))
        return Cost(least, most - least + max(cost.sometimes for cost in costs), max(cost.rounds for cost in costs))
    total = sum(costs, start=Cost())
    if kind == "scan":
        return Cost(*(parts["length"] * number for number in (total.always, total.sometimes, total.rounds)))
    return Cost(0, 0, total.always + total.sometimes + total.rounds) if kind == "while" else total


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")  # as literals have
