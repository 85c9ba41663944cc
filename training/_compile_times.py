"""What programs cost before they run: tracing, lowering and compiling, by program."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

_PHASES = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
_FOUND = "/jax/compilation_cache/cache_hits"
_LONGEST = 8


class CompileTimes:
    """Seconds that programs took before they ran, from `compile_times`; it prints as a table of the longest.

    Attributes:
      programs: `{name: {"trace": seconds, "lower": seconds, "compile": seconds, "count": programs}}`. Programs of one
        name count together; functions that were traced as parts of others are in their time.
      num_from_cache: programs that were found in JAX's persistent cache, if there is one.
    """

    def __init__(self):
        self.programs: dict[str, dict[str, float]] = {}
        self.num_from_cache = 0
        self._traced: dict[str, float] = {}

    @property
    def total(self) -> dict[str, float]:
        """Over all programs."""
        return {key: sum(row[key] for row in self.programs.values()) for key in ("trace", "lower", "compile", "count")}

    def heard(self, event: str, seconds: float, *, fun_name: str = "?", **_: Any) -> None:
        """Takes up what JAX's monitor says."""
        phase = _PHASES.get(event)
        if phase == "trace":  # JAX says later whether it was for a program of its own
            self._traced[fun_name] = self._traced.get(fun_name, 0.0) + seconds
        elif phase is not None:
            name = fun_name.removeprefix("jit(").removesuffix(")") if fun_name.startswith("jit(") else fun_name
            row = self.programs.setdefault(name, {"trace": 0.0, "lower": 0.0, "compile": 0.0, "count": 0})
            row[phase] += seconds
            row["trace"] += self._traced.pop(name, 0.0)
            row["count"] += phase == "compile"

    def found(self, event: str, **_: Any) -> None:
        """Counts what came out of the cache."""
        self.num_from_cache += event == _FOUND

    def __str__(self) -> str:
        rows = sorted(self.programs.items(), key=lambda item: -sum(item[1][phase] for phase in _PHASES.values()))
        shown = [*rows[:_LONGEST], ("all", self.total)] if len(rows) > 1 else rows
        width = max(len(name) for name in ("seconds", *(name for name, _ in shown)))
        lines = [f"{'seconds':{width}}    trace    lower  compile  programs"]
        for name, row in shown:
            times = "".join(f"{row[key]:9.3f}" for key in ("trace", "lower", "compile"))
            lines.append(f"{name:{width}}{times}  {row['count']:8.0f}")
        if self.num_from_cache:
            lines.append(f"{self.num_from_cache} of them were found in the cache")
        return "\n".join(lines)


@contextlib.contextmanager
def compile_times() -> Iterator[CompileTimes]:
    """Measures what JAX spends on tracing, lowering and compiling inside a `with`, in all threads of the process.

    Returns:
      A context of `CompileTimes`, which fills as programs are compiled.

    >>> with compile_times() as times:
    ...     jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((3, 3))).compile()  # doctest: +ELLIPSIS
    <jax._src.stages.Compiled object at ...>
    >>> times.total["count"] > 0
    True
    """
    times = CompileTimes()
    jax.monitoring.register_event_duration_secs_listener(times.heard)
    jax.monitoring.register_event_listener(times.found)
    try:
        yield times
    finally:
        jax.monitoring.unregister_event_duration_listener(times.heard)
        jax.monitoring.unregister_event_listener(times.found)
