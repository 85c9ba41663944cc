"""Deep Q-learning, for actions that can be counted."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from ... import nets, optim
from .. import rl
from .._environment import Environment
from .._losses import squared_error
from .._rollout import rollout
from .._state import TrainState, init
from .._step import step
from ._agent import Feedforward
from ._config import ConfigError, Range
from ._learner import Learner, nothing_seen, seen_after
from ._networks import Count, Share

Proper = Annotated[float, Range(0, 1)]


@dataclasses.dataclass(frozen=True)
class Dqn:
    """Deep Q-learning from a replay buffer, whose targets are by another network: double Q-learning.

    Source: Mnih et al. 2015, https://doi.org/10.1038/nature14236, algorithm 1; van Hasselt, Guez, Silver 2016,
    https://arxiv.org/abs/1509.06461, equation 4.

    Attributes:
      num_envs: environments at once, of each a step an update.
      batch_size: steps that an update learns from.
      capacity: steps that the buffer keeps, of all environments together.
      learning_starts: steps before the first update learns.
      target_every: updates between two copies of the network that gives the targets.
      discount: of what comes a step later.
      first_epsilon: the share of actions that are drawn blindly, at the beginning.
      last_epsilon: the same, later.
      exploration: the part of the run in which it falls.
    """

    name: Literal["dqn"] = "dqn"
    num_envs: Count = 10
    batch_size: Count = 128
    capacity: Count = 10_000
    learning_starts: Annotated[int, Range(0)] = 10_000
    target_every: Count = 50
    discount: Share = 0.99
    first_epsilon: Proper = 1.0
    last_epsilon: Proper = 0.05
    exploration: Annotated[float, Range(0, 1, open_low=True)] = 0.5

    def num_moves(self, num_updates: int) -> int:
        """Steps of the optimizer in so many updates, the first of which only fill the buffer."""
        return max(num_updates - -(-self.learning_starts // self.num_envs), 1)

    def check(self, env: Environment, net: Any) -> None:
        """Refuses what it cannot learn.

        Raises:
          ConfigError: for a network with a memory, real actions, and a buffer too small for a step of all.
        """
        if not isinstance(net, Feedforward):
            raise ConfigError(f'net.name: expected "mlp" where learner.name is "dqn", got "{net.name}"')
        if not hasattr(env.action_space(env.default_params), "n"):
            raise ConfigError('env.name: expected an environment of counted actions where learner.name is "dqn"')
        if self.capacity < self.num_envs:
            raise ConfigError(f"learner.capacity: expected at least num_envs, {self.num_envs}, got {self.capacity}")

    def networks(self, env: Environment, net: Any, obs: Any) -> dict[str, Any]:
        """The network, with what it is given."""
        return {"values": (nets.mlp(*net.sizes, env.action_space(env.default_params).n), obs)}

    def learner(self, env: Environment, net: Any, tx: optim.Link, num_updates: int) -> Learner:
        """The learner of a network in an environment, for a run of so many updates."""
        num_actions = env.action_space(env.default_params).n
        values, envs = nets.mlp(*net.sizes, num_actions), rl.vectorize(env, self.num_envs)
        buffer = rl.replay(self.capacity // self.num_envs, num_envs=self.num_envs)

        def act(told: Any, obs: Any, key: jax.Array) -> jax.Array:
            params, epsilon = told
            blind_key, action_key = jax.random.split(key)
            best = jnp.argmax(values.apply(params, obs), -1)
            drawn = jax.random.randint(action_key, best.shape, 0, num_actions, best.dtype)
            return jnp.where(jax.random.bernoulli(blind_key, epsilon, best.shape), drawn, best)

        def loss_fn(params: Any, batch: Any, key: None) -> jax.Array:
            steps, target = batch
            chosen = jnp.argmax(values.apply(params, steps["next_obs"]), -1)
            expected = _of(values.apply(target, steps["next_obs"]), chosen)
            wanted = steps["reward"] + self.discount * jnp.where(steps["terminated"], 0, expected)
            found = _of(values.apply(params, steps["obs"]), steps["action"])
            # Squared: a bounded slope lets the many steps outweigh the few ends, and values rise without end.
            return squared_error(found, lax.stop_gradient(wanted))

        collect, move = rollout(envs, act, 1), step(loss_fn, tx)

        def begin(key: jax.Array) -> TrainState:
            init_key, env_key, run_key = jax.random.split(key, 3)
            params = values.init(init_key, jax.eval_shape(env.reset_env, env_key, env.default_params)[0])
            start = collect.init(env_key, (params, 1.0))
            _, trajectory = jax.eval_shape(collect, (params, 1.0), start)
            example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), _kept(trajectory))
            held = {"rollout": start, "seen": nothing_seen(), "buffer": buffer.init(example), "target": params}
            return init(params, tx, state=held, key=run_key)

        def update(train_state: TrainState, batch: Any) -> Any:
            params, opt_state, held, count, key = train_state
            assert key is not None  # from `begin`
            share = jnp.minimum(count / (self.exploration * num_updates), 1)
            epsilon = self.first_epsilon + share * (self.last_epsilon - self.first_epsilon)
            after, trajectory = collect((params, epsilon), held["rollout"])
            stored = buffer.add(held["buffer"], _kept(trajectory))
            steps = buffer.sample(stored, jax.random.fold_in(key, count), self.batch_size)
            learns = count * self.num_envs >= self.learning_starts
            before = TrainState(params, opt_state, {}, count, None)
            learnt, metrics = lax.cond(
                learns, lambda: move(before, (steps, held["target"])), lambda: (before, {"loss": jnp.zeros(())})
            )
            copies = count % self.target_every == 0
            target = jax.tree.map(lambda new, old: jnp.where(copies, new, old), learnt.params, held["target"])
            seen = seen_after(held["seen"], trajectory, decay=0.98)
            shown = metrics | {"return": seen.returns, "length": seen.lengths, "epsilon": epsilon}
            held = {"rollout": after, "seen": seen, "buffer": stored, "target": target}
            return TrainState(learnt.params, learnt.opt_state, held, count + 1, key), shown

        def best(params: Any, carry: Any, obs: Any, key: jax.Array) -> Any:
            return carry, jnp.argmax(values.apply(params, obs), -1)

        return Learner(begin, update, best, lambda params, obs: (), self.num_envs)


def _of(values: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, action[..., None], -1)[..., 0]


def _kept(trajectory: Any) -> dict[str, Any]:
    """What is kept of steps, `[time, envs, ...]`."""
    return {name: getattr(trajectory, name) for name in ("obs", "action", "reward", "terminated", "next_obs")}
