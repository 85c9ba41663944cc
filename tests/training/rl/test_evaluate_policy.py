"""Whole episodes against those of a known length."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from renga import training
from renga.training import rl


def countdown() -> training.Environment:
    """Ends after as many steps as were drawn at its beginning, 1 to 5; each is rewarded by 2."""

    def reset_env(key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        left = jax.random.randint(key, (), 1, 6)
        return left, (left, left)

    def step_env(key: jax.Array, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        left, drawn = state
        return left - 1, (left - 1, drawn), 2.0, left <= 1, {}

    return training.Environment(reset_env, step_env)


def still(params: Any, obs: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.zeros_like(obs)


def test_the_first_episode_of_each_environment_counts_whole_and_no_other():
    found = rl.evaluate_policy(countdown(), still, 50, 20)(None, jax.random.key(0))
    start = training.rollout(rl.vectorize(countdown(), 50), still, 1).init(jax.random.key(0), None)
    assert found.lengths.tolist() == start.obs.tolist()
    assert found.returns.tolist() == (2.0 * start.obs).tolist()
    assert found.ended.all()
    assert len(set(found.lengths.tolist())) == 5


def test_an_episode_that_takes_longer_is_counted_so_far_and_said_to_be():
    found = rl.evaluate_policy(countdown(), still, 50, 3)(None, jax.random.key(0))
    assert found.lengths.max() == 3
    whole = rl.evaluate_policy(countdown(), still, 50, 5)(None, jax.random.key(0))
    assert found.ended.tolist() == (whole.lengths <= 3).tolist()


def test_a_recurrent_policy_counts_its_steps():
    def act(params: Any, carry: jax.Array, obs: jax.Array, key: jax.Array) -> Any:
        return carry + 1, (jnp.zeros_like(obs), carry)

    evaluate = rl.evaluate_policy(
        countdown(), act, 4, 5, initial_carry=lambda params, obs: jnp.zeros_like(obs), has_aux=True
    )
    assert evaluate(None, jax.random.key(0)).ended.all()


@pytest.mark.parametrize("name", ["num_episodes", "num_steps"])
def test_counts_below_one_are_refused(name: str):
    counts: Any = {"num_episodes": 1, "num_steps": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"^evaluate_policy: expected {name} to be an integer of at least 1, got 0$"):
        rl.evaluate_policy(countdown(), still, **counts)
