"""Lengths of gradients and of steps by path, as metrics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._call import recording
from .._patterns import matching
from ..optim._trees import square
from ._checks import path_of
from ._estimated import with_gradient
from ._returned import in_form, whole_form
from ._state import TrainState

LossFn = Callable[..., Any]
Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def norms(tree: Any, *patterns: str) -> dict[str, jax.Array]:
    """The l2 norm of each array of a tree that a pattern chooses, and of all of them together.

    Args:
      tree: of arrays, such as parameters or gradients.
      patterns: of paths, `"**/w"` say; every array unless given.
    Returns:
      `{"path": norm, ..., "": norm of all arrays of the tree}`, each `[]` of float32 or wider.
    Raises:
      ValueError: for a pattern that matches no path.

    >>> found = norms({"a": {"w": jnp.array([3.0, 4.0])}, "b": jnp.array(12.0)}, "**/w")
    >>> {path: norm.item() for path, norm in found.items()}
    {'a/w': 5.0, '': 13.0}
    """
    leaves = {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    chosen = matching(leaves, patterns, "norms") if patterns else set(leaves)
    squares = {path: square(leaf) for path, leaf in leaves.items()}
    found = {path: jnp.sqrt(squares[path]) for path in leaves if path in chosen and path}
    return found | {"": jnp.sqrt(sum(squares.values(), start=jnp.zeros(())))}


@recording
def with_norms(step: Step, *patterns: str) -> Step:
    """A step that says how far it moved the parameters, by path.

    Args:
      step: `(train_state, batch) -> (train_state, metrics)`.
      patterns: of paths, as for `norms`; every parameter unless given.
    Returns:
      A step with further metrics: `update_norm`, the length of the step, `update_norm/path` for the parameters chosen,
      and `params_norm`, that of the parameters before it. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: when called, for a pattern that matches no parameter.

    >>> tx = optim.sgd(0.5)
    >>> measured = with_norms(step(lambda p, batch, key: jnp.sum(p["w"] ** 2) / 2, tx))
    >>> _, metrics = measured(init({"w": jnp.array([6.0, 8.0])}, tx), None)
    >>> {name: value.item() for name, value in metrics.items()}
    {'loss': 50.0, 'update_norm/w': 5.0, 'update_norm': 5.0, 'params_norm': 10.0}
    """

    def one_step(train_state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        after, metrics = step(train_state, batch)
        moved = norms(jax.tree.map(jnp.subtract, after.params, train_state.params), *patterns)
        return after, metrics | _named("update_norm", moved) | {"params_norm": norms(train_state.params)[""]}

    return one_step


@recording
def with_grad_norms(loss_fn: LossFn, *patterns: str, has_aux: bool = False, stateful: bool = False) -> LossFn:
    """A loss that says how long its gradient is, by path.

    It takes the gradient itself, once, and hands it on. Where links ask for gradients elsewhere, as `optim.sam` does,
    the metrics are of the first.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar, in one of the forms that `step` takes.
      patterns: of paths, as for `norms`; every parameter unless given.
      has_aux: whether `loss_fn` returns metrics.
      stateful: whether `loss_fn` takes and returns the state of a network, and metrics with it.
    Returns:
      A loss that returns metrics, for `step(..., has_aux=True)`, or `stateful=True` if it is, among them `grad_norm`,
      and `grad_norm/path` for the parameters chosen. It prints, compares and hashes as the call that made it.
    Raises:
      TypeError: when called, if the loss is no scalar.
      ValueError: when called, for a pattern that matches no parameter.

    >>> loss = with_grad_norms(lambda p, batch, key: 3 * p["x"] + 4 * p["y"], "x")
    >>> _, metrics = loss({"x": 1.0, "y": 1.0}, None)
    >>> {name: value.item() for name, value in metrics.items()}
    {'grad_norm': 5.0, 'grad_norm/x': 3.0}
    """
    whole = whole_form("with_grad_norms", loss_fn, has_aux, stateful)

    def value_and_grad(params: Any, given: tuple[Any, Any], key: jax.Array | None) -> tuple[Any, Any]:
        (loss, (state, metrics)), grads = jax.value_and_grad(whole, has_aux=True)(params, *given, key)
        return (loss, (state, metrics | _named("grad_norm", norms(grads, *patterns)))), grads

    with_own_gradient = with_gradient(value_and_grad, has_aux=True)

    def loss(params: Any, state: Any, batch: Any, key: jax.Array | None = None) -> Any:
        return with_own_gradient(params, (state, batch), key)

    return in_form(loss, True, stateful)


def _named(what: str, found: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {f"{what}/{path}" if path else what: norm for path, norm in found.items()}
