"""Memory of the CPU backend: kept by the process between steps, instead of asked for and given back at each."""

import ctypes
import os
import platform
from typing import NamedTuple

_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 1 << 30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}
_SETTINGS |= {"M_TOP_PAD": (-2, 1 << 28)}
_OTHERS = ("jemalloc", "tcmalloc", "mimalloc")
_VARIABLES = [f"MALLOC_{name}" for name in ("ARENA_MAX", "MMAP_THRESHOLD_", "TRIM_THRESHOLD_", "TOP_PAD_")]
_kept: list["CpuMemory"] = []


class CpuMemory(NamedTuple):
    """What `keep_cpu_memory` did.

    Attributes:
      kept: whether freed memory now stays with the process.
      reason: in words.
    """

    kept: bool
    reason: str


def keep_cpu_memory() -> CpuMemory:
    """Lets the process keep memory that JAX frees on CPUs, for the next step; to be called before JAX makes an array.

    XLA's CPU backend allocates the temporary arrays of every call anew. From a size on glibc takes them from the system
    and gives them back, and the system fills each page with zeros when it is first touched: that can be a third
    of the time of a step with large arrays. After this call glibc keeps them (`mallopt`: one arena, no `mmap` below
    1 GiB, no trimming, and growth by 256 MiB).

    What it costs: the process holds as much memory as it ever needed at once until it ends, and its threads share one
    arena. It holds for all of the process, NumPy and torch too. Importing renga sets nothing.

    Returns:
      A `CpuMemory(kept, reason)`. Nothing is set where the system's allocator is not glibc's, or where the environment
      has settings of its own for it. A second call says what the first one did.
    Raises:
      RuntimeError: if JAX has started a backend already: its threads have their own arenas by then.

    >>> keep_cpu_memory()  # doctest: +SKIP
    CpuMemory(kept=True, reason='glibc 2.36 keeps freed memory, in one arena')
    """
    if _kept:
        return _kept[0]
    found = _obstacle()
    if found is None and _has_started():
        raise RuntimeError(
            "keep_cpu_memory: expected to be called before JAX makes an array, got a process whose backend has "
            "started. Call it first thing in the program, after the imports."
        )
    _kept.append(CpuMemory(False, found) if found else _set())
    return _kept[0]


def _obstacle() -> str | None:
    """Why there is nothing to set here; None if there is."""
    if platform.system() != "Linux" or not platform.libc_ver()[0].startswith("glibc"):
        return (
            f"the allocator of {platform.system()} with {platform.libc_ver()[0] or 'its own C library'} is not glibc's"
        )
    own = [name for name in _VARIABLES if os.environ.get(name)]
    own += ["GLIBC_TUNABLES"] * ("glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""))
    if own:
        return f"the environment sets {', '.join(own)}"
    if other := [name for name in _OTHERS if name in _loaded()]:
        return f"{other[0]} allocates in place of glibc"
    return None


def _set() -> CpuMemory:
    libc = ctypes.CDLL(None)
    refused = [name for name, setting in _SETTINGS.items() if not libc.mallopt(*setting)]
    if refused:
        return CpuMemory(False, f"glibc {platform.libc_ver()[1]} refused {', '.join(refused)}")
    return CpuMemory(True, f"glibc {platform.libc_ver()[1]} keeps freed memory, in one arena")


def _loaded() -> str:
    """The files that this process has mapped."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            return maps.read()
    except OSError:
        return ""


def _has_started() -> bool:
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:  # private, and no public name says it
        return False
    return backends_are_initialized()
