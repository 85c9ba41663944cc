"""Numbers of a chain that can be changed while it runs: they are in its state, each at one path."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .._patterns import listed, matching
from ._link import Link, link
from ._recorded import remade


class InjectHyperparamsState(NamedTuple):
    """State of `inject_hyperparams`.

    Attributes:
      step: updates made so far, `[]` of int32.
      hyperparams: numbers by path, `[]` of float32, or float64 where JAX has it; what the next update goes by.
      scheduled: by path, what schedules said at the last update, or say to the first; only to look at.
      inner: of the chain.
    """

    step: jax.Array
    hyperparams: dict[str, jax.Array]
    scheduled: dict[str, jax.Array]
    inner: Any


@link
def inject_hyperparams(
    tx: optax.GradientTransformation, paths: str | Sequence[str] = "**"
) -> optax.GradientTransformationExtraArgs:
    """Keeps the numbers of a whole chain in its state: each can be read and changed there, and nothing is recompiled.

    Every float is found in the calls that made the chain, defaults too, and stands at one path: the links that
    hold it by constructor, numbered as `chain` numbers them, or by the name that they were given; then its parameter,
    `"adam/learning_rate"`. Numbers of a schedule stand below it: `"adam/learning_rate/init_value"`. Integers, bools and
    whatever a constructor needs as a Python number stay as they are, as do links that Optax made, not `optim`.
    Numbers are rounded to float32, so that `1 - b2` is off by a few millionths.

    A sweep is one `jax.vmap` over a state whose numbers differ. What a schedule says is shown at this link's step:
    in a chain that does not step every time, put this link inside, `accumulate(inject_hyperparams(adam(...)), 4)`.

    Args:
      tx: the chain.
      paths: patterns of those to keep in the state, such as `"**/learning_rate"`; all unless given.
    Returns:
      A link; `get_hyperparams` and `set_hyperparams` read and write its state.
    Raises:
      TypeError: if `tx` is no link that knows the call that made it.
      ValueError: if a pattern matches no path, with the paths that there are; if the chain holds another
        `inject_hyperparams`, or names that make one path of two numbers.

    >>> tx = inject_hyperparams(chain(sam(0.05), sgd(0.1, momentum=0.9)))
    >>> state = tx.init(jnp.zeros(2))
    >>> {path: round(value.item(), 3) for path, value in get_hyperparams(state).items()}
    {'sam/rho': 0.05, 'sgd/learning_rate': 0.1, 'sgd/momentum': 0.9}
    >>> state = set_hyperparams(state, {"sgd/learning_rate": 0.01})
    """
    if not isinstance(tx, Link) or tx.call is None:
        raise TypeError(
            f"inject_hyperparams: expected a link that is the call that made it, such as optim.adam(1e-3), got {tx!r}"
        )
    if tx.holds("inject_hyperparams"):
        raise ValueError(
            f"inject_hyperparams: expected tx without another one inside, got {tx!r}. This one finds all numbers."
        )
    values = _changeable(tx)
    if values or paths != "**":
        kept = matching(values, (paths,) if isinstance(paths, str) else tuple(paths), "inject_hyperparams")
        values = {path: value for path, value in values.items() if path in kept}

    def init(params: Any) -> InjectHyperparamsState:
        step = jnp.zeros((), jnp.int32)
        hyperparams = {path: _array(value) for path, value in values.items()}
        schedules = _made(tx, values, hyperparams)[1]
        return InjectHyperparamsState(step, hyperparams, _said(schedules, step), tx.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        step, hyperparams, _, inner = state
        made, schedules = _made(tx, values, hyperparams)
        updates, inner = made.update(updates, inner, params, **extra)
        after = jnp.asarray(optax.safe_increment(step))
        return updates, InjectHyperparamsState(after, hyperparams, _said(schedules, step), inner)

    return optax.GradientTransformationExtraArgs(init, update)


def get_hyperparams(opt_state: Any) -> dict[str, jax.Array]:
    """The numbers that `inject_hyperparams` keeps in a state, by path, with what schedules said at the last update.

    Args:
      opt_state: the state of a chain that has `inject_hyperparams` somewhere.
    Returns:
      Arrays by path.
    Raises:
      ValueError: if there is no such link, or two have a path in common.

    >>> state = inject_hyperparams(adam(linear_schedule(0.5, 0.0, 100)), "**/learning_rate/*").init(jnp.zeros(2))
    >>> get_hyperparams(state)["adam/learning_rate"].item()
    0.5
    """
    found: dict[str, jax.Array] = {}
    for state in _states("get_hyperparams", opt_state):
        held = state.hyperparams | state.scheduled
        _check_apart("get_hyperparams", found, held)
        found |= held
    return found


def set_hyperparams(opt_state: Any, values: Mapping[str, Any]) -> Any:
    """A state with some of the numbers that `inject_hyperparams` keeps replaced.

    Args:
      opt_state: the state of a chain that has `inject_hyperparams` somewhere.
      values: numbers by path, arrays and tracers too; they get the shapes and dtypes of those that they replace.
    Returns:
      The state, of the same structure and types.
    Raises:
      ValueError: for a path that there is not, with those that there are; for one that follows a schedule; for a value
        of another shape.

    >>> state = inject_hyperparams(adam(1e-3)).init(jnp.zeros(2))
    >>> state = set_hyperparams(state, {"adam/learning_rate": 0.5})
    >>> get_hyperparams(state)["adam/learning_rate"].item()
    0.5
    >>> sweep = jax.vmap(lambda rate: set_hyperparams(state, {"adam/learning_rate": rate}))(jnp.array([0.1, 0.2]))
    >>> sweep.hyperparams["adam/learning_rate"].shape
    (2,)
    """
    states = _states("set_hyperparams", opt_state)
    known: dict[str, jax.Array] = {}
    for state in states:
        _check_apart("set_hyperparams", known, state.hyperparams)
        known |= state.hyperparams
    new = {path: _like(path, value, known, states) for path, value in values.items()}

    def replaced(state: Any) -> Any:
        if not _is_state(state):
            return state
        changed = {path: new.get(path, value) for path, value in state.hyperparams.items()}
        return state._replace(hyperparams=changed)

    return jax.tree.map(replaced, opt_state, is_leaf=_is_state)


def _changeable(tx: Link) -> dict[str, Any]:
    """The floats of a chain by path, but those that its constructors need as Python numbers."""
    values: dict[str, Any] = {}

    def note(path: str, value: Any) -> Any:
        if path in values:
            raise ValueError(
                f"inject_hyperparams: expected a path for each number, got {path!r} for two. "
                "Give the links other names."
            )
        values[path] = value
        return value

    remade(tx, note, lambda path, schedule: None)
    if _takes_arrays(tx, values):
        return values
    return {path: value for path, value in values.items() if _takes_arrays(tx, {path: value})}


def _takes_arrays(tx: Link, values: dict[str, Any]) -> bool:
    def build(arrays: dict[str, Any]) -> None:
        _made(tx, values, arrays)

    try:
        jax.eval_shape(build, {path: _array(value) for path, value in values.items()})
    except (TypeError, ValueError):  # JAX's own, where a tracer is asked for its value, is a TypeError
        return False
    return True


def _made(tx: Link, values: dict[str, Any], arrays: Mapping[str, Any]) -> tuple[Link, dict[str, Any]]:
    """The chain with other numbers, and its schedules by path."""
    schedules: dict[str, Any] = {}

    def number(path: str, value: Any) -> Any:
        if path not in values:
            return value
        return _weak(arrays[path]) if isinstance(value, float) else arrays[path]

    return remade(tx, number, schedules.__setitem__), schedules


def _array(value: Any) -> jax.Array:
    return jnp.asarray(value, float) if isinstance(value, float) else jnp.asarray(value)


def _weak(array: Any) -> jax.Array:
    """The same as a weakly typed scalar, which leaves the dtype of whatever it meets, as a Python number does."""
    return lax.full_like(jnp.asarray(0.0), array)


def _said(schedules: Mapping[str, Any], step: jax.Array) -> dict[str, jax.Array]:
    return {path: lax.convert_element_type(schedule(step), float) for path, schedule in schedules.items()}


def _states(name: str, opt_state: Any) -> list[InjectHyperparamsState]:
    found = [leaf for leaf in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(leaf)]
    if not found:
        raise ValueError(
            f"{name}: expected the state of a chain with inject_hyperparams, got none. "
            "Wrap the chain: inject_hyperparams(chain(...))."
        )
    return found


def _is_state(node: Any) -> bool:
    return isinstance(node, InjectHyperparamsState)


def _check_apart(name: str, found: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    both = sorted(set(found) & set(held))
    if both:
        raise ValueError(
            f"{name}: expected paths of one inject_hyperparams each, got {both} of two. Put one around the whole chain."
        )


def _like(path: str, value: Any, known: Mapping[str, Any], states: list[InjectHyperparamsState]) -> jax.Array:
    if path not in known:
        if any(path in state.scheduled for state in states):
            below = [each for each in known if each.startswith(f"{path}/")]
            raise ValueError(
                f"set_hyperparams: expected a number that is set, got {path!r}, which follows a schedule. "
                f"Set the schedule's own numbers. {listed(below, path)}"
            )
        raise ValueError(f"set_hyperparams: expected a path of the state, got {path!r}. {listed(known, path)}")
    old = known[path]
    if jnp.shape(value) not in ((), old.shape):
        raise ValueError(f"set_hyperparams: expected {path!r} of shape {old.shape}, got {jnp.shape(value)}")
    return jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
