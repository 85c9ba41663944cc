"""A network inside a transform of one function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from ._core import Options, run


def sealed(
    transform: Callable[..., Any], net: Any, params: Any, state: Any, inputs: tuple, options: Options
) -> tuple[Any, Any]:
    """As `run`, inside a transform of one function, such as `jax.checkpoint`.

    Only arrays pass through the transform; any other input or keyword is part of the function, which equals that of
    an equal call, so that `jax.jit` traces once for both. A state that is only read comes back as the object it was.
    """
    leaves, structure = jax.tree.flatten((inputs, dict(options.keywords)))
    fixed = tuple(None if hasattr(leaf, "dtype") else leaf for leaf in leaves)
    arrays = [leaf if hasattr(leaf, "dtype") else None for leaf in leaves]
    function = _Sealed(net, options.train, structure, fixed)
    outputs, after = transform(function)(params, state, options.key, arrays)
    return outputs, state if after is None else after


@dataclasses.dataclass(frozen=True)
class _Sealed:
    """A network and all that is not an array in a call of it, as a function of the arrays."""

    net: Any
    train: bool
    structure: Any
    fixed: tuple

    @property
    def __name__(self) -> str:
        return self.net.name

    def __call__(self, params: Any, state: Any, key: Any, arrays: list) -> tuple[Any, Any]:
        leaves = [leaf if array is None else array for leaf, array in zip(self.fixed, arrays, strict=True)]
        inputs, keywords = jax.tree.unflatten(self.structure, leaves)
        outputs, after = run(self.net, params, state, inputs, Options(key, self.train, keywords))
        return outputs, after if changed(state, after) else None


def changed(before: Any, after: Any) -> bool:
    """Whether any array of a state is another than before."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=False)
    return any(old is not new for old, new in pairs)
