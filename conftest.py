"""What every test and doctest sees."""

import jax
import jax.numpy as jnp
import pytest

from renga import nets, optim, training


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    """Doctests see jax, jnp and the public names of the three packages."""
    for package in (nets, optim, training):
        public = {name: value for name, value in vars(package).items() if not name.startswith("_")}
        doctest_namespace.update(public)
    doctest_namespace.update(jax=jax, jnp=jnp, nets=nets, optim=optim, training=training)
