"""Inner problems: where steps of a chain lead, as a function of the numbers that shape the loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._call import recording
from ._checks import check_count
from ._returned import parts
from ._state import check_link
from ._unroll import descend

InnerLoss = Callable[[Any, Any, Any, Any], jax.Array]
Solve = Callable[..., Any]
StepLoss = Callable[[Any, Any], tuple[jax.Array, Any]]
Backward = Callable[[StepLoss, optax.GradientTransformation, Any, int], Any]


@recording
def unrolled(*, truncate: int | None = None, checkpoint: bool = False, first_order: bool = False) -> Backward:
    """Gradients go back through the steps of `minimize`, their own gradients too.

    They are the exact derivatives of where the steps led, whether or not that is a minimum.

    Args:
      truncate: goes through so many steps, the last ones; what came before counts as a constant shift of the
        parameters. Through all unless given.
      checkpoint: computes steps again in the backward pass, in groups of about the root of their number, of which only
        the ends are held: the same gradient, in less memory where steps are many.
      first_order: takes the inner gradients for constants: what is left goes through the chain's own numbers and the
        first parameters, and nothing through the loss.
    Returns:
      A `backward` for `minimize`. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: if `truncate` is out of range.

    >>> unrolled(truncate=5)
    unrolled(truncate=5)
    """
    if truncate is not None:
        check_count("unrolled", "truncate", truncate, at_least=1)

    def backward(loss_fn: StepLoss, tx: optax.GradientTransformation, params: Any, num_steps: int) -> Any:
        options: dict[str, Any] = {"truncate": truncate, "checkpoint": checkpoint, "first_order": first_order}
        return descend(loss_fn, tx, params, num_steps, **options).params

    return backward


@recording
def minimize(
    loss_fn: InnerLoss,
    tx: optax.GradientTransformation | Callable[[Any], optax.GradientTransformation],
    num_steps: int,
    *,
    backward: Backward = unrolled(),
) -> Solve:
    """Where steps of a chain on a loss lead, as a function that can be differentiated in what shapes the loss.

    So a hypergradient is `jax.grad(lambda hyper: outer_loss(solve(params, hyper, batch), ...))`. `bilevel` makes a loss
    for `step` of it.

    Args:
      loss_fn: `loss_fn(params, hyper, batch, key) -> loss`, a scalar; `hyper` is any tree.
      tx: the chain that takes the steps, made anew for each call; or `tx(hyper)`, a function that makes it, where it
        has numbers of `hyper`, such as a rate.
      num_steps: how many steps, at least 0.
      backward: how gradients find their way back: `unrolled()`, or `implicit(conjugate_gradient(10))`.
    Returns:
      `solve(params, hyper, batch=None, key=None) -> params`, pure: the parameters after the steps, on one batch. The
      step `t` is given `jax.random.fold_in(key, t)`. Gradients go to the floating-point numbers of `hyper` and `batch`
      and to whatever the functions close over; to `params`, where the steps began, if they are `unrolled`. It prints,
      compares and hashes as the call that made it.
    Raises:
      ValueError: if `num_steps` is negative.
      TypeError: if `tx` is no chain; when called, if the loss is no scalar.

    >>> loss_fn = lambda w, penalty, target, key: (w - target) ** 2 + penalty * w**2
    >>> solve = minimize(loss_fn, optim.sgd(0.2), 50)
    >>> w, slope = jax.value_and_grad(lambda penalty: solve(jnp.array(0.0), penalty, 3.0))(0.5)
    >>> round(w.item(), 4), round(slope.item(), 4)
    (2.0, -1.3333)
    """
    if not callable(tx):
        check_link("minimize", tx)
    check_count("minimize", "num_steps", num_steps, at_least=0)

    def solve(params: Any, hyper: Any, batch: Any = None, key: jax.Array | None = None) -> Any:
        chain = tx if isinstance(tx, optax.GradientTransformation) else tx(hyper)
        check_link("minimize", chain)

        def at_step(params: Any, index: Any) -> tuple[jax.Array, None]:
            own = None if key is None else jax.random.fold_in(key, index)
            found = loss_fn(params, hyper, batch, own)
            return parts("minimize", found, None, has_aux=False, stateful=False)[0], None

        return backward(at_step, chain, jax.tree.map(jnp.asarray, params), num_steps)

    return solve


@recording
def bilevel(outer_loss: InnerLoss, solve: Solve) -> Callable[..., Any]:
    """A loss of what shapes an inner problem, as it is where the inner problem's steps lead.

    The inner parameters are carried as the state, from outer step to outer step: each set of inner steps begins where
    the last one ended, though with a new state of its chain. `step(bilevel(outer_loss, solve), tx, stateful=True)`
    trains it, from `init(hyper, tx, state=params)`. To begin anew every time, write the loss by hand:
    `lambda hyper, batch, key: outer_loss(solve(params, hyper, batch["inner"], key), hyper, batch["outer"], key)`.

    Args:
      outer_loss: `outer_loss(params, hyper, batch, key) -> loss`, a scalar.
      solve: from `minimize`.
    Returns:
      `(hyper, params, batch, key) -> (loss, (params, {}))`, `batch` being `{"inner": batch, "outer": batch}`. The two
      losses have keys of their own. It prints, compares and hashes as the call that made it.
    Raises:
      ValueError: when called, if `batch` is no such dict.
      TypeError: when called, if the loss is no scalar.

    >>> inner = lambda w, penalty, x, key: jnp.mean((w - x) ** 2) + jnp.exp(penalty) * w**2
    >>> outer = lambda w, penalty, x, key: jnp.mean((w - x) ** 2)
    >>> tx = optim.adam(0.3)
    >>> loss = bilevel(outer, minimize(inner, optim.sgd(0.1), 20))
    >>> batch = {"inner": jnp.array([4.0, 6.0]), "outer": jnp.array([2.0, 3.0])}
    >>> train_state = init(jnp.array(0.0), tx, state=jnp.array(0.0))
    >>> run = jax.jit(step(loss, tx, stateful=True))
    >>> for _ in range(60):
    ...     train_state, _ = run(train_state, batch)
    >>> round(train_state.state.item(), 1), round(jnp.exp(train_state.params).item(), 1)
    (2.5, 1.0)
    """

    def loss(hyper: Any, params: Any, batch: Any, key: jax.Array | None = None) -> Any:
        if not isinstance(batch, dict) or set(batch) != {"inner", "outer"}:
            found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
            raise ValueError(f"bilevel: expected batch to be {{'inner': batch, 'outer': batch}}, got {found}")
        inner_key, outer_key = (None, None) if key is None else jax.random.split(key)
        params = solve(params, hyper, batch["inner"], inner_key)
        found = outer_loss(params, hyper, batch["outer"], outer_key)
        value, _ = parts("bilevel", found, None, has_aux=False, stateful=False)
        return value, (params, {})

    return loss
