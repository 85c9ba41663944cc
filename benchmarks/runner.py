"""One runner for every comparison: cases in turn, medians, ratios, a table, and JSON with the peers' versions.

A case is a function that runs one round, waits for its result, and returns how many units (steps, examples) the
round was. Rounds of all cases alternate, A B C C B A A B C ...: a machine that slows down for a while slows down all of
them, and no case always comes after the same other one, whose threads may still be spinning. All run in one process but
torch's, each of which has one of its own (`apart`): beside JAX's threads its own were measured up to 40 times slower.

A function that returns cases joins by the decorator `comparison`; `main()` at the end of its file runs it by name.
"""

import argparse
import fnmatch
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from results import Promise, Timing, Work, described, environment, table

Round = Callable[[], int]
F = TypeVar("F", bound=Callable[..., Any])
CPU_PEERS = ("torch", "Opacus", "TorchOpt", "learn2learn", "higher", "gymnasium")  # left out on an accelerator


class Comparison(NamedTuple):
    """What `comparison` registers; its arguments say what each field is.

    Attributes:
      cases: makes the rounds by name.
    """

    name: str
    title: str
    baseline: str
    cases: Callable[[], Mapping[str, Round]]
    num_rounds: int
    promises: tuple[Promise, ...]
    work: Work | Mapping[str, Work] | None
    ours: str
    backends: tuple[str, ...]
    num_cores: int | None

    @property
    def file(self) -> str:
        """The file whose function makes the cases."""
        module = sys.modules[getattr(self.cases, "func", self.cases).__module__]
        return Path(str(module.__file__)).name


REGISTERED: dict[str, Comparison] = {}


def comparison(
    name: str,
    title: str,
    baseline: str,
    *,
    num_rounds: int = 9,
    promises: Sequence[Promise] = (),
    work: Work | Mapping[str, Work] | None = None,
    ours: str = "renga*",
    backends: Sequence[str] = (),
    num_cores: int | None = None,
) -> Callable[[F], F]:
    """Registers a function without arguments that makes the cases of a comparison.

    Args:
      name: its name on the command line, another one than all others have.
      title: what is compared, and what a unit is.
      baseline: the case that the others are set against.
      num_rounds: counted rounds, unless the command line says otherwise.
      promises: what its times have to show.
      work: floating-point operations and bytes of a unit, of all cases or of each that is named.
      ours: a pattern of the names of our cases.
      backends: those of JAX on which it says something; any, if there are none.
      num_cores: so many of the machine's cores are used; all, if there is no number.
    Returns:
      A decorator that returns the function as it is.
    Raises:
      ValueError: if the name is taken.
    """

    def register(cases: F) -> F:
        if name in REGISTERED:
            raise ValueError(
                f"comparison: expected a new name, got {name!r} of {REGISTERED[name].file}. Choose another."
            )
        REGISTERED[name] = Comparison(
            name, title, baseline, cases, num_rounds, tuple(promises), work, ours, tuple(backends), num_cores
        )
        return cases

    return register


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


def installed(peers: Mapping[str, Mapping[str, Callable[[], Round]]]) -> dict[str, Round]:
    """The cases of those modules that are installed, made: `{module: {name of a case: what makes it}}`."""
    there = [makers for module, makers in peers.items() if importlib.util.find_spec(module)]
    return {name: make() for makers in there for name, make in makers.items()}


def apart(make: Callable[..., Round], *args: Any, **options: Any) -> Round:
    """The round of `make(*args, **options)` in a process of its own, from its first round until this one ends.

    What it takes to ask for a round and to hear of its end, a tenth of a millisecond, is counted.
    """
    context = multiprocessing.get_context("spawn")
    pipe: list[Any] = []

    def run() -> int:
        if not pipe:
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, make, args, options), daemon=True).start()
            pipe.append(ours)
        pipe[0].send(None)
        units = pipe[0].recv()
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


def main() -> None:
    """Runs one of the registered comparisons from the command line, prints its table, and writes it as JSON.

    Where only one is registered, it needs no name.
    """
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = "\n".join(f"{each.name}: {each.title}" for each in REGISTERED.values())
    first, *others = REGISTERED
    parser.add_argument("name", choices=REGISTERED, nargs=None if others else "?", default=first)
    parser.add_argument("--rounds", type=int, help="counted rounds of each case")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    parser.add_argument("--ceilings", type=Path, help="what ceilings.py wrote; otherwise they are measured where asked")
    options = parser.parse_args()
    entry = run(REGISTERED[options.name], options.rounds, options.ceilings)
    print(table(entry))
    if options.json:
        write(options.json, entry)


def run(chosen: Comparison, num_rounds: int | None = None, ceilings: Path | None = None) -> dict[str, Any]:
    """Times a comparison in this process.

    Args:
      chosen: the comparison.
      num_rounds: counted rounds, if not its own number.
      ceilings: a file that `ceilings.py` wrote.
    Returns:
      What the page and the JSON hold of it.
    Raises:
      ValueError: if it says nothing on this backend.
    """
    where = environment()
    if chosen.backends and where["backend"] not in chosen.backends:
        raise ValueError(
            f"{chosen.name}: expected the backend {' or '.join(chosen.backends)}, got {where['backend']}. Run it there."
        )
    _use_cores(chosen.num_cores)
    cases = chosen.cases()
    if where["backend"] != "cpu":
        cases = {name: case for name, case in cases.items() if not name.startswith(CPU_PEERS)}
    num_rounds = chosen.num_rounds if num_rounds is None else num_rounds
    timings = compare(cases, chosen.baseline, num_rounds)
    if chosen.work is None:
        peaks = None
    elif ceilings:
        peaks = json.loads(ceilings.read_text(encoding="utf-8"))["ceilings"]
    else:
        from ceilings import measure

        peaks = measure()
    work = {name: chosen.work for name in timings} if isinstance(chosen.work, Work) else chosen.work or {}
    ours = fnmatch.filter(timings, chosen.ours)
    head = {"title": chosen.title, "file": chosen.file, "baseline": chosen.baseline, "rounds": num_rounds}
    return head | where | described(timings, chosen.baseline, chosen.promises, work, peaks, ours)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes JSON, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _use_cores(number: int | None) -> None:
    if number is None or not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) > number:
        os.sched_setaffinity(0, allowed[:number])
        os.execv(sys.executable, sys.orig_argv)  # JAX's threads were made for all of them


def _timing(times: list[float], baseline: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    ratio = statistics.median(mine / theirs for mine, theirs in zip(times, baseline, strict=True))
    return Timing(median, low, high, ratio, tuple(times))
