"""Games, and playing them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from renga import optim

Game = Callable[[Any], dict[str, jax.Array]]


def step(tx: Any, game: Game, params: Any, opt_state: Any) -> tuple[Any, Any]:
    """One step of all players at once."""
    found = optim.oracle(game, params)
    updates, opt_state = tx.update(found.grads, opt_state, params, **found.extra)
    return optax.apply_updates(params, updates), opt_state


def play(tx: Any, game: Game, start: Any, num_steps: int) -> Any:
    """The players' parameters before the first step and after each, `[1 + num_steps, ...]`."""

    def body(carry: Any, _: None) -> Any:
        params, opt_state = step(tx, game, *carry)
        return (params, opt_state), params

    _, path = lax.scan(body, (start, tx.init(start)), None, num_steps)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, path)


def bilinear(params: Any) -> dict[str, jax.Array]:
    """`f = xy`, which x minimises and y maximises."""
    value = jnp.sum(params["x"] * params["y"])
    return {"x": value, "y": -value}


def tandem(params: Any) -> dict[str, jax.Array]:
    """Two riders, who each pay for the speed of both, and would rather have the other pedal less."""
    both = (params["x"] + params["y"]) ** 2
    return {"x": both - 2 * params["x"], "y": both - 2 * params["y"]}


def matching_pennies(params: Any) -> dict[str, jax.Array]:
    """One wins if the pennies match, the other if not; a parameter is the logit of heads."""
    x, y = (2 * jax.nn.sigmoid(params[player]) - 1 for player in ("x", "y"))
    return {"x": x * y, "y": -x * y}


def prisoners_dilemma(params: Any, gamma: float = 0.96) -> dict[str, jax.Array]:
    """Repeated without end; logits of cooperation at first, and after CC, CD, DC and DD. Losses are years a round."""
    x, y = (jax.nn.sigmoid(params[player]) for player in ("x", "y"))
    outcomes = jnp.stack([x * y, x * (1 - y), (1 - x) * y, (1 - x) * (1 - y)], -1)
    visits = (1 - gamma) * jnp.linalg.solve((jnp.eye(4) - gamma * outcomes[1:]).T, outcomes[0])
    return {"x": visits @ jnp.array([1.0, 3.0, 0.0, 2.0]), "y": visits @ jnp.array([1.0, 0.0, 3.0, 2.0])}
