"""The core of a network that calls other networks: what `define` and the combinators are made of."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax

from ._bound import Applied, Bound, Path, Traced, Visit
from ._core import Core, Options, Plan
from ._errors import NetError, shape_of
from ._keys import key_at
from ._net import Net


def compose(
    body: Callable[[dict[str, Any], tuple, Options], Any],
    children: dict[str, Any],
    *,
    wants_key: bool = False,
    trains: bool = False,
) -> Core:
    """The core of a network whose `body(bound children, inputs, options)` calls its children.

    Args:
      body: what it computes.
      children: trees (dicts and lists) of networks, by name.
      wants_key: whether the body uses the key itself.
      trains: whether the body may call some children in training only.
    """
    flat = dict(_flatten(children))
    counts = Counter(net for net in flat.values() if net.core.trace is not None)
    repeated = {net for net, count in counts.items() if count > 1}

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        plans: dict[Path, Plan] = {}
        alike: dict[Any, Plan] = {}

        def look(train: bool) -> Any:
            visit = Visit(Options(jax.random.key(0), train, options.keywords), repeated)
            bound = _bind(children, lambda path, net: Traced(path, net, plans, alike, visit))
            return body(bound, inputs, visit.options)

        def missing() -> list[Path]:
            return [path for path, net in flat.items() if path not in plans and net.core.has_params]

        outputs = look(train=False)
        if trains and missing():
            look(train=True)
        if missed := missing():
            error = NetError("every child to be called by the body", "no call: the shapes of its inputs are unknown")
            error.path, error.net = missed[0], flat[missed[0]]
            raise error

        def build(key: jax.Array) -> tuple[Any, Any]:
            made = {path: planned.build(key_at(key, path)) for path, planned in plans.items()}
            return _gather(children, made, 0), _gather(children, made, 1)

        return outputs, build, {"/".join(path): planned for path, planned in plans.items()}

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        _check_structure(children, params, "params")
        _check_structure(children, state, "state")
        visit = Visit(options, repeated)
        states = {path: _pick(state, path) for path in flat}
        bound = _bind(children, lambda path, net: Applied(path, net, _pick(params, path), states, visit))
        outputs = body(bound, inputs, options)
        return outputs, _gather(children, {path: (kept,) for path, kept in states.items()}, 0)

    cores = [net.core for net in flat.values()]
    return Core(
        core_apply,
        None,
        core_trace,
        has_params=any(core.has_params for core in cores),
        stateful=any(core.stateful for core in cores),
        wants_key=wants_key or any(core.wants_key for core in cores),
    )


def _flatten(tree: Any, path: Path = ()) -> list[tuple[Path, Net]]:
    if isinstance(tree, Net):
        return [(path, tree)]
    items = tree if isinstance(tree, dict) else {str(index): item for index, item in enumerate(tree)}
    for name in items:
        if not isinstance(name, str) or not name or "/" in name:
            place = "/".join((*path, str(name)))
            raise TypeError(f"{place}: expected a child's name to be a string without a slash, got {name!r}")
    return [pair for name, item in items.items() for pair in _flatten(item, (*path, name))]


def _bind(tree: Any, bind: Callable[[Path, Net], Bound], path: Path = ()) -> Any:
    """The children as the body sees them: nets as functions, `param`s as arrays."""
    if isinstance(tree, Net):
        bound = bind(path, tree)
        return bound() if tree.core.is_array else bound
    if isinstance(tree, dict):
        return {name: _bind(item, bind, (*path, str(name))) for name, item in tree.items()}
    return [_bind(item, bind, (*path, str(index))) for index, item in enumerate(tree)]


def _gather(tree: Any, made: dict[Path, tuple], part: int, path: Path = ()) -> Any:
    """Nested parameters (or states) of a tree of children, without entries for those that have none."""
    if isinstance(tree, Net):
        return made[path][part] if path in made else {}
    if isinstance(tree, dict):
        items = {name: _gather(item, made, part, (*path, str(name))) for name, item in tree.items()}
        return {name: item for name, item in items.items() if jax.tree.leaves(item)}
    items = [_gather(item, made, part, (*path, str(index))) for index, item in enumerate(tree)]
    return items if jax.tree.leaves(items) else {}


def _pick(tree: Any, path: Path) -> Any:
    for name in path:
        if isinstance(tree, list | tuple):
            tree = tree[int(name)] if int(name) < len(tree) else {}
        else:
            tree = tree.get(name, {}) if isinstance(tree, dict) else {}
    return tree


def _check_structure(tree: Any, given: Any, what: str, path: Path = ()) -> None:
    """Refuses parameters or state with names that no child has; an empty dict stands for a list without any."""
    if isinstance(tree, Net):
        return
    is_list = isinstance(tree, list) and isinstance(given, list | tuple)
    known: dict[Any, Any] = dict(enumerate(tree)) if isinstance(tree, list) else tree
    found: Any = dict(enumerate(given)) if is_list else given
    fits = isinstance(found, dict) and (set(found) == set(known) if is_list else set(found) <= set(known))
    if not fits or (isinstance(tree, list) and not is_list and found):
        got = str(sorted(found)) if isinstance(found, dict) else shape_of(given)
        error = NetError(
            f"{what} of the children {list(known)}", got, "Make them with this network's own init(key, x)."
        )
        error.path = path
        raise error
    for name, item in found.items():
        _check_structure(known[name], item, what, (*path, str(name)))
