"""A whole run of training in one compiled program, whose batches are drawn on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._call import recording
from ._checks import check_count
from ._state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


@recording
def loop(
    step: Step, sample: Callable[[jax.Array], Any], num_steps: int, *, report_every: int = 1
) -> Callable[[TrainState, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """So many steps as one pure function, each on a batch that is drawn when its turn comes.

    `jax.jit` makes one program of it, which runs without Python; `jax.vmap` one that trains many seeds at once. For
    batches that come from elsewhere there is `fit`.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`, from `training.step` say.
      sample: `sample(key) -> batch`, pure, such as `lambda key: sinusoids(10)(key, 25)`. The key of a step depends on
        the loop's and on `train_state.step` alone: a run in two parts is the same run.
      num_steps: how many steps.
      report_every: steps over which metrics are averaged, a divisor of `num_steps`.
    Returns:
      `(train_state, key) -> (train_state, metrics)`, each metric `[num_steps / report_every, ...]`. It prints, compares
      and hashes as the call that made it.
    Raises:
      ValueError: if a count is below 1, or `report_every` does not divide `num_steps`.

    >>> loss_fn = lambda w, batch, key: jnp.mean((w - batch) ** 2)
    >>> train = loop(step(loss_fn, optim.sgd(0.1)), lambda key: 3 + jax.random.normal(key, (8,)), 100, report_every=50)
    >>> train_state, metrics = jax.jit(train)(init(jnp.zeros(()), optim.sgd(0.1)), jax.random.key(0))
    >>> train_state.step.item(), metrics["loss"].shape, abs(train_state.params.item() - 3) < 0.5
    (100, (2,), True)
    """
    for name, count in {"num_steps": num_steps, "report_every": report_every}.items():
        check_count("loop", name, count, at_least=1)
    if num_steps % report_every:
        raise ValueError(
            f"loop: expected report_every to divide num_steps = {num_steps}, got {report_every}. The rest of the steps "
            "would have no report."
        )

    def run(train_state: TrainState, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        def one(train_state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
            return step(train_state, sample(jax.random.fold_in(key, train_state.step)))

        def until_report(train_state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
            train_state, metrics = lax.scan(one, train_state, length=report_every)
            return train_state, jax.tree.map(lambda each: jnp.mean(each, 0), metrics)

        return lax.scan(until_report, train_state, length=num_steps // report_every)

    return run
