"""Sweeps: a run for every seed and every combination of hyper-parameters, as one compiled program."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_count
from ._convolutions import convolves

Run = Callable[[dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]


class Sweep(NamedTuple):
    """What all members of a sweep ended with.

    Attributes:
      values: the table of members, `{name: [members]}`, with their `seed`, which is NumPy's.
      results: what their runs returned, with a leading axis of members.
      metrics: their metrics, `{name: [members, ...]}`.
    """

    values: dict[str, Any]
    results: Any
    metrics: dict[str, jax.Array]

    def member(self, index: int | jax.Array) -> "Sweep":
        """One member: the same three things, without the axis of members.

        Raises:
          ValueError: for a place that there is not.
        """
        num = len(self.values["seed"])
        if isinstance(index, int) and not -num <= index < num:
            raise ValueError(f"member: expected index to be in [{-num}, {num - 1}], got {index}.")
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self)

    def best(self, metric: str, mode: Literal["min", "max"] = "min") -> "Sweep":
        """The member whose metric is smallest, or largest; one that is not finite is never the best of several.

        Raises:
          ValueError: for a metric that there is not, or that is no scalar, and for another mode.
        """
        if mode not in ("min", "max"):
            raise ValueError(f"best: expected mode to be 'min' or 'max', got {mode!r}.")
        found = jnp.asarray(self._scalar("best", metric), float)
        cost = found if mode == "min" else -found
        return self.member(jnp.argmin(jnp.where(jnp.isfinite(found), cost, jnp.inf)))

    def over_seeds(self, metric: str) -> dict[str, jax.Array]:
        """A row for each combination of values: `{name: [rows], "mean": [rows], "spread": [rows]}`.

        `spread` is the standard deviation over seeds (over n - 1), NaN where there is one seed.

        Raises:
          ValueError: for a metric that there is not, or that is no scalar.
        """
        found = jnp.asarray(self._scalar("over_seeds", metric), float)
        num_seeds = len(np.unique(self.values["seed"]))
        rows = found.reshape(-1, num_seeds)
        table = {name: column[::num_seeds] for name, column in self.values.items() if name != "seed"}
        spread = jnp.full(len(rows), jnp.nan) if num_seeds == 1 else jnp.std(rows, 1, ddof=1)
        return table | {"mean": jnp.mean(rows, 1), "spread": spread}

    def _scalar(self, name: str, metric: str) -> jax.Array:
        if metric not in self.metrics:
            raise ValueError(f"{name}: expected one of the metrics {', '.join(self.metrics)}, got {metric!r}.")
        if jnp.ndim(self.metrics[metric]) != 1:
            shape = jnp.shape(self.metrics[metric])[1:]
            raise ValueError(
                f"{name}: expected metrics/{metric} to be a scalar for each member, got shape {shape}. Return one of "
                "its elements, or its mean, as a metric of its own."
            )
        return self.metrics[metric]


def sweep(
    run: Run,
    over: Mapping[str, Sequence[float] | jax.Array],
    *,
    seeds: int | Sequence[int] = 1,
    members_at_once: int | None = None,
) -> Sweep:
    """Runs a function of hyper-parameters and a key for all combinations of values, and all seeds, side by side.

    All members go under one `jax.vmap` in one compiled program, whose arguments the values are: other values compile
    nothing, as long as `run` is the same function (or an equal one that records its call) and there are as many
    members. Each member is `run(values, jax.random.key(seed))`, up to rounding. It may stand under a `jax.jit` of
    yours, with `compiler_options()` say.

    Args:
      run: `run(values, key) -> (result, metrics)`, pure; `values` is `{name: array}`, `metrics` a dict of arrays.
        Whatever shapes the program (sizes, counts, which algorithm) cannot depend on values: sweep over that in Python.
      over: `{name: values}`, numbers. Members are the product, the last name, and then the seed, changing fastest.
      seeds: how many, from 0; or the seeds themselves.
      members_at_once: how many run side by side, if memory does not suffice for all; the rest comes after, in the same
        program. By default all, but one where `run` convolves on a CPU, because XLA has no fast form there for
        convolutions that differ by member.
    Returns:
      A `Sweep`: tables of values and metrics, and results, with members as their first axis.
    Raises:
      ValueError: if a list of values is empty or does not hold numbers, if a name is "seed", or seeds or a count are
        out of range.
      TypeError: if `run` does not return a pair with a dict.

    >>> def run(values, key):
    ...     loss_fn = lambda w, batch, key: (w - 3) ** 2
    ...     tx = optim.sgd(values["rate"], momentum=values["momentum"])
    ...     train_state, metrics = loop(step(loss_fn, tx), lambda key: None, 20)(init(jax.random.normal(key), tx), key)
    ...     return train_state.params, {"loss": metrics["loss"][-1]}
    >>> found = training.sweep(run, {"rate": [0.001, 0.1], "momentum": [0.0, 0.5]}, seeds=3)
    >>> found.metrics["loss"].shape, found.values["seed"].tolist()[:4]
    ((12,), [0, 1, 2, 0])
    >>> best = found.best("loss")
    >>> round(best.values["rate"].item(), 3), round(best.results.item(), 1)
    (0.1, 3.0)
    >>> found.over_seeds("loss")["mean"].shape
    (4,)
    """
    table = _table(over, seeds)
    num = len(table["seed"])
    size = _members_at_once(run, table) if members_at_once is None else members_at_once
    check_count("sweep", "members_at_once", size, at_least=1)
    size = min(size, num)
    places = np.minimum(np.arange(-(-num // size) * size), num - 1).reshape(-1, size)  # the last one fills up
    parts = [_members(run, {name: column[chunk] for name, column in table.items()}) for chunk in places]
    results, metrics = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:num], *parts)
    return Sweep(table, results, metrics)


@functools.partial(jax.jit, static_argnums=0)
def _members(run: Run, table: dict[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
    """The runs of some members in one program."""
    if len(table["seed"]) == 1:  # without an axis of members, which convolutions would pay for
        alone = _member(run, jax.tree.map(lambda column: column[0], table))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], alone)
    return jax.vmap(functools.partial(_member, run))(table)


def _member(run: Run, values: dict[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
    values = dict(values)
    found = run(values, jax.random.key(values.pop("seed")))
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        given = "an array" if isinstance(found, jax.Array) else f"a {type(found).__name__}"
        given += f" of {len(found)}" if isinstance(found, tuple) else ""
        raise TypeError(f"sweep: expected run(values, key) to return (result, metrics), metrics a dict, got {given}.")
    return found


def _members_at_once(run: Run, table: dict[str, jax.Array]) -> int:
    """All, unless that is slow; see `ensemble`, which measured it."""
    if jax.default_backend() != "cpu":
        return len(table["seed"])
    first = jax.tree.map(lambda column: jax.ShapeDtypeStruct((), column.dtype), table)
    traced = jax.make_jaxpr(functools.partial(_member, run))(first)
    return 1 if convolves(traced.jaxpr) else len(table["seed"])


def _table(over: Mapping[str, Sequence[float] | jax.Array], seeds: int | Sequence[int]) -> dict[str, Any]:
    """The values of every member, `{name: [members]}`."""
    columns: dict[str, Any] = {name: _column(name, values) for name, values in over.items()}
    columns["seed"] = _seeds(seeds)
    sizes = [len(column) for column in columns.values()]
    places = np.unravel_index(np.arange(math.prod(sizes)), sizes)
    return {name: column[place] for (name, column), place in zip(columns.items(), places, strict=True)}


def _column(name: str, values: Any) -> jax.Array:
    if name == "seed":
        raise ValueError("sweep: expected names of hyper-parameters in over, got 'seed'. Give seeds as seeds=[...].")
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) == 0:
        raise ValueError(f"sweep: expected over[{name!r}] to be a list of one number or more, got {values!r}.")
    try:
        column = jnp.asarray(values)
    except (TypeError, ValueError):
        column = None
    if column is None or column.ndim != 1 or jnp.issubdtype(column.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"sweep: expected over[{name!r}] to be a list of numbers, got {values!r}. What is no number shapes the "
            "program: sweep over it in Python."
        )
    return column


def _seeds(seeds: Any) -> np.ndarray:
    if isinstance(seeds, int):
        check_count("sweep", "seeds", seeds, at_least=1)
        seeds = range(seeds)
    seeds = list(seeds)
    bad = [seed for seed in seeds if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32]
    if not seeds or bad or len(set(seeds)) < len(seeds):
        raise ValueError(f"sweep: expected seeds to be different integers in [0, 2**32), got {seeds}.")
    return np.array(seeds, np.uint32)
