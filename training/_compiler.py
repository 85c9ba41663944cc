"""Options of the compiler that make a train step faster, as far as the backend and its version have them."""

import functools
import os

import jax

# Of what XLA's CPU backend could hand to YNNPACK, convolutions stay with XLA's own code, which is faster.
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


def compiler_options() -> dict[str, str]:
    """Options for `jax.jit` that make steps faster on this machine's backend; `fit` and the command line pass them.

    On CPUs they leave convolutions to XLA's own code, in place of a library that is slower at them
    (`benchmarks/nets.py conv`); a program without convolutions is compiled as ever. On other backends there are none.
    They hold for the one function that they are given to, and change nothing else.

    Returns:
      Names and values. An option that the installed XLA does not know is left out, and one that stands in `XLA_FLAGS`
      is left to that.

    >>> step = jax.jit(lambda x: x + 1, compiler_options=compiler_options())
    >>> step(1)
    Array(2, dtype=int32, weak_type=True)
    """
    backend = jax.default_backend()
    wanted = _CPU if backend == "cpu" else {}
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in wanted.items() if name not in given and _is_known(backend, name, value)}


@functools.cache
def _is_known(backend: str, name: str, value: str) -> bool:
    """Whether the compiler of the backend takes an option: it says so only when it is given one."""
    with jax.ensure_compile_time_eval():
        program = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), "float32"))
        try:
            program.compile(compiler_options={name: value})
        except (RuntimeError, ValueError):
            return False
    return True
