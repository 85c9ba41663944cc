"""What a run left, taken up again: its parameters, and what they are worth on the data of its config."""

import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._evaluate import evaluate
from ._config import ConfigError
from ._experiment import Experiment, net_of
from ._task import Losses


def arrays_of(directory: Path) -> dict[str, np.ndarray]:
    """The arrays that a run left as `params.npz`, by path.

    Raises:
      ConfigError: if there is no such file, or it is damaged.
    """
    path = directory / "params.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected the parameters of a run, got '{error}'") from None


def load_params(directory: Path, like: Any) -> Any:
    """The tree that a run left as `params.npz`, arrays by path.

    Args:
      directory: of the run.
      like: a tree of the same structure, of arrays or of their shapes.
    Raises:
      ConfigError: if there is none, or one of other paths and shapes.
    """
    path, found = directory / "params.npz", arrays_of(directory)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {jax.tree_util.keystr(place, simple=True, separator="/"): tuple(leaf.shape) for place, leaf in leaves}
    for name in sorted(wanted.keys() | found.keys()):
        given = found[name].shape if name in found else "nothing"
        if wanted.get(name) != given:
            raise ConfigError(f"{path}: expected {name} {wanted.get(name, 'not to be there')}, got {given}")
    return jax.tree.unflatten(structure, [jnp.asarray(found[name]) for name in wanted])


def supervised_evaluate(experiment: Experiment, directory: Path) -> str:
    """The metrics of a run's network on its test data.

    Raises:
      ConfigError: if the parameters are missing, or are those of another network.
    """
    losses, size = Losses(net_of(experiment), experiment.data), experiment.data.test_batch_size
    loaded = losses.task.load(experiment.seed, experiment.train.batch_size)
    split = losses.task.split(loaded, experiment.seed)
    params, state = jax.eval_shape(losses.init, jax.random.key(0))
    held = load_params(directory, params | {"state": state})
    state = held.pop("state")
    found = evaluate(losses.metrics, held, state, data=split.test, batch_size=size)
    shown = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
    return f"{shown}  on {len(split.test['y'])} held-out {losses.task.unit}"
