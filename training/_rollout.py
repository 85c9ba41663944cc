"""A policy acting in an environment: one scan, which goes on where it stopped."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from .._call import Call, Recorded, recording
from ._automatic import in_automatic_axes, spec_of
from ._checks import check_count
from ._environment import environment_of, where
from ._rollout_checks import check_action, check_arrays, check_carry, check_one, check_pair, check_same, check_scalars
from ._trajectory import RolloutState, Trajectory

Policy = Callable[..., Any]
Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class Rollout(Recorded):
    """Two pure functions, from `rollout`: where to start, and so many steps from there."""

    def __init__(self, env: Any, act: Callable[..., Any], begin: Policy, num_steps: int, unroll: int):
        self.env = environment_of("rollout", env)
        self.act = act
        self.begin = begin
        self.num_steps = num_steps
        self.unroll = unroll
        self.name = f"rollout of {_label(env)}"
        self.call: Call | None = None

    def init(self, key: jax.Array, params: Any, env_params: Any = None) -> RolloutState:
        """The beginning of an episode.

        Args:
          key: what all random numbers of the rollout are drawn from.
          params: of the policy; only shapes are looked at, unless the initial carry depends on them.
          env_params: of the environment; its own unless given.
        Raises:
          TypeError: if a state, an observation or a carry is no pytree of arrays, with the path.
        """
        reset_key, run_key = jax.random.split(key)
        obs, env_state = self.env.reset_env(reset_key, self._params_of(env_params))
        check_arrays(self.name, {"obs": obs, "state": env_state})
        carry = self.begin(params, obs)
        check_arrays(self.name, {"carry": carry})
        obs, env_state, carry = jax.tree.map(_strong, (obs, env_state, carry))
        true, zero = jnp.array(True), jnp.array(0)
        start = RolloutState(obs, env_state, carry, true, zero, zero, zero, run_key, env_params)
        moved = jax.eval_shape(self._move, params, start, run_key)
        batch, dtype = moved.terminated.shape, jnp.promote_types(moved.reward.dtype, jnp.float32)
        check_carry(self.name, carry, batch)
        return start._replace(
            first=jnp.ones(batch, bool), episode_return=jnp.zeros(batch, dtype), episode_length=jnp.zeros(batch, int)
        )

    def __call__(self, params: Any, rollout_state: RolloutState) -> tuple[RolloutState, Trajectory]:
        """The steps: `(rollout_state, trajectory)`."""
        return in_automatic_axes(self._steps, _as_the_state_lies)(params, rollout_state)

    def _steps(self, params: Any, rollout_state: RolloutState) -> tuple[RolloutState, Trajectory]:
        self._check(params, rollout_state)
        return lax.scan(lambda now, _: self._one(params, now), rollout_state, length=self.num_steps, unroll=self.unroll)

    def _one(self, params: Any, now: RolloutState) -> tuple[RolloutState, Trajectory]:
        """One step, with a new episode where one ended."""
        key = jax.random.fold_in(now.key, now.step)
        moved = self._move(params, now, key)
        carried = (now.obs, now.env_state, now.carry)
        next_obs, env_state, carry = _like(carried, (moved.obs, moved.env_state, moved.carry))
        terminated, truncated = (jnp.asarray(each, bool) for each in (moved.terminated, moved.truncated))
        ended = terminated | truncated
        total, length = now.episode_return + moved.reward, now.episode_length + 1
        seen = Trajectory(
            now.obs, moved.action, jnp.asarray(moved.reward), terminated, jnp.broadcast_to(truncated, ended.shape),
            next_obs, now.first, moved.aux, moved.info, total, length,
        )  # fmt: skip
        env_params, reset_key = self._params_of(now.env_params), jax.random.fold_in(key, 2)
        begun = self.env.restart_env(reset_key, ended, next_obs, env_state, env_params)
        obs, env_state = _like(carried[:2], begun)
        total, length = (jnp.where(ended, 0, each) for each in (total, length))
        return RolloutState(obs, env_state, carry, ended, total, length, now.step + 1, now.key, now.env_params), seen

    def _move(self, params: Any, now: RolloutState, key: jax.Array) -> "_Moved":
        """One action, and where it leads."""
        act_key, step_key = (jax.random.fold_in(key, use) for use in range(2))
        carry = where(now.first, self.begin(params, now.obs), now.carry)
        carry, action, aux = self.act(params, carry, now.obs, act_key)
        env_params = self._params_of(now.env_params)
        check_one(self.name, self.env.action_space(env_params), action)
        obs, env_state, reward, terminated, info = self.env.step_env(step_key, now.env_state, action, env_params)
        truncated = self.env.is_truncated(env_state, env_params)
        return _Moved(carry, action, aux, obs, env_state, reward, terminated, truncated, info)

    def _check(self, params: Any, now: RolloutState) -> None:
        """Refuses what cannot be scanned, before anything is compiled."""
        moved = jax.eval_shape(self._move, params, now, now.key)
        check_scalars(self.name, now.first.shape, moved.reward, moved.terminated, moved.truncated)
        space = self.env.action_space(self._params_of(now.env_params))
        check_action(self.name, space, moved.action, now.first.shape)
        for what, before, after, who in (
            ("obs", now.obs, moved.obs, "step_env"),
            ("state", now.env_state, moved.env_state, "step_env"),
            ("carry", now.carry, moved.carry, "the policy"),
        ):
            check_same(self.name, what, before, after, who)

    def _params_of(self, env_params: Any) -> Any:
        return self.env.default_params if env_params is None else env_params


def _recorded(constructor: Constructor) -> Constructor:
    def wrap(made: Any, call: Call) -> Rollout:
        made.call = call
        return made

    return recording(constructor, wrap)


@_recorded
def rollout(
    env: Any,
    policy: Policy,
    num_steps: int,
    *,
    initial_carry: Callable[[Any, Any], Any] | None = None,
    has_aux: bool = False,
    unroll: int = 1,
) -> Rollout:
    """So many steps of a policy in an environment, whose episodes begin anew where they end.

    The result is pure: under `jax.jit` it is one program with the learner around it, under `jax.vmap` over states it is
    as many environments, and it is differentiable where the environment is. Rollouts in turn, each from the state
    that the one before returned, are bitwise the rollout of all their steps.

    Args:
      env: an `Environment`, or anything else with gymnax's functions `reset_env` and `step_env`.
      policy: `(params, obs, key) -> action`; with `initial_carry`, `(params, carry, obs, key) -> (carry, action)`.
      num_steps: how many, over the ends of episodes.
      initial_carry: `(params, obs) -> carry`, a cell's say: makes the policy a recurrent one, whose carry this is where
        an episode begins. `obs` begins with the batch axes of the environment, and so must every leaf of the carry.
      has_aux: whether the policy returns `(action, aux)` for the action, where aux is any pytree to be kept.
      unroll: how many steps of the scan are compiled as one.
    Returns:
      A `Rollout`: `.init(key, params, env_params=None) -> rollout_state`, and called
      `(params, rollout_state) -> (rollout_state, Trajectory)`. It prints, compares, hashes and pickles as the call that
      made it.
    Raises:
      TypeError: for no environment; when called, if a state, an observation or a carry is no pytree of arrays, and if
        the policy does not return a pair where it should.
      ValueError: for counts below 1; when called, for actions that are none of the environment's action space, carries
        without the batch axes, and what a step changes of structure, shapes and dtypes.

    >>> def reset_env(key, params):
    ...     return jnp.zeros(()), jnp.zeros(())
    >>> def step_env(key, state, action, params):
    ...     return state + action, state + action, action, state + action >= 3, {}
    >>> collect = rollout(Environment(reset_env, step_env), lambda params, obs, key: params, 5)
    >>> rollout_state, trajectory = collect(1.0, collect.init(jax.random.key(0), 1.0))
    >>> trajectory.obs.tolist(), trajectory.next_obs.tolist()
    ([0.0, 1.0, 2.0, 0.0, 1.0], [1.0, 2.0, 3.0, 1.0, 2.0])
    >>> episode_metrics(trajectory)["return"].item(), rollout_state.episode_return.item()
    (3.0, 2.0)
    """
    check_count("rollout", "num_steps", num_steps, at_least=1)
    check_count("rollout", "unroll", unroll, at_least=1)
    act = _with_carry(policy, initial_carry, has_aux)
    return Rollout(env, act, initial_carry or (lambda params, obs: ()), num_steps, unroll)


class _Moved(NamedTuple):
    """What an action led to, before anything begins anew."""

    carry: Any
    action: Any
    aux: Any
    obs: Any
    env_state: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any


def _with_carry(policy: Policy, initial_carry: Any, has_aux: bool) -> Callable[..., tuple[Any, Any, Any]]:
    """A policy of any form as `(params, carry, obs, key) -> (carry, action, aux)`."""

    def act(params: Any, carry: Any, obs: Any, key: jax.Array) -> tuple[Any, Any, Any]:
        if initial_carry is None:
            given = policy(params, obs, key)
        else:
            carry, given = check_pair("(carry, action)", policy(params, carry, obs, key))
        action, aux = check_pair("(action, aux) for has_aux", given) if has_aux else (given, None)
        return carry, action, aux

    return act


def _as_the_state_lies(results: Any, params: Any, rollout_state: RolloutState) -> Any:
    """Specs of what a rollout returns: environments stay on the devices that they are on."""
    batch = jnp.shape(rollout_state.first)
    specs = [spec_of(leaf)[: len(batch)] for leaf in jax.tree.leaves(rollout_state) if jnp.shape(leaf)[:1] == batch[:1]]
    axes = max(specs, key=lambda spec: sum(axis is not None for axis in spec), default=())

    def of_step(leaf: Any) -> PartitionSpec:
        return PartitionSpec(None, *axes) if leaf.shape[1 : 1 + len(batch)] == batch else PartitionSpec()

    return jax.tree.map(spec_of, rollout_state), jax.tree.map(of_step, results[1])


def _strong(leaf: Any) -> jax.Array:
    """An array whose dtype does not give way: a scan's carry keeps its own."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else lax.convert_element_type(leaf, leaf.dtype)


def _like(before: Any, after: Any) -> Any:
    return jax.tree.map(lambda old, new: new if new is old else _strong(new), before, after)


def _label(env: Any) -> str:
    """What an environment is called: by its call, by gymnax's name, or by its class."""
    if isinstance(env, Recorded) and env.call is not None:
        return repr(env)
    return str(getattr(env, "name", type(env).__name__))
