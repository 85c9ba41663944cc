"""The page of benchmarks and its picture, made from figures alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import duration, missed, shares

Record = Mapping[str, Any]

QUIET = 0.2  # cores that other jobs may have without a word
HEAD = """# Benchmarks

Made by `python benchmarks/run.py` from the JSON in `{folder}/` beside this page. The file that is named under a table
is in `benchmarks/` of the repository; its docstring says what is compared. Cases alternate, round by round, in one
process; each of torch's has one of its own. Times are medians over rounds, of one unit: a step, or what the title says.
A ratio is the median over rounds of a case's time over the baseline's in the same round: below 1 is faster. Where a
case's work is known, its share of the machine's ceiling stands beside it. Ours are bold.
"""


def page(records: Mapping[str, Record], folder: str) -> str:
    """All figures as Markdown.

    Args:
      records: what the JSON files hold, by backend.
      folder: where they and the pictures lie, seen from the page.
    Returns:
      The page: what falls short of its promise first, then a table for each comparison.
    """
    parts = [HEAD.format(folder=folder)]
    for backend, record in records.items():
        parts += [f"## What falls short: {backend}\n", shortfalls(record)]
    for backend, record in records.items():
        parts += [f"## Figures: {backend}\n", setting(record), f"![Ratios to the baselines]({folder}/{backend}.png)\n"]
        parts += [tables(name, entry, record) for name, entry in record["comparisons"].items() if "error" not in entry]
    return "\n".join(parts)


def shortfalls(record: Record) -> str:
    """Every missed promise, failed comparison and missing figure, a sentence each; and how many promises are kept."""
    entries = record["comparisons"]
    promises = [(name, each) for name, entry in entries.items() for each in entry.get("promises", ())]
    lines = [sentence(name, promise) for name, promise in promises if missed(promise)]
    lines += [
        f"- {name}: the comparison failed: `{_code(at['error'])}`." for name, at in entries.items() if "error" in at
    ]
    lines += [f"- `{file}` could not be run: `{_code(error)}`." for file, error in record["failures"].items()]
    lines += [
        f"- {name}: `{promise['case']}` was not measured beside `{promise['peer']}`."
        for name, promise in promises
        if promise["found"] is None
    ]
    busy = [name for name, entry in entries.items() if entry.get("others", 0) >= QUIET]
    lines += [f"- Measured beside other jobs, so to be read with care: {', '.join(busy)}."] if busy else []
    kept = sum(promise["found"] is not None and not missed(promise) for _, promise in promises)
    total = f"Of {len(promises)} promises, {kept} {'is' if kept == 1 else 'are'} kept."
    return "\n".join([total, "", *map(_ascii, lines), ""] if lines else [total, ""])


def sentence(name: str, promise: Record) -> str:
    """A missed promise in words, and why that is, if it is known."""
    said = (
        f"- {name}: `{promise['case']}` takes {figure(promise['found'])} of the time of `{promise['peer']}`; "
        f"at most {promise['at_most']:.3g} is promised."
    )
    return " ".join([said, promise["why"]]) if "why" in promise else said


def figure(ratio: float) -> str:
    """A ratio, to a thousandth or to three digits."""
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def setting(record: Record) -> str:
    """Machine, versions and ceilings."""
    ceilings = record["ceilings"]
    lines = [
        f"- {record['machine']}; Python {record['python']}; {record['date']}",
        f"- {_versions(record['versions'])}",
        f"- ceilings, measured in JAX: {ceilings['flops'] / 1e9:.0f} GFLOP/s in a product of float32 matrices, "
        f"{ceilings['bytes'] / 1e9:.3g} GB/s in a pass over an array in place",
    ]
    return _ascii("\n".join([*lines, ""]))


def tables(name: str, entry: Record, record: Record) -> str:
    """One comparison: its cases, and its promises."""
    known = any(found["share"] for found in entry["cases"].values())
    columns = ["", "median", "quartiles", "ratio", *(["share of ceiling"] if known else [])]
    lines = [f"### {name}: {entry['title']}", "", _row(columns), _row(["---"] * len(columns))]
    for case, found in entry["cases"].items():
        low, median, high = (duration(found[key]) for key in ("low", "median", "high"))
        shown = f"**{case}**" if found["ours"] else case
        row = [shown, median, f"{low} to {high}", figure(found["ratio"])]
        lines.append(_row([*row, *([shares(found["share"])] if known else [])]))
    lines += [
        "",
        f"Ratios to `{entry['baseline']}`; `{entry['file']}`, {entry['rounds']} rounds, {_when(entry, record)}.",
    ]
    if entry["promises"]:
        lines += ["", _row(["promised", "at most", "found", ""]), _row(["---"] * 4)]
    for promise in entry["promises"]:
        found = "not measured" if promise["found"] is None else figure(promise["found"])
        verdict = "" if promise["found"] is None else "missed" if missed(promise) else "kept"
        lines.append(_row([f"{promise['case']} to {promise['peer']}", f"{promise['at_most']:.3g}", found, verdict]))
    return _ascii("\n".join([*lines, ""]))


def _row(cells: Sequence[str]) -> str:
    return "|".join(["", *(f" {cell} " if cell else " " for cell in cells), ""])


def _when(entry: Record, record: Record) -> str:
    # Of an entry from another day only what differs is said.
    differs = {name: each for name, each in entry["versions"].items() if record["versions"].get(name) != each}
    parts = [entry["date"], *([_versions(differs)] if differs else [])]
    parts += [entry["machine"]] if entry["machine"] != record["machine"] else []
    parts += [f"other jobs took {entry['others']:.1f} cores"] if entry.get("others", 0) >= QUIET else []
    return "; ".join(parts)


def _versions(versions: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def draw(record: Record, path: Path) -> None:
    """A picture: for each comparison a row of ratios to its baseline, with their quartiles, on a logarithmic axis.

    Args:
      record: figures of one backend.
      path: a PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(name, entry) for name, entry in record["comparisons"].items() if "error" not in entry]
    picture = Figure(figsize=(10, 1.4 + 0.36 * len(rows)), layout="constrained")
    axes = picture.add_subplot()
    for height, (_, entry) in enumerate(rows):
        for kind, colour in COLOURS.items():
            spans = [found for name, found in entry["cases"].items() if _kind(name, entry) == kind]
            for found in spans:
                axes.hlines(height, found["ratio_low"], found["ratio_high"], linewidth=1.5, color=colour, zorder=2)
            at = [found["ratio"] for found in spans]
            axes.scatter(at, [height] * len(at), s=36 if kind == "renga" else 20, linewidths=0, color=colour, zorder=3)
    for kind, colour in COLOURS.items():
        axes.scatter([], [], color=colour, label=kind)
    axes.axvline(1, color="0.6", linewidth=0.8, zorder=1)
    axes.set(xscale="log", ylim=(len(rows) - 0.4, -0.6), xlabel="time over the baseline's in the same round")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.grid(axis="both", color="0.92", zorder=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(COLOURS), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(picture).print_png(path)


COLOURS = {
    "other JAX": "0.55",
    "torch and others": "tab:orange",
    "renga, other forms": "lightskyblue",
    "renga": "tab:blue",
}


def _kind(name: str, entry: Record) -> str:
    others = ("torch", "Opacus", "TorchOpt", "learn2learn", "higher", "gymnasium")
    if not entry["cases"][name]["ours"]:
        return "torch and others" if name.startswith(others) else "other JAX"
    first = next(case for case, found in entry["cases"].items() if found["ours"])
    meant = {first, entry["baseline"], *(promise["case"] for promise in entry["promises"])}
    return "renga" if name in meant else "renga, other forms"
