"""What is made of times: ratios, promises kept or not, shares of the machine's ceilings, a table of a comparison."""

import datetime
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PEERS = (
    *("jax", "jaxlib", "numpy", "optax", "dm-haiku", "flax", "equinox", "torch", "opacus", "torchopt", "learn2learn"),
    *("higher", "gymnax", "gymnasium"),
)
UNITS = {"s": 1e6, "ms": 1e3, "us": 1}


class Timing(NamedTuple):
    """What one case took, in microseconds a unit.

    Attributes:
      median: over rounds.
      low: first quartile.
      high: third quartile.
      ratio: median over rounds of this case's time over the baseline's in the same round.
      times: those of all rounds.
    """

    median: float
    low: float
    high: float
    ratio: float
    times: tuple[float, ...]


class Promise(NamedTuple):
    """What a comparison has to show.

    Attributes:
      case: one of ours.
      peer: what it is set against; of several, the fastest by its median.
      at_most: the median over rounds of `time(case) / time(peer)` in the same round is to be no more than that.
      why: what is known of the reason where it is more, in sentences.
    """

    case: str
    peer: str | tuple[str, ...]
    at_most: float
    why: str = ""


class Work(NamedTuple):
    """What a unit does: floating-point operations, and bytes that have to move to or from memory."""

    flops: float | None = None
    bytes: float | None = None


def found(promise: Promise, timings: Mapping[str, Timing]) -> dict[str, Any]:
    """A promise beside what was measured: `found` is None where the case or all peers are missing."""
    peers = (promise.peer,) if isinstance(promise.peer, str) else promise.peer
    there = [peer for peer in peers if peer in timings]
    best = min(there, key=lambda peer: timings[peer].median) if there else " or ".join(peers)
    measured = there and promise.case in timings
    ratio = _short(statistics.median(_ratios(timings[promise.case], timings[best]))) if measured else None
    figures = {"case": promise.case, "peer": best, "at_most": _short(promise.at_most), "found": ratio}
    return figures | ({"why": promise.why} if promise.why else {})


def share(timing: Timing, work: Work | None, ceilings: Mapping[str, float] | None) -> dict[str, float] | None:
    """How much of each ceiling a case reaches.

    Args:
      timing: its times.
      work: of a unit.
      ceilings: `flops` and `bytes` a second.
    Returns:
      A share for each kind of work that is known, or None.
    """
    if work is None or ceilings is None:
        return None
    done = {kind: amount for kind, amount in work._asdict().items() if amount is not None}
    return {kind: _short(amount / timing.median * 1e6 / ceilings[kind]) for kind, amount in done.items()}


def described(
    timings: Mapping[str, Timing],
    baseline: str,
    promises: Sequence[Promise],
    work: Mapping[str, Work],
    ceilings: Mapping[str, float] | None,
    ours: Collection[str],
) -> dict[str, Any]:
    """Times as JSON holds them: of each case its quartiles, ratios and shares, and the promises with what was found."""
    cases = {}
    for name, timing in timings.items():
        low, _, high = statistics.quantiles(_ratios(timing, timings[baseline]), n=4, method="inclusive")
        cases[name] = {
            **{key: _short(value) for key, value in timing._asdict().items() if key != "times"},
            **{"ratio_low": _short(low), "ratio_high": _short(high), "ours": name in ours},
            "share": share(timing, work.get(name), ceilings),
        }
    return {"cases": cases, "promises": [found(promise, timings) for promise in promises]}


def missed(promise: Mapping[str, Any]) -> bool:
    """Whether a promise was measured and is not kept."""
    return promise["found"] is not None and promise["found"] > promise["at_most"]


def duration(microseconds: float) -> str:
    """A time in the unit that suits it."""
    unit, scale = next((name, size) for name, size in UNITS.items() if microseconds >= size or size == 1)
    amount = microseconds / scale
    return f"{amount:.{2 if amount < 10 else 1 if amount < 100 else 0}f} {unit}"


def shares(share: Mapping[str, float] | None) -> str:
    """Shares of ceilings in words."""
    names = {"flops": "FLOP/s", "bytes": "bandwidth"}
    return ", ".join(f"{100 * value:.0f} % of {names[kind]}" for kind, value in (share or {}).items())


def table(entry: Mapping[str, Any]) -> str:
    """A comparison as text."""
    cases, width = entry["cases"], max(map(len, entry["cases"]))
    lines = [entry["title"], f"{'':{width}}  {'median':>8}  {'quartiles':>19}  ratio  share of ceiling"]
    for name, case in cases.items():
        low, median, high = (duration(case[key]) for key in ("low", "median", "high"))
        quartiles = f"{low} - {high}"
        lines.append(
            f"{name:{width}}  {median:>8}  {quartiles:>19}  {case['ratio']:.3f}  {shares(case['share'])}".rstrip()
        )
    lines.append(f"ratios to: {entry['baseline']}")
    for promise in entry["promises"]:
        figure = "not measured" if promise["found"] is None else f"{promise['found']:.3f}"
        verdict = ", missed" if missed(promise) else ""
        lines.append(
            f"{promise['case']} to {promise['peer']}: {figure}, promised at most {promise['at_most']:.3g}{verdict}"
        )
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    return "\n".join([*lines, versions])


def environment() -> dict[str, Any]:
    """What the figures depend on: backend, machine and versions; and the day."""
    import jax

    versions = {}
    for name in PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    backend, device = jax.default_backend(), jax.devices()[0]
    cores = f"{os.cpu_count()} cores of {_processor()}"
    return {
        "backend": backend,
        "machine": f"{cores}, {platform.system()}" if backend == "cpu" else f"{device.device_kind}, {cores}",
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _ratios(mine: Timing, theirs: Timing) -> list[float]:
    return [one / other for one, other in zip(mine.times, theirs.times, strict=True)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
