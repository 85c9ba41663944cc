"""A task that cannot be done without memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._checks import check_count
from .._environment import Environment, environment
from ._spaces import Box, Discrete, check_action


class RecallState(NamedTuple):
    """The cue to be named, and the steps so far."""

    cue: jax.Array
    time: jax.Array


@environment
def recall(num_cues: int, delay: int) -> Environment:
    """Naming at the end of an episode what was shown at its beginning.

    The first observation shows one of the cues, each equally likely; `delay` blank ones follow, then the question. Only
    the answer to it is rewarded: by 1 if it names the cue, otherwise by 0, and the episode is terminated, after
    `delay + 2` steps. The best that a policy without memory can do is to guess: a mean return of `1 / num_cues`. With
    memory it is 1.

    Args:
      num_cues: how many cues there are, and actions.
      delay: how many blank observations stand between the cue and the question.
    Returns:
      An environment with actions `[]`, the names of the cues, and observations `[num_cues + 1]`: the cue, one-hot, and
      last whether this is the question.
    Raises:
      ValueError: for counts out of range; when stepped, for an action of another shape.

    >>> env = rl.recall(3, 1)
    >>> obs, state = env.reset(jax.random.key(0))
    >>> shown = [obs]
    >>> for _ in range(2):
    ...     obs, state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.argmax(shown[0]))
    ...     shown.append(obs)
    >>> jnp.stack(shown).tolist()
    [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    >>> _, _, reward, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.argmax(shown[0]))
    >>> reward.item(), terminated.item()
    (1.0, True)
    """
    check_count("recall", "num_cues", num_cues, at_least=2)
    check_count("recall", "delay", delay, at_least=0)

    def observed(state: RecallState) -> jax.Array:
        cue = jnp.where(state.time == 0, state.cue, -1)
        return jax.nn.one_hot(jnp.where(state.time == delay + 1, num_cues, cue), num_cues + 1)

    def reset_env(key: jax.Array, params: None) -> tuple[jax.Array, RecallState]:
        state = RecallState(jax.random.randint(key, (), 0, num_cues, jnp.int32), jnp.zeros((), jnp.int32))
        return observed(state), state

    def step_env(key: jax.Array, state: RecallState, action: Any, params: None) -> Any:
        asked = state.time == delay + 1
        right = check_action("recall", action, ()) == state.cue
        state = RecallState(state.cue, state.time + 1)
        return observed(state), state, (asked & right).astype(jnp.result_type(float)), asked, {}

    return Environment(
        reset_env,
        step_env,
        action_space=Discrete(num_cues),
        observation_space=lambda params: Box(0.0, 1.0, (num_cues + 1,)),
    )
