"""One runner for every comparison: cases in turn, medians, ratios, a table, and JSON with the peers' versions.

A case is a function that runs one round, waits for its result, and returns how many units (steps, examples) the
round was. Rounds of all cases alternate, A B C C B A A B C ...: a machine that slows down for a while slows down all of
them, and no case always comes after the same other one, whose threads may still be spinning. All run in one process but
torch's, each of which has one of its own (`apart`): beside JAX's threads its own were measured up to 40 times slower.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Round = Callable[[], int]
PEERS = ("jax", "jaxlib", "numpy", "optax", "dm-haiku", "flax", "equinox", "torch", "opacus", "torchopt", "higher")


class Timing(NamedTuple):
    """What one case took, in microseconds a unit.

    Attributes:
      median: over rounds.
      low: first quartile.
      high: third quartile.
      ratio: median over rounds of this case's time over the baseline's in the same round.
    """

    median: float
    low: float
    high: float
    ratio: float


def compare(cases: Mapping[str, Round], baseline: str, num_rounds: int) -> dict[str, Timing]:
    """Times cases in turn.

    Args:
      cases: rounds by name; each is run once before the first counted round.
      baseline: the case that the others are set against.
      num_rounds: counted rounds of each.
    Returns:
      A timing for each case.
    Raises:
      ValueError: if there is no such baseline, or there are fewer than two rounds.
    """
    if baseline not in cases or num_rounds < 2:
        raise ValueError(f"expected a baseline of {list(cases)} and two rounds or more, got {baseline!r}, {num_rounds}")
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(num_rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            units = cases[name]()
            times[name].append((time.perf_counter() - start) / units * 1e6)
    return {name: _timing(each, times[baseline]) for name, each in times.items()}


def apart(make: Callable[..., Round], *args: Any, **options: Any) -> Round:
    """The round of `make(*args, **options)` in a process of its own, which ends with this one.

    What it takes to ask for a round and to hear of its end, a tenth of a millisecond, is counted.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, make, args, options), daemon=True).start()

    def run() -> int:
        ours.send(None)
        units = ours.recv()
        if isinstance(units, BaseException):
            raise units
        return units

    return run


def _serve(connection: Any, make: Callable[..., Round], args: tuple, options: dict[str, Any]) -> None:
    run: Round | None = None
    while True:
        try:
            connection.recv()
        except EOFError:  # the asking process has ended
            return
        try:
            run = run or make(*args, **options)
            connection.send(run())
        except Exception as error:
            connection.send(error)


def main(title: str, cases: Callable[[], Mapping[str, Round]], baseline: str, num_rounds: int = 25) -> None:
    """Runs a comparison from the command line, prints its table, and writes it as JSON.

    Args:
      title: what is compared, and the unit.
      cases: makes the cases.
      baseline: the case that the others are set against.
      num_rounds: counted rounds, unless `--rounds` says otherwise.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--rounds", type=int, default=num_rounds, help="counted rounds of each case")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    options = parser.parse_args()
    timings = compare(cases(), baseline, options.rounds)
    print(table(title, timings, baseline))
    if options.json:
        record = {"title": title, "baseline": baseline, "rounds": options.rounds, **environment()}
        record["cases"] = {name: timing._asdict() for name, timing in timings.items()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def table(title: str, timings: Mapping[str, Timing], baseline: str) -> str:
    """A comparison as text."""
    width = max(map(len, timings))
    lines = [title, f"{'':{width}}  {'median':>9}  {'quartiles':>19}  ratio"]
    for name, (median, low, high, ratio) in timings.items():
        lines.append(f"{name:{width}}  {median:>7.1f}us  {low:>7.1f}us-{high:>7.1f}us  {ratio:.3f}")
    versions = ", ".join(f"{name} {version}" for name, version in environment()["versions"].items())
    return "\n".join([*lines, f"ratios to: {baseline}", versions])


def environment() -> dict[str, Any]:
    """What the figures depend on: machine and versions."""
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": found,
    }


def _timing(times: list[float], baseline: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    ratio = statistics.median(mine / theirs for mine, theirs in zip(times, baseline, strict=True))
    return Timing(median, low, high, ratio)
