"""What the laws share: the networks of the registry with their initial values and compiled functions."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, Case, outputs, values, variables
from .registry import NETS

LAWS = {
    "derivatives": "directional derivatives equal finite differences",
    "forward derivatives": "also in forward mode",
    "second derivatives": "also those of the derivatives, reverse over reverse",
    "dtypes": "outputs have the dtype of the inputs",
    "half": "outputs in half precision are close to those in single precision",
    "half gradients": "so are gradients, in training",
    "shapes": "a batch with any leading axes equals its examples",
    "empty batches": "a leading axis may be empty",
    "meshes": "a batch may be spread over explicit axes of a mesh, or over shards",
    "structures": "an input that is no array of numbers is refused",
    "export": "there is a program for several platforms",
}


class Made(NamedTuple):
    """A network of the registry, made once for all laws.

    Attributes:
      keywords: what `init` and `apply` are given by name.
      variables: the leading arguments of `apply`.
      jitted: `apply`, compiled; flags are static.
      graded: `(variables, inputs, keywords, train) -> ((outputs, state), grads)`, compiled, with a key, and with
        gradients with respect to parameters and inputs of a loss that sees every output.
    """

    name: str
    case: Case
    net: nets.Net
    inputs: tuple
    keywords: dict[str, Any]
    variables: tuple
    jitted: Callable[..., Any]
    graded: Callable[..., Any]

    def __repr__(self) -> str:
        return self.name

    @property
    def arrays(self) -> dict[str, Any]:
        """The keywords that hold arrays."""
        return {name: value for name, value in self.keywords.items() if name not in flags(self.keywords)}

    @property
    def flags(self) -> dict[str, Any]:
        """The others."""
        return flags(self.keywords)

    def run(self, variables: tuple, inputs: tuple, arrays: dict[str, Any], **options: Any) -> Any:
        """`apply`, without the state that it returns."""
        return outputs(self.net, variables, *inputs, **arrays, **self.flags, **options)


@contextlib.contextmanager
def quick_compiler() -> Iterator[None]:
    """What the fixture of every module does, for what is made before."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@functools.lru_cache(maxsize=4)
def make(name: str) -> Made:
    case = NETS[name]
    net, inputs, keywords = case.build(), values(case.inputs), values(dict(case.keywords))
    jitted = jax.jit(net.apply, static_argnames=("train", *flags(keywords)))
    with quick_compiler():
        made = variables(net, KEY, *inputs, **keywords)
    return Made(name, case, net, inputs, keywords, made, jitted, graded(net, flags(keywords)))


def flags(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords without arrays."""
    return {name: value for name, value in keywords.items() if not any(map(is_array, jax.tree.leaves(value)))}


def is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype")


def is_float(leaf: Any) -> bool:
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def over(law: str, short: Collection[str] = NETS.keys()) -> Any:
    """Marks a test as a law, which networks may be exempt from: for those it is to fail.

    It is left to `pytest -m long` for all but the networks in `short`.
    """
    marked = [(name, marks(name, law) + [pytest.mark.long] * (name not in short)) for name in NETS]
    return pytest.mark.parametrize(
        "made", [pytest.param(name, marks=own) for name, own in marked], indirect=True, scope="session"
    )


def marks(name: str, law: str | None = None) -> list[Any]:
    """Of a network's test: expected to fail where it is exempt from the law; `long` where its laws are."""
    case = NETS[name]
    exempt = case.exempt.get(law or "")
    expected = [] if exempt is None else [pytest.mark.xfail(reason=exempt, strict=True)]
    return expected + [pytest.mark.long] * case.long


def split(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """The floating leaves of a tree, and how to put others in their place."""
    leaves, structure = jax.tree.flatten(tree)

    def merge(floats: list) -> Any:
        new = iter(floats)
        return jax.tree.unflatten(structure, [next(new) if is_float(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if is_float(leaf)], merge


def loss_of(found: Any) -> jax.Array:
    """A number that depends on every floating output, on each in another way."""
    total = jnp.zeros((), "float32")
    for y in filter(is_float, jax.tree.leaves(found)):
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        total += jnp.sum(jnp.cos(jnp.arange(1.0, y.size + 1, dtype=y.dtype)).reshape(y.shape) * y + y**2 / 2)
    return total


def cast(tree: Any, dtype: Any) -> Any:
    """Floats, or their shapes, in another precision. NumPy does it: nothing is compiled."""

    def of(leaf: Any) -> Any:
        if not is_float(leaf):
            return leaf
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        return jax.ShapeDtypeStruct(leaf.shape, dtype) if abstract else np.asarray(leaf).astype(dtype)

    return jax.tree.map(of, tree)


def distance(tree: Any, other: Any) -> float:
    """Between two trees as long vectors, relative to the length of the other: a kink crossed by one value is little."""

    def long(tree: Any) -> np.ndarray:
        return np.concatenate([[0.0], *map(np.ravel, jax.tree.leaves(cast(tree, np.float64)))])

    a, b = long(tree), long(other)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3))


def graded(net: nets.Net, fixed: dict[str, Any]) -> Callable[..., Any]:
    """The compiled function that `Made.graded` is, for a network and its flags."""

    @functools.partial(jax.jit, static_argnames="train")
    def run(variables: tuple, inputs: tuple, arrays: dict[str, Any], train: bool) -> Any:
        params, *state = variables
        floats, merge = split(inputs)

        def loss(params: Any, floats: list) -> tuple[jax.Array, Any]:
            given = (params, *state, *merge(floats))
            found = net.apply(*given, key=jax.random.key(3), train=train, **arrays, **fixed)
            found = found if state else (found, {})
            return loss_of(found[0]), found

        grads, found = jax.grad(loss, (0, 1), has_aux=True)(params, floats)
        return found, grads

    return run
