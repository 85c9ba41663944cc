"""Memory that the process keeps on CPUs: page faults counted in processes of their own, and what stands against it."""

import os
import platform
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest

from renga import training
from renga.training import _memory

on_glibc = pytest.mark.skipif(
    not platform.libc_ver()[0].startswith("glibc") or platform.machine() != "x86_64", reason="counts pages of glibc"
)
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from renga import training
if sys.argv[1] == "kept":
    said = training.keep_cpu_memory()
    assert said == training.keep_cpu_memory()
    print(said.kept, said.reason)
add = jax.jit(lambda x: x + 1)
x = jnp.zeros(8 << 20)
for number in range(60):
    if number == 50:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = add(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(*arguments: str, program: str = PROGRAM, **variables: str) -> list[str]:
    """The lines that a process prints."""
    given = {"JAX_PLATFORMS": "cpu", **variables}
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name.upper()} | given
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@on_glibc
def test_pages_stay_with_the_process_where_it_asks_for_them_and_importing_sets_nothing():
    *_, imported = run("imported")
    said, faults = run("kept")
    assert said == f"True glibc {platform.libc_ver()[1]} keeps freed memory, in one arena"
    assert int(imported) > 50_000  # ten calls, each of 8,192 pages
    assert int(faults) < 20_000


@on_glibc
def test_settings_of_the_environment_are_left_alone():
    program = "from renga import training; print(*training.keep_cpu_memory())"
    assert run(program=program, MALLOC_ARENA_MAX="2") == ["False the environment sets MALLOC_ARENA_MAX"]
    found = run(program=program, GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert found == ["False the environment sets GLIBC_TUNABLES"]


@pytest.fixture
def fresh(monkeypatch):
    """As if it had not been called, and on a system of glibc."""
    monkeypatch.setattr(_memory, "_kept", [])
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(_memory, "_loaded", lambda: "/usr/lib/libc.so.6")
    for name in [*_memory._VARIABLES, "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name, raising=False)


def test_a_call_after_the_backend_started_is_refused(fresh):
    jnp.zeros(1).block_until_ready()
    message = (
        "keep_cpu_memory: expected to be called before JAX makes an array, got a process whose backend has started. "
        "Call it first thing in the program, after the imports."
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        training.keep_cpu_memory()


def test_on_other_systems_and_allocators_it_says_that_nothing_is_set(fresh, monkeypatch):
    monkeypatch.setattr(_memory, "_loaded", lambda: "/usr/lib/libjemalloc.so.2\n/usr/lib/libc.so.6")
    assert training.keep_cpu_memory() == (False, "jemalloc allocates in place of glibc")
    monkeypatch.setattr(_memory, "_kept", [])
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert training.keep_cpu_memory() == (False, "the allocator of Linux with its own C library is not glibc's")
    assert training.keep_cpu_memory() is training.keep_cpu_memory()


def test_settings_that_glibc_refuses_are_named(fresh, monkeypatch):
    class Libc:
        mallopt = staticmethod(lambda number, value: int(number != -3))

    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda name: Libc)
    monkeypatch.setattr(_memory, "_has_started", lambda: False)
    assert training.keep_cpu_memory() == (False, "glibc 2.36 refused M_MMAP_THRESHOLD")
