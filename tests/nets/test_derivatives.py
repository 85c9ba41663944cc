"""First and second derivatives against finite differences, in double precision."""

import importlib
import pkgutil
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.test_util import check_grads

from renga import nets

from . import families
from .kit import floats, values, variables

pytestmark = pytest.mark.usefixtures("quick_compiler")

DERIVATIVES = {
    "linear": (nets.linear(3), (4, 5)),
    "conv": (nets.conv(3, 3, stride=2), (2, 4, 5, 2)),
    "grouped conv": (nets.conv(4, (3,), groups=2, dilation=2), (2, 6, 4)),
    "max_pool": (nets.max_pool(2), (1, 4, 4, 2)),
    "overlapping max_pool": (nets.max_pool((3,), stride=1, padding="same"), (2, 6, 2)),
    "avg_pool": (nets.avg_pool(2, stride=1, padding="same"), (1, 3, 4, 2)),
    "layer_norm": (nets.layer_norm(), (3, 5)),
    "batch_norm": (nets.batch_norm(), (6, 3)),
    "mlp": (nets.mlp(4, 2, activation=jnp.tanh), (3, 5)),
}
for _family in pkgutil.iter_modules(families.__path__):
    module = importlib.import_module(f"{families.__name__}.{_family.name}")
    DERIVATIVES |= getattr(module, "DERIVATIVES", {})


@pytest.mark.parametrize("name", DERIVATIVES)
def test_first_and_second_derivatives_equal_finite_differences(name: str):
    net, shape = DERIVATIVES[name]
    with jax.enable_x64(True):
        x = jnp.asarray(values(floats(*shape))[0], jnp.float64)
        x += jnp.linspace(0, 1, x.size).reshape(shape)
        params, *state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables(net, jax.random.key(0), x))

        def loss(params: Any, x: jax.Array) -> jax.Array:
            found = net.apply(params, *state, x, train=True)
            return jnp.sum(jnp.tanh(found[0] if state else found) ** 2)

        check_grads(jax.jit(loss), (params, x), order=2, modes=("rev",), atol=1e-5, rtol=1e-5)
