"""A run of reinforcement learning: returns over frames, and the agent at work."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import rl
from .._compiler import jit
from .._environment import Environment
from .._fit import fit
from .._interrupts import deferred_interrupts
from .._rollout import rollout
from .._state import TrainState
from ._config import ConfigError
from ._directory import Opened, RunDirectory, new_run
from ._learner import Learner, NoBatches
from ._loaded import load_params
from ._rl import RlExperiment
from ._run import check_finite, load_plots, rows_of

# What a key is split into is what folding in 0, 1 and so on gives: these stay clear of what a learner begins with.
REPORT, TEST, ANIMATION = 10, 11, 12


def rl_train(experiment: RlExperiment, directory: Path, title: str, *, opened: Opened = new_run) -> rl.Episodes:
    """Trains as a config says, and leaves a run directory.

    Args:
      experiment: the config.
      directory: where to leave it.
      title: what the pictures are headed with.
      opened: a new directory, or that of a run to go on with.
    Returns:
      The episodes of the test.
    Raises:
      ConfigError: if something cannot be run, before anything is compiled.
      RunError: if a metric is no longer finite.
      KeyboardInterrupt: between two calls of updates, if Ctrl-C was pressed; the run is saved.
    """
    with deferred_interrupts():
        plots = load_plots()
        check_numpyro()
        with opened(directory, experiment, title) as run:
            return _train(experiment, run, plots=plots, title=title)


def _train(experiment: RlExperiment, run: RunDirectory, *, plots: Any, title: str) -> rl.Episodes:
    env, learner = experiment.build()
    train, frames = experiment.train, experiment.train.num_updates * learner.frames
    print(f"agent     {experiment.net}\nchain     {experiment.chain}\nenv       {experiment.env.name}")
    print(f"learner   {experiment.learner.name}, {frames:,} frames, {learner.frames:,} an update")
    print(f"run       {run.path}", flush=True)
    checkpoints, start = run.checkpoints(), time.perf_counter()
    run.log_again(rows_of(checkpoints))
    tested = tester(experiment, env, learner, experiment.test.num_reported)

    def test(train_state: TrainState) -> dict[str, float]:
        return {"test_return": float(jnp.mean(tested(train_state.params, key_for(experiment, REPORT)).returns))}

    def keep(row: dict[str, float], train_state: TrainState) -> None:
        run.log(row)
        check_finite(row)
        run.save_params(train_state.params, {})

    train_state, history = fit(
        learner.step, learner.begin(jax.random.key(experiment.seed)), NoBatches(),
        num_steps=train.num_updates, report_every=train.report_every, evaluate=test, on_report=keep,
        checkpoints=checkpoints, checkpoint_every=run.every,
    )  # fmt: skip
    run.save_params(train_state.params, {})
    seconds = time.perf_counter() - start
    plots.returns(history, learner.frames, run.path / "curves.png", title)
    shown = _animate(experiment, env, learner, train_state.params, run.path)
    found = evaluated(experiment, env, learner, train_state.params)
    print(f"{said_of(found)}, after {frames:,} frames in {seconds:.0f} s{shown}")
    return found


def tester(experiment: RlExperiment, env: Environment, learner: Learner, num_episodes: int) -> Any:
    """`(params, key) -> Episodes`, compiled."""
    return jit(
        rl.evaluate_policy(
            env, learner.act, num_episodes, experiment.env.max_steps, initial_carry=learner.initial_carry
        )
    )


def evaluated(experiment: RlExperiment, env: Environment, learner: Learner, params: Any) -> rl.Episodes:
    """The episodes of the test."""
    return tester(experiment, env, learner, experiment.test.num_episodes)(params, key_for(experiment, TEST))


def key_for(experiment: RlExperiment, use: int) -> jax.Array:
    """A key of its own for each use beside training."""
    return jax.random.fold_in(jax.random.key(experiment.seed), use)


def said_of(found: rl.Episodes) -> str:
    """How good the agent is."""
    mean, spread = float(jnp.mean(found.returns)), float(jnp.std(found.returns))
    num_cut = int(jnp.sum(~found.ended))
    cut = f", {num_cut} of them cut short" if num_cut else ""
    return f"mean return {mean:.4g} (standard deviation {spread:.3g}) of {len(found.returns)} episodes{cut}"


def rl_evaluate(experiment: RlExperiment, directory: Path) -> str:
    """What the parameters of a run are worth, and an animation of an episode made anew.

    Raises:
      ConfigError: if the parameters are missing, or are those of another agent.
    """
    load_plots()
    check_numpyro()
    env, learner = experiment.build()
    params = load_params(directory, jax.eval_shape(learner.begin, jax.random.key(0)).params)
    shown = _animate(experiment, env, learner, params, directory)
    return f"{said_of(evaluated(experiment, env, learner, params))}{shown}"


def check_numpyro() -> None:
    """Refuses to begin without the distributions of policies.

    Raises:
      ConfigError: naming the extra.
    """
    try:
        import numpyro.distributions  # noqa: F401
    except ImportError:
        raise ConfigError("renga train draws actions with NumPyro. Install it with pip install 'renga[rl]'.") from None


def _animate(experiment: RlExperiment, env: Environment, learner: Learner, params: Any, directory: Path) -> str:
    """Draws one episode, where there is a picture of the environment; says what there is none of."""
    from . import _rl_plots

    if experiment.env.name not in _rl_plots.PICTURES:
        return ""
    collect = rollout(env, learner.act, experiment.env.max_steps, initial_carry=learner.initial_carry)
    key = key_for(experiment, ANIMATION)
    _, seen = jax.jit(lambda params: collect(params, collect.init(key, params)))(params)
    length = int(np.argmax(np.append(np.asarray(seen.ended), True))) + 1
    obs, actions = (np.asarray(each)[:length] for each in (seen.obs, seen.action))
    _rl_plots.episode(experiment.env.name, obs, actions, directory / "episode.gif")
    return ", one of them in episode.gif"
