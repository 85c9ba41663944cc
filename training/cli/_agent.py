"""Networks that act: a policy and a value, with memory or without."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ... import nets
from .._environment import Environment
from ..rl import categorical, normal
from ._config import Range
from ._networks import Count

Sizes = Annotated[tuple[Count, ...], Range(1, 8)]


class Agent(NamedTuple):
    """A policy and the values of observations. A carry is `()` where there is no memory.

    Attributes:
      init: `(key, obs) -> params`.
      initial_carry: `(params, obs) -> carry`, or None.
      step: `(params, carry, obs) -> (carry, (distribution, value))`, for observations `[envs, ...]`.
      unroll: `(params, carry, obs, first) -> (distribution, value)`, for observations `[envs, time, ...]`; without
        memory, of any axes.
    """

    init: Callable[..., Any]
    initial_carry: Callable[..., Any] | None
    step: Callable[..., Any]
    unroll: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Feedforward:
    """Two networks without memory, one for the policy and one for the values, with tanh between their layers.

    Attributes:
      sizes: of the hidden layers of both.
    """

    name: Literal["mlp"] = "mlp"
    sizes: Sizes = (64, 64)

    def __str__(self) -> str:
        return f"mlp({', '.join(map(str, self.sizes))})"

    def networks(self, env: Environment, obs: Any) -> dict[str, Any]:
        """The networks, each with what it is given."""
        return {name: (net, obs) for name, net in self.towers(_head(env)[0]).items()}

    def towers(self, num_outputs: int) -> dict[str, nets.Net]:
        """Both networks."""
        return {"actor": _tower(self.sizes, num_outputs, 0.01), "critic": _tower(self.sizes, 1, 1.0)}

    def agent(self, env: Environment) -> Agent:
        """An agent for an environment."""
        num_outputs, tells = _head(env)
        both = self.towers(num_outputs)

        def init(key: jax.Array, obs: Any) -> Any:
            keys = jax.random.split(key)
            made = {name: net.init(key, obs) for key, (name, net) in zip(keys, both.items(), strict=True)}
            return made | _spread(env, num_outputs)

        def unroll(params: Any, carry: Any, obs: Any, first: Any) -> Any:
            said = {name: net.apply(params[name], obs) for name, net in both.items()}
            return tells(params, said["actor"]), said["critic"][..., 0]

        return Agent(init, None, lambda params, carry, obs: (carry, unroll(params, carry, obs, None)), unroll)


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """A GRU between a layer for what is observed and a head each for policy and value.

    Attributes:
      size: of the layer and of the GRU.
    """

    name: Literal["gru"] = "gru"
    size: Count = 64

    def __str__(self) -> str:
        return f"gru({self.size})"

    def networks(self, env: Environment, obs: Any) -> dict[str, Any]:
        """The networks, each with what it is given."""
        hidden = jax.ShapeDtypeStruct((1, self.size), jnp.float32)
        encoder, _, body, heads = self.parts(_head(env)[0])
        return {"encoder": (encoder, obs), "body": (body, hidden)} | {
            name: (head, jax.ShapeDtypeStruct((self.size,), jnp.float32)) for name, head in heads.items()
        }

    def parts(self, num_outputs: int) -> tuple[nets.Net, nets.Cell, nets.Net, dict[str, nets.Net]]:
        """What is between an observation and the GRU, the GRU as a cell and as a network, and the heads."""
        cell = nets.gru_cell(self.size)
        heads = {"actor": _linear(num_outputs, 0.01), "critic": _linear(1, 1.0)}
        return nets.serial(_linear(self.size, 2**0.5), jnp.tanh), cell, nets.rnn(cell), heads

    def agent(self, env: Environment) -> Agent:
        """An agent for an environment."""
        num_outputs, tells = _head(env)
        encoder, cell, body, heads = self.parts(num_outputs)

        def init(key: jax.Array, obs: Any) -> Any:
            keys = jax.random.split(key, 4)
            hidden = jnp.zeros((1, self.size))
            made = {"encoder": encoder.init(keys[0], obs), "body": body.init(keys[1], hidden)}
            made |= {name: head.init(key, hidden) for key, (name, head) in zip(keys[2:], heads.items(), strict=True)}
            return made | _spread(env, num_outputs)

        def initial_carry(params: Any, obs: Any) -> Any:
            return cell.initial_carry(params["body"], encoder.apply(params["encoder"], obs))

        def told(params: Any, hidden: jax.Array) -> Any:
            said = {name: head.apply(params[name], hidden) for name, head in heads.items()}
            return tells(params, said["actor"]), said["critic"][..., 0]

        def step(params: Any, carry: Any, obs: Any) -> Any:
            carry, hidden = cell.step(params["body"], carry, encoder.apply(params["encoder"], obs))
            return carry, told(params, hidden)

        def unroll(params: Any, carry: Any, obs: Any, first: jax.Array) -> Any:
            seen = encoder.apply(params["encoder"], obs)
            return told(params, body.apply(params["body"], seen, carry=carry, reset=first))

        return Agent(init, initial_carry, step, unroll)


def _linear(size: int, scale: float) -> nets.Net:
    return nets.linear(size, w_init=nets.orthogonal(scale))


def _tower(sizes: tuple[int, ...], num_outputs: int, scale: float) -> nets.Net:
    hidden = [layer for size in sizes for layer in (_linear(size, 2**0.5), jnp.tanh)]
    return nets.serial(*hidden, _linear(num_outputs, scale))


def _head(env: Environment) -> tuple[int, Callable[[Any, jax.Array], Any]]:
    """How many numbers a policy gives, and `(params, numbers) -> distribution`."""
    space = env.action_space(env.default_params)
    if hasattr(space, "n"):
        return space.n, lambda params, logits: categorical(logits)
    return space.shape[0], lambda params, mean: normal(mean, jnp.exp(params["log_scale"]))


def _spread(env: Environment, num_outputs: int) -> dict[str, jax.Array]:
    """The logarithms of the standard deviations of real actions, whatever is observed."""
    return {} if hasattr(env.action_space(env.default_params), "n") else {"log_scale": jnp.zeros(num_outputs)}
