"""Gradients of every example of a batch, their norms, and sums of them that are clipped."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._call import recording
from ._automatic import in_automatic_axes
from ._backward import by_factors
from ._checks import path_of
from ._examples import (
    backward_of,
    check_bound,
    check_chunk,
    check_wide,
    clipped,
    in_chunks,
    mask_of,
    program_of,
    rows_of,
)
from ._traced import Traced

LossFn = Callable[..., Any]


class ClippedSum(NamedTuple):
    """What `clipped_sum` returns.

    Attributes:
      grads: the sum over real examples of their clipped gradients; a tree as the parameters are.
      norms: of each example's gradient before clipping, `[examples]`; with `per_leaf`, a tree of these.
      losses: of each example, `[examples]`.
    """

    grads: Any
    norms: Any
    losses: jax.Array


@recording
def per_example(loss_fn: LossFn) -> Callable[..., Any]:
    """The gradient of every example of a batch.

    An example's gradient is that of `loss_fn` on a batch of it alone: the axis of examples stays, with size 1, so that
    the loss of a step is the loss here. It must be a mean or a sum over examples, and a network must not mix them.

    It equals `jax.vmap(jax.grad(loss_fn))`. Only one backward pass to the uses of the parameters is taken by `vmap`:
    gradients come from the operands of each use and the derivatives there, as `x` and `delta` make `x.T @ delta` in
    `x @ w`. `per_example_ways` says which parameter goes by which way.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> loss`, a scalar.
    Returns:
      `(params, batch, key=None) -> grads`, a tree as `params` with an axis of examples in front of every array. The
      examples are axis 0 of every array of `batch`; a key is split, one for each.
    Raises:
      ValueError: when called, for a batch whose arrays differ in their number of examples.
      TypeError: when called, if the loss is no scalar of a real dtype, or a parameter is not of floats.

    >>> loss_fn = lambda w, batch, key: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> batch = {"x": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "y": jnp.array([1.0, 1.0])}
    >>> per_example(loss_fn)(jnp.zeros(2), batch).tolist()
    [[-2.0, -4.0], [-6.0, -8.0]]
    """

    def grads(params: Any, batch: Any, key: jax.Array | None = None) -> Any:
        found, tree = backward_of("per_example", loss_fn, params, rows_of("per_example", batch, key))
        return jax.tree.unflatten(tree, found.gradients(range(len(found.leaves))).values())

    return grads


@recording
def per_example_norms(
    loss_fn: LossFn, *, per_leaf: bool = False, examples_at_once: int | None = None
) -> Callable[..., Any]:
    """The norm of every example's gradient, most of which are never computed.

    Source: Goodfellow 2015, https://arxiv.org/abs/1510.01799, for one position; Li, Tramer, Liang, Hashimoto 2022,
    https://arxiv.org/abs/2110.05679, section 4, for several; convolutions, Bu, Mao, Xu 2022,
    https://arxiv.org/abs/2205.10683. Which products are formed is chosen by their shapes. A norm that is the small rest
    of positions which cancel is no more exact than they are.

    Args:
      loss_fn: as for `per_example`.
      per_leaf: returns the norm of each parameter's gradient, and not of all together.
      examples_at_once: so many examples go through at once, to save memory; all unless given.
    Returns:
      `(params, batch, key=None) -> norms [examples]`, in at least float32; with `per_leaf`, a tree of these.
    Raises:
      ValueError: for a count out of range; when called, as for `per_example`.
      TypeError: when called, as for `per_example`.

    >>> loss_fn = lambda w, batch, key: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> batch = {"x": jnp.array([[3.0, 4.0], [0.0, 0.0]]), "y": jnp.array([1.0, 1.0])}
    >>> per_example_norms(loss_fn)(jnp.zeros(2), batch).tolist()
    [10.0, 0.0]
    """
    check_chunk("per_example_norms", examples_at_once)

    def norms(params: Any, batch: Any, key: jax.Array | None = None) -> Any:
        def of_chunk(*rows: Any) -> Any:
            found, tree = backward_of("per_example_norms", loss_fn, params, rows)
            return (), jax.tree.unflatten(tree, found.all_squares()[0])

        _, squares = in_chunks(of_chunk, rows_of("per_example_norms", batch, key), examples_at_once)
        if per_leaf:
            return jax.tree.map(jnp.sqrt, squares)
        return jnp.sqrt(sum(jax.tree.leaves(squares), jnp.zeros(jax.tree.leaves(batch)[0].shape[:1])))

    return norms


@recording
def clipped_sum(
    loss_fn: LossFn, max_norm: float, *, per_leaf: bool = False, examples_at_once: int | None = None
) -> Callable[..., ClippedSum]:
    """The sum over examples of `min(1, max_norm / norm) * gradient`: adding or removing one moves it by `max_norm`.

    One backward pass gives the norms, as in `per_example_norms`, and then the sum, from the operands and derivatives
    that it leaves. Where rounding may have made a norm too small, as positions of an example nearly cancel, it is
    clipped by what the norm may be at most. Sums over batches add up to that of all of them: accumulate these, and add
    noise once.

    Source: Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1; in one backward pass, Bu, Wang, Zha,
    Karypis 2023, https://arxiv.org/abs/2210.00038.

    Args:
      loss_fn: as for `per_example`.
      max_norm: of an example's clipped gradient, above 0.
      per_leaf: clips the gradient of each parameter by itself, to `max_norm / sqrt(parameters)`.
      examples_at_once: as for `per_example_norms`.
    Returns:
      `(params, batch, key=None, mask=None) -> ClippedSum(grads, norms, losses)`. Examples at which `mask [examples]` is
      False count for nothing, whatever they hold; nor do those whose norm is not finite.
    Raises:
      ValueError: for a bound or a count out of range; when called, as for `per_example`, and for a mask of another
        shape or dtype.
      TypeError: when called, as for `per_example`, and for parameters narrower than float32.

    >>> loss_fn = lambda w, batch, key: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
    >>> batch = {"x": jnp.array([[3.0, 4.0], [0.0, 0.1]]), "y": jnp.array([1.0, 1.0])}
    >>> found = clipped_sum(loss_fn, 1.0)(jnp.zeros(2), batch)
    >>> found.grads.round(3).tolist(), found.norms.round(3).tolist()
    ([-0.6000000238418579, -1.0], [10.0, 0.20000000298023224])
    """
    check_bound("clipped_sum", "max_norm", max_norm)
    check_chunk("clipped_sum", examples_at_once)

    @in_automatic_axes
    def sums(params: Any, batch: Any, key: jax.Array | None = None, mask: Any = None) -> ClippedSum:
        check_wide("clipped_sum", params)

        def of_chunk(batch: Any, keys: Any, mask: jax.Array) -> Any:
            found, tree = backward_of("clipped_sum", loss_fn, params, (batch, keys))
            grads, norms = clipped(found, mask, max_norm, per_leaf=per_leaf)
            norms = jax.tree.unflatten(tree, norms) if per_leaf else norms[0]
            return jax.tree.unflatten(tree, grads), (norms, jnp.where(mask, found.losses, 0))

        rows = (*rows_of("clipped_sum", batch, key), mask_of("clipped_sum", batch, mask))
        grads, (norms, losses) = in_chunks(of_chunk, rows, examples_at_once)
        return ClippedSum(grads, norms, losses)

    return sums


def per_example_ways(loss_fn: LossFn, params: Any, batch: Any, key: jax.Array | None = None) -> dict[str, str]:
    """Says by which way each parameter's per-example gradients and norms are found.

    Args:
      loss_fn: as for `per_example`.
      params: the parameters, or their shapes.
      batch: a batch.
      key: a key, if the loss needs one.
    Returns:
      For each path of a parameter: the operations that it enters; "norms alone" if the norm and the clipped sum do
      without the gradients; "vmap" if they are taken by `jax.vmap` of `jax.grad`, and what it stands inside.
    Raises:
      ValueError: as for `per_example`.
      TypeError: as for `per_example`.

    >>> net = nets.serial(nets.embed(100, 8), nets.rnn(nets.lstm_cell(8)), nets.linear(100))
    >>> ids = jnp.zeros((2, 5), int)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), ids)
    >>> loss_fn = lambda params, ids, key: cross_entropy(net.apply(params, ids), ids)
    >>> for path, way in per_example_ways(loss_fn, params, ids).items():
    ...     print(f"{path:10}", way)
    embed/w    gather: norms alone
    linear/b   add
    linear/w   dot_general: norms alone
    rnn/b      vmap: inside custom_jvp_call
    rnn/u      vmap: inside custom_jvp_call
    rnn/w      vmap: inside custom_jvp_call
    """
    rows = rows_of("per_example_ways", batch, key)
    program = program_of("per_example_ways", loss_fn, params, rows)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {path_of(path): _way(program, number) for number, (path, _) in enumerate(leaves)}


def _way(program: Traced, number: int) -> str:
    ports = [port for port in program.ports.values() if number in port.leaves]
    inside = [port.inside for port in ports if port.inside]
    names = [program.varying[use].primitive.name for port in ports for use in port.uses]
    if not ports:
        return "unused"
    if inside:
        return f"vmap: inside {', '.join(dict.fromkeys(inside))}"
    return ", ".join(dict.fromkeys(names)) + (": norms alone" if number in by_factors(program) else "")
