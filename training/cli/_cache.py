"""Compiled programs kept between runs: the second run of a config compiles nothing that takes long."""

import os
from pathlib import Path

import jax

SECONDS = 0.2  # a program that compiles faster is not kept


def keep_compiled() -> Path | None:
    """Has JAX keep compiled programs in the user's cache, unless the environment or the process says otherwise.

    The folder is `$XDG_CACHE_HOME/renga`, by default `~/.cache/renga`. What compiles depends on the program, the
    versions and the machine, and so does what is found there; it can be deleted at any time.
    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing.

    Returns:
      The folder; None where nothing is kept.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    if jax.config.values["jax_compilation_cache_dir"]:
        return Path(jax.config.values["jax_compilation_cache_dir"])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "renga"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    return folder
