"""Proximal policy optimization, for any agent."""

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ... import optim
from .. import rl
from .._environment import Environment
from .._rollout import rollout
from .._state import TrainState, init
from .._step import step
from .._trajectory import Trajectory
from ._agent import Agent, Feedforward, Recurrent
from ._config import ConfigError, Range
from ._learner import Learner, nothing_seen, seen_after
from ._networks import Count, Share

Weight = Annotated[float, Range(0)]


class Kept(NamedTuple):
    """What is kept of each step beside what happened.

    Attributes:
      log_prob: of the action.
      value: of the observation.
      carry: the memory after it.
    """

    log_prob: jax.Array
    value: jax.Array
    carry: Any


@dataclasses.dataclass(frozen=True)
class Ppo:
    """Proximal policy optimization with clipped values.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equations 7 and 9.

    Attributes:
      num_envs: environments at once.
      num_steps: of each an update.
      num_epochs: how often all steps of an update are learnt from.
      num_minibatches: into how many parts they are divided; with memory, the environments are.
      discount: of what comes a step later.
      decay: λ of the advantages.
      clip: how far the ratio of probabilities may go from 1, and a value from what it was.
      clip_values: whether values are clipped.
      entropy: weight of the policy's entropy.
      value: weight of the error of the values.
    """

    name: Literal["ppo"] = "ppo"
    num_envs: Count = 4
    num_steps: Count = 128
    num_epochs: Count = 4
    num_minibatches: Count = 4
    discount: Share = 0.99
    decay: Annotated[float, Range(0, 1)] = 0.95
    clip: Annotated[float, Range(0, open_low=True)] = 0.2
    clip_values: bool = True
    entropy: Weight = 0.01
    value: Weight = 0.5

    def num_moves(self, num_updates: int) -> int:
        """Steps of the optimizer in so many updates."""
        return num_updates * self.num_epochs * self.num_minibatches

    def check(self, env: Environment, net: Feedforward | Recurrent) -> None:
        """Refuses minibatches of unequal size.

        Raises:
          ConfigError: with the numbers.
        """
        num, what = self.num_envs * self.num_steps, "num_envs * num_steps"
        if isinstance(net, Recurrent):
            num, what = self.num_envs, "num_envs, since the agent has a memory"
        if num % self.num_minibatches:
            raise ConfigError(
                f"learner.num_minibatches: expected a divisor of {num}, which is {what}, got {self.num_minibatches}"
            )

    def networks(self, env: Environment, net: Feedforward | Recurrent, obs: Any) -> dict[str, Any]:
        """The networks, each with what it is given."""
        return net.networks(env, obs)

    def learner(self, env: Environment, net: Feedforward | Recurrent, tx: optim.Link, num_updates: int) -> Learner:
        """The learner of an agent in an environment; it does not ask for how many updates."""
        agent = net.agent(env)
        env = rl.vectorize(env, self.num_envs)

        def act(params: Any, carry: Any, obs: Any, key: jax.Array) -> Any:
            carry, (policy, value) = agent.step(params, carry, obs)
            action, log_prob = policy.sample_and_log_prob(key)
            return carry, (action, Kept(log_prob, value, carry))

        begin_carry = agent.initial_carry or (lambda params, obs: ())
        collect = rollout(env, act, self.num_steps, initial_carry=begin_carry, has_aux=True)
        move = step(lambda params, batch, key: self.loss(agent, params, batch), tx, has_aux=True)

        def begin(key: jax.Array) -> TrainState:
            init_key, env_key, run_key = jax.random.split(key, 3)
            obs = jax.eval_shape(env.reset_env, env_key, env.default_params)[0]
            params = agent.init(init_key, obs)
            held = {"rollout": collect.init(env_key, params), "seen": nothing_seen()}
            return init(params, tx, state=held, key=run_key)

        def parts(key: jax.Array, data: Any, carry: Any) -> Any:
            if agent.initial_carry is None:
                return rl.minibatches(key, data, self.num_minibatches), ()
            packed = rl.sequence_minibatches(key, data, self.num_minibatches, carries=carry)
            return packed.data, packed.carries

        def update(train_state: TrainState, batch: Any) -> Any:
            params, opt_state, held, count, key = train_state
            assert key is not None  # from `begin`
            before = held["rollout"]
            after, trajectory = collect(params, before)
            data = self.data(agent, params, trajectory)

            def epoch(learnt: TrainState, key: jax.Array) -> Any:
                return lax.scan(move, learnt, parts(key, data, before.carry))

            keys = jax.random.split(jax.random.fold_in(key, count), self.num_epochs)
            learnt, metrics = lax.scan(epoch, TrainState(params, opt_state, {}, count, None), keys)
            seen = seen_after(held["seen"], trajectory)
            shown = jax.tree.map(jnp.mean, metrics) | {"return": seen.returns, "length": seen.lengths}
            held = {"rollout": after, "seen": seen}
            return TrainState(learnt.params, learnt.opt_state, held, count + 1, key), shown

        def best(params: Any, carry: Any, obs: Any, key: jax.Array) -> Any:
            carry, (policy, _) = agent.step(params, carry, obs)
            return carry, policy.mode()

        return Learner(begin, update, best, begin_carry, self.num_envs * self.num_steps)

    def data(self, agent: Agent, params: Any, trajectory: Trajectory) -> dict[str, Any]:
        """What is learnt from, `[time, envs, ...]`."""
        kept: Kept = trajectory.aux
        # What followed is judged with the memory of that moment, which the next episode does not have.
        _, (_, next_value) = agent.step(params, kept.carry, trajectory.next_obs)
        found = rl.gae(
            trajectory.reward, kept.value, next_value, **trajectory.ends, discount=self.discount, decay=self.decay,
        )  # fmt: skip
        return {
            "obs": trajectory.obs, "action": trajectory.action, "first": trajectory.first, "log_prob": kept.log_prob,
            "value": kept.value, "advantage": found.advantages, "target": found.targets,
        }  # fmt: skip

    def loss(self, agent: Agent, params: Any, batch: Any) -> Any:
        """The clipped surrogate, the error of the values, and a premium on entropy."""
        data, carry = batch
        policy, value = agent.unroll(params, carry, data["obs"], data["first"])
        ratio = jnp.exp(policy.log_prob(data["action"]) - data["log_prob"])
        advantage = data["advantage"]
        # The variance that `standardize` would take itself loses all digits where the mean is large.
        advantage = jax.nn.standardize(advantage, axis=None, variance=jnp.var(advantage), epsilon=1e-8)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - self.clip, 1 + self.clip) * advantage)
        error = (value - data["target"]) ** 2
        if self.clip_values:
            near = data["value"] + jnp.clip(value - data["value"], -self.clip, self.clip)
            error = jnp.maximum(error, (near - data["target"]) ** 2)
        entropy = jnp.mean(policy.entropy())
        loss = -jnp.mean(gain) + self.value * jnp.mean(error) / 2 - self.entropy * entropy
        return loss, {"entropy": entropy}
