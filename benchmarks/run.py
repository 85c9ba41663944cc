"""Runs every comparison, each in a process of its own, and writes the page of benchmarks.

    pip install -e '.[bench,rl,cli]'
    python benchmarks/run.py                                  # all, as long as an hour
    python benchmarks/run.py --only conv --only 'lstm*'       # names, or files as loop.py
    python benchmarks/run.py --rounds 3                       # a glance
    python benchmarks/run.py --page                           # the page and its pictures anew, nothing measured

The page is `docs/benchmarks.md`; its figures and its picture lie in `docs/benchmarks/`, by backend. What is not run
keeps its figures, with their own day and versions. Let nothing else run on the machine.
"""

import argparse
import fnmatch
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from page import draw, page
from results import missed
from runner import REGISTERED, write

FOLDER = Path(__file__).parent
OUT = FOLDER.parent / "docs" / "benchmarks"
PARTS = {"ceilings.py", "nets.py", "page.py", "results.py", "run.py", "runner.py", "steps.py"}  # have no comparisons
LIMIT = 3600  # seconds for one comparison

Record = dict[str, Any]


def registered() -> Record:
    """All comparisons by name, with title, file and backends; and the files that cannot be imported, and why."""
    failures = {}
    for path in sorted(FOLDER.glob("*.py")):
        if path.name not in PARTS:
            try:
                importlib.import_module(path.stem)
            except Exception as error:
                failures[path.name] = f"{type(error).__name__}: {error}"
    listed = {
        name: {"title": each.title, "file": each.file, "backends": each.backends} for name, each in REGISTERED.items()
    }
    return {"comparisons": listed, "failures": failures}


def chosen(listed: Mapping[str, Any], patterns: Sequence[str], backend: str) -> dict[str, Any]:
    """The comparisons for a backend whose name or file matches one of the patterns, or all."""
    return {
        name: each
        for name, each in listed.items()
        if (not each["backends"] or backend in each["backends"])
        and (not patterns or any(fnmatch.fnmatch(word, at) for word in (name, each["file"]) for at in patterns))
    }


def measured(name: str, each: Mapping[str, Any], num_rounds: int | None, ceilings: Path) -> Record:
    """A comparison's entry, from a process of its own; where it fails, an entry with `error`."""
    begin, others = time.monotonic(), elsewhere()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [each["file"], name, "--json", str(result), "--ceilings", str(ceilings)]
        error = child(command + (["--rounds", str(num_rounds)] if num_rounds else []))
        if error is None:
            others = max(elsewhere() - others, 0) / (time.monotonic() - begin)
            return json.loads(result.read_text(encoding="utf-8")) | {"others": round(others, 2)}
        return {"title": each["title"], "file": each["file"], "error": error}


def elsewhere() -> float:
    """Processor time, in seconds, of all but this process and its children; 0 where the system does not say."""
    if not (path := Path("/proc/stat")).exists():
        return 0.0
    user, nice, system, _, _, *rest = map(int, path.read_text(encoding="utf-8").splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def child(command: Sequence[str]) -> str | None:
    """Runs a file of this folder; what went wrong is the last line that it said, or None."""
    try:
        done = subprocess.run(
            [sys.executable, str(FOLDER / command[0]), *command[1:]], capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {LIMIT} seconds"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return (said[-1].strip() if said else f"exit code {done.returncode}") if done.returncode else None


def merged(before: Mapping[str, Any], listed: Mapping[str, Any], entries: Mapping[str, Record]) -> dict[str, Record]:
    """Entries of before and now, in the order of the list.

    Args:
      before: entries by name.
      listed: what `registered` gave.
      entries: those that were run.
    Returns:
      All entries whose comparison there still is, or whose file could not be imported.
    """
    now = {**before, **entries}
    lost = {name: each for name, each in now.items() if each["file"] in listed["failures"]}
    return {name: now[name] for name in listed["comparisons"] if name in now} | lost


def run(patterns: Sequence[str], num_rounds: int | None, out: Path) -> None:
    """Measures, and writes figures and picture after each comparison."""
    with tempfile.TemporaryDirectory() as folder:
        listing, ceilings = Path(folder) / "list.json", Path(folder) / "ceilings.json"
        for command in (["run.py", "--list", str(listing)], ["ceilings.py", "--json", str(ceilings)]):
            if error := child(command):
                raise SystemExit(f"{command[0]}: {error}")
        listed = json.loads(listing.read_text(encoding="utf-8"))
        record = json.loads(ceilings.read_text(encoding="utf-8")) | {"failures": listed["failures"]}
        path = out / f"{record['backend']}.json"
        entries = json.loads(path.read_text(encoding="utf-8"))["comparisons"] if path.exists() else {}
        wanted = chosen(listed["comparisons"], patterns, record["backend"])
        for number, (name, each) in enumerate(wanted.items(), 1):
            print(f"[{number}/{len(wanted)}] {name} ({each['file']})", end=" ", flush=True)
            begin = time.monotonic()
            entries = merged(entries, listed, {name: measured(name, each, num_rounds, ceilings)})
            print(f"{time.monotonic() - begin:.0f} s, {outcome(entries[name])}", flush=True)
            write(path, record | {"comparisons": entries})


def outcome(entry: Record) -> str:
    """How it went, in a few words."""
    if "error" in entry:
        return f"failed: {entry['error']}"
    promises = entry["promises"]
    return f"{sum(map(missed, promises))} of {len(promises)} promises missed" if promises else "nothing promised"


def publish(out: Path) -> None:
    """Writes the page from all figures there are, and a picture of those of each backend."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))}
    for backend, record in records.items():
        draw(record, out / f"{backend}.png")
    out.with_suffix(".md").write_text(page(records, out.name), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="counted rounds of each case, in place of each comparison's own")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="names or files; can be repeated"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the figures; the page lies beside it")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        write(options.list, registered())
        return
    if not options.page:
        run(options.only, options.rounds, options.out)
    publish(options.out)


if __name__ == "__main__":
    main()
