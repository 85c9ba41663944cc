"""What every test and doctest sees."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from renga import nets, optim, training


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly() -> Iterator[None]:
    """Most of a test's time is the compiler's, and what it shows does not depend on how well that optimises."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    """Doctests see jax, jnp and the public names of the three packages."""
    for package in (nets, optim, training):
        public = {name: value for name, value in vars(package).items() if not name.startswith("_")}
        doctest_namespace.update(public)
    doctest_namespace.update(jax=jax, jnp=jnp, nets=nets, optim=optim, training=training)
