"""Options of the compiler that make a train step faster, as far as the backend and its version have them."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

Option = str | bool | int
# Each by measurement, on two cores with AVX-512.
_CPU: Mapping[str, Option] = {
    # Of what could go to YNNPACK, convolutions stay with XLA's own code: a convolutional network's step takes 0.58.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # Registers are used whole, where LLVM would use half of them: recurrent layers and an MLP take 0.96 to 0.98.
    "xla_cpu_prefer_vector_width": 512,
}


def compiler_options() -> dict[str, Option]:
    """Options for `jax.jit` that make steps faster on this machine's backend; `fit` and the command line pass them.

    On CPUs they leave convolutions to XLA's own code, in place of a library that is slower at them, and use AVX-512 in
    full where there is such (`benchmarks/nets.py conv`, `benchmarks/mlp.py`). On other backends there are none. They
    hold for the one function that they are given to, and change nothing else.

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


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` with these options of the compiler."""
    return jax.jit(function, compiler_options=compiler_options(), **options)


@functools.cache
def _is_known(backend: str, name: str, value: Option) -> bool:
    """Whether the compiler of the backend takes an option: it says so only when it is given one."""
    with jax.ensure_compile_time_eval():
        program = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), "float32"))
        try:
            program.compile(compiler_options={name: value})
        except (RuntimeError, ValueError):
            return False
    return True
