"""A policy acting in an environment: one scan, which goes on where it stopped."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from .._call import Call, Recorded, recording
from ._checks import check_count
from ._environment import environment_of, where
from ._rollout_checks import check_action, check_arrays, check_same, check_scalars

Policy = Callable[..., Any]
Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class RolloutState(NamedTuple):
    """Where a rollout stands: all that it needs to go on.

    Attributes:
      obs: what the policy sees next.
      env_state: the environment's state.
      carry: of a recurrent policy; otherwise `()`.
      first: whether `obs` begins an episode, `[*batch]`.
      episode_return: the rewards of this episode so far, `[*batch]`.
      episode_length: its steps so far, `[*batch]`.
      step: how many steps have been made.
      key: what all random numbers are drawn from.
      env_params: parameters of the environment, or None for its own.
    """

    obs: Any
    env_state: Any
    carry: Any
    first: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    step: jax.Array
    key: jax.Array
    env_params: Any = None


class Trajectory(NamedTuple):
    """What happened in a rollout, time first; `batch` are the axes of a vectorized environment.

    Attributes:
      obs: what the policy saw, `[time, *batch, ...]`.
      action: what it did.
      reward: what that brought, `[time, *batch]`.
      terminated: whether the episode ended there by its own rules: nothing is to be expected after.
      truncated: whether it was cut off there: the value of `next_obs` is still to be expected.
      next_obs: what followed the action; at an episode's end its last observation, not the next one's first.
      first: whether `obs` begins an episode: there a recurrent policy starts from its initial carry.
      aux: what the policy gave beside the action; otherwise None.
      info: what the environment gave beside.
      episode_return: the rewards of the episode up to and with this step.
      episode_length: its steps up to and with this one.
    """

    obs: Any
    action: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_obs: Any
    first: jax.Array
    aux: Any
    info: Any
    episode_return: jax.Array
    episode_length: jax.Array

    @property
    def ended(self) -> jax.Array:
        """Where an episode ended, in either way, `[time, *batch]`."""
        return self.terminated | self.truncated


class Rollout(Recorded):
    """Two pure functions, from `rollout`: where to start, and so many steps from there.

    Attributes:
      init: `(key, params, env_params=None) -> RolloutState`.
    """

    def __init__(self, init: Callable[..., RolloutState], steps: Callable[..., Any], call: Call | None = None):
        self.init = init
        self.steps = steps
        self.call = call

    def __call__(self, params: Any, rollout_state: RolloutState) -> tuple[RolloutState, Trajectory]:
        """The steps."""
        return self.steps(params, rollout_state)


def _recorded(constructor: Constructor) -> Constructor:
    return recording(constructor, lambda made, call: Rollout(made.init, made.steps, call))


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
      TypeError: for no environment; when called, if a state, an observation or a carry is no pytree of arrays, or does
        not keep its structure and dtypes.
      ValueError: for counts below 1; when called, for actions that are none of the environment's action space, and
        shapes that a step changes.

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
    acted = environment_of("rollout", env)
    where_from = f"rollout of {_label(env)}"
    check_count("rollout", "num_steps", num_steps, at_least=1)
    check_count("rollout", "unroll", unroll, at_least=1)
    act = _with_carry(policy, initial_carry, has_aux)
    begin = initial_carry or (lambda params, obs: ())

    def params_of(env_params: Any) -> Any:
        return acted.default_params if env_params is None else env_params

    def move(params: Any, now: RolloutState, key: jax.Array) -> _Moved:
        """One action, and where it leads."""
        act_key, step_key = (jax.random.fold_in(key, use) for use in range(2))
        carry, action, aux = act(params, where(now.first, begin(params, now.obs), now.carry), now.obs, act_key)
        env_params = params_of(now.env_params)
        obs, env_state, reward, terminated, info = acted.step_env(step_key, now.env_state, action, env_params)
        truncated = acted.is_truncated(env_state, env_params)
        return _Moved(carry, action, aux, obs, env_state, reward, terminated, truncated, info)

    def init(key: jax.Array, params: Any, env_params: Any = None) -> RolloutState:
        reset_key, run_key = jax.random.split(key)
        obs, env_state = acted.reset_env(reset_key, params_of(env_params))
        check_arrays(where_from, {"obs": obs, "state": env_state})
        carry = begin(params, obs)
        check_arrays(where_from, {"carry": carry})
        obs, env_state, carry = jax.tree.map(_strong, (obs, env_state, carry))
        true, zero = jnp.array(True), jnp.array(0)
        start = RolloutState(obs, env_state, carry, true, zero, zero, zero, run_key, env_params)
        moved = jax.eval_shape(move, params, start, run_key)
        batch, dtype = moved.terminated.shape, jnp.promote_types(moved.reward.dtype, jnp.float32)
        return start._replace(
            first=jnp.ones(batch, bool), episode_return=jnp.zeros(batch, dtype), episode_length=jnp.zeros(batch, int)
        )

    def one(params: Any, now: RolloutState) -> tuple[RolloutState, Trajectory]:
        key = jax.random.fold_in(now.key, now.step)
        moved = move(params, now, key)
        carried = (now.obs, now.env_state, now.carry)
        next_obs, env_state, carry = _like(carried, (moved.obs, moved.env_state, moved.carry))
        terminated, truncated = (jnp.asarray(each, bool) for each in (moved.terminated, moved.truncated))
        ended = terminated | truncated
        total, length = now.episode_return + moved.reward, now.episode_length + 1
        seen = Trajectory(
            now.obs, moved.action, jnp.asarray(moved.reward), terminated, jnp.broadcast_to(truncated, ended.shape),
            next_obs, now.first, moved.aux, moved.info, total, length,
        )  # fmt: skip
        begun = acted.restart_env(jax.random.fold_in(key, 2), ended, next_obs, env_state, params_of(now.env_params))
        obs, env_state = _like(carried[:2], begun)
        total, length = (jnp.where(ended, 0, each) for each in (total, length))
        return RolloutState(obs, env_state, carry, ended, total, length, now.step + 1, now.key, now.env_params), seen

    def check(params: Any, now: RolloutState) -> None:
        moved = jax.eval_shape(move, params, now, now.key)
        check_scalars(where_from, now.first.shape, moved.reward, moved.terminated, moved.truncated)
        check_action(where_from, acted.action_space(params_of(now.env_params)), moved.action, now.first.shape)
        for name, before, after, who in (
            ("obs", now.obs, moved.obs, "step_env"),
            ("state", now.env_state, moved.env_state, "step_env"),
            ("carry", now.carry, moved.carry, "the policy"),
        ):
            check_same(where_from, name, before, after, who)

    def steps(params: Any, rollout_state: RolloutState) -> tuple[RolloutState, Trajectory]:
        check(params, rollout_state)
        return lax.scan(lambda now, _: one(params, now), rollout_state, length=num_steps, unroll=unroll)

    return Rollout(init, steps)


def episode_metrics(trajectory: Trajectory) -> dict[str, jax.Array]:
    """Mean return and length of the episodes that ended in a trajectory.

    Args:
      trajectory: of any rollout, with any axes of its own in front, those of `jax.vmap` say.
    Returns:
      `{"episodes": how many ended, "return": their mean return, "length": their mean length}`, scalars; the means are
      NaN where none ended.

    >>> from renga.training import rl
    >>> collect = rollout(rl.cart_pole(), lambda params, obs, key: jnp.array(1), 100)
    >>> _, trajectory = collect(None, collect.init(jax.random.key(0), None))
    >>> metrics = episode_metrics(trajectory)
    >>> metrics["episodes"].item(), (metrics["return"] == metrics["length"]).item(), metrics["length"].round().item()
    (10, True, 9.0)
    """
    ended = trajectory.ended
    num = jnp.sum(ended)
    means = {"return": trajectory.episode_return, "length": trajectory.episode_length}
    return {"episodes": num} | {name: jnp.sum(jnp.where(ended, each, 0)) / num for name, each in means.items()}


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
            carry, given = policy(params, carry, obs, key)
        action, aux = given if has_aux else (given, None)
        return carry, action, aux

    return act


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
