"""What every test and doctest sees."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from renga import nets, optim, training

os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # of the programs that tests start
if jax.__version_info__ < (0, 11):  # XLA dies of flags that it does not know, and another version may not know these
    QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICKLY}"  # read when JAX makes its first array


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not walk through it some hundred times."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Who is done takes over tests that another has not begun: the last of them are the long ones."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly() -> Iterator[None]:
    """Most of a test's time is the compiler's, and what it shows does not depend on how well that optimises."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _doctest_names(request, doctest_namespace):
    """Doctests see jax, jnp and the public names of the three packages, of two with one name their own package's."""
    own = request.node.name.split(".")[1:2]
    for package in sorted((nets, optim, training), key=lambda package: package.__name__.split(".")[1:] == own):
        public = {name: value for name, value in vars(package).items() if not name.startswith("_")}
        doctest_namespace.update(public)
    doctest_namespace.update(jax=jax, jnp=jnp, nets=nets, optim=optim, training=training)
