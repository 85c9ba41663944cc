"""Jacobians, Hessians, Hessian-vector products and neural tangent kernels against torch.func, on the same weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own use

X = np.sin(np.arange(20.0, dtype=np.float32)).reshape(5, 4)
Y = np.cos(3 * X[:, :3])
NET = nets.mlp(6, 3, activation=jnp.tanh)
PARAMS = NET.init(jax.random.key(0), X)
MODULE = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def torch_params() -> dict[str, Any]:
    """The weights, as torch's sequence of layers names them."""
    found = {}
    for index, leaf in enumerate(PARAMS["layers"]):
        found[f"{2 * index}.weight"] = torch.tensor(np.asarray(leaf["w"]).T.copy())
        found[f"{2 * index}.bias"] = torch.tensor(np.asarray(leaf["b"]))
    return found


def torch_apply(params: dict[str, Any], x: Any) -> Any:
    return torch.func.functional_call(MODULE, params, (x,))


def torch_loss(params: dict[str, Any]) -> Any:
    return torch.mean((torch_apply(params, torch.tensor(X)) - torch.tensor(Y)) ** 2)


def loss_fn(params: Any) -> jax.Array:
    return training.squared_error(NET.apply(params, X), Y)


def turned(index: int, name: str, leaf: np.ndarray, first: int) -> np.ndarray:
    """A part for a weight, its axes of the weight, from `first` on, in our order."""
    return np.swapaxes(leaf, first, first + 1) if name == "weight" else leaf


def each(compare: Callable[[int, str, str], None]) -> None:
    for index in (0, 1):
        compare(index, "w", "weight")
        compare(index, "b", "bias")


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobians_with_respect_to_inputs_equal_torchs(mode):
    theirs = torch.func.vmap(torch.func.jacrev(lambda x: torch_apply(torch_params(), x)))(torch.tensor(X))
    close(jax.vmap(training.jacobian(lambda x: NET.apply(PARAMS, x), mode=mode))(X), theirs)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobians_with_respect_to_parameters_equal_torchs(mode):
    ours = training.jacobian(NET.apply, mode=mode)(PARAMS, X)
    theirs = torch.func.jacrev(torch_apply)(torch_params(), torch.tensor(X))
    each(
        lambda index, name, other: close(
            ours["layers"][index][name], turned(index, other, theirs[f"{2 * index}.{other}"].numpy(), 2)
        )
    )


def test_hessians_with_respect_to_inputs_equal_torchs():
    theirs = torch.func.vmap(torch.func.hessian(lambda x: torch_apply(torch_params(), x)))(torch.tensor(X))
    close(jax.vmap(training.hessian(lambda x: NET.apply(PARAMS, x)))(X), theirs)


def test_hessians_with_respect_to_parameters_equal_torchs():
    ours = training.hessian(loss_fn)(PARAMS)["layers"]
    theirs = torch.func.hessian(torch_loss)(torch_params())
    for i in (0, 1):
        for j in (0, 1):
            close(ours[i]["b"]["layers"][j]["b"], theirs[f"{2 * i}.bias"][f"{2 * j}.bias"])
            close(
                ours[i]["w"]["layers"][j]["w"],
                theirs[f"{2 * i}.weight"][f"{2 * j}.weight"].numpy().transpose(1, 0, 3, 2),
            )


def test_hessian_vector_products_equal_torchs():
    vector = jax.tree.map(lambda leaf: jnp.sin(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), PARAMS)
    theirs_vector = {}
    for index, leaf in enumerate(vector["layers"]):
        theirs_vector[f"{2 * index}.weight"] = torch.tensor(np.asarray(leaf["w"]).T.copy())
        theirs_vector[f"{2 * index}.bias"] = torch.tensor(np.asarray(leaf["b"]))
    ours = training.hvp(loss_fn)(PARAMS, vector)
    _, theirs = torch.func.jvp(torch.func.grad(torch_loss), (torch_params(),), (theirs_vector,))
    each(
        lambda index, name, other: close(
            ours["layers"][index][name], turned(index, other, theirs[f"{2 * index}.{other}"].numpy(), 0)
        )
    )


@pytest.mark.parametrize("method", ["contraction", "products"])
def test_kernels_equal_those_of_torchs_tutorial(method):
    def rows(x: np.ndarray) -> list[Any]:
        alone = lambda params, x: torch_apply(params, x[None])[0]  # noqa: E731
        found = torch.func.vmap(torch.func.jacrev(alone), (None, 0))(torch_params(), torch.tensor(x))
        return [leaf.flatten(2) for leaf in found.values()]

    pairs = zip(rows(X), rows(X[:2]), strict=True)
    theirs = torch.stack([torch.einsum("Naf,Mbf->NMab", *pair) for pair in pairs]).sum(0)
    close(training.ntk(NET.apply, method=method)(PARAMS, X, X[:2]), theirs)
