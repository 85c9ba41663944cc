"""The core of a network that calls other networks: what `define` and the combinators are made of."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from ._core import Core, Options, Plan, run, stand_in, trace
from ._errors import NetError, shape_of
from ._keys import child_key
from ._net import Net

Path = tuple[str, ...]
_UNSET: Any = object()


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

    def core_trace(inputs: tuple, options: Options) -> tuple[Any, Callable, dict[str, Plan]]:
        plans: dict[Path, Plan] = {}

        def look(train: bool) -> Any:
            visit = _Visit(Options(jax.random.key(0), train, options.keywords))
            bound = _bind(children, lambda path, net: _Traced(path, net, plans, visit))
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
            made = {path: planned.build(_key_at(key, path)) for path, planned in plans.items()}
            return _gather(children, made, 0), _gather(children, made, 1)

        return outputs, build, {"/".join(path): planned for path, planned in plans.items()}

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        _check_structure(children, params, "params")
        _check_structure(children, state, "state")
        visit = _Visit(options)
        states = {path: _pick(state, path) for path in flat}
        bound = _bind(children, lambda path, net: _Applied(path, net, _pick(params, path), states, visit))
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


class _Visit:
    """One run of a body: its options, the trace it runs in, and how often each child was called."""

    def __init__(self, options: Options):
        self.options = options
        self.trace_state = get_opaque_trace_state()
        self.calls: dict[Path, int] = {}

    def inside_transform(self) -> bool:
        return self.trace_state != get_opaque_trace_state()

    def options_for(self, path: Path, net: Net, key: Any, train: bool | None, keywords: dict[str, Any]) -> Options:
        """A key of its own at every call; the caller's, where the caller gives one."""
        train = self.options.train if train is None else train
        if key is not _UNSET or not net.core.wants_key or self.options.key is None:
            return Options(None if key is _UNSET else key, train, keywords)
        if self.inside_transform():
            raise NetError(
                "key= where a network that takes a key is called inside jax.vmap, lax.scan or another transform",
                "none: every row or step would see the same random numbers",
                "Split the body's own `key` outside, and pass each row or step its part.",
            )
        count = self.calls[path] = self.calls.get(path, -1) + 1
        return Options(jax.random.fold_in(_key_at(self.options.key, path), count), train, keywords)


class _Bound:
    """A child inside a body: called like a function."""

    def __init__(self, path: Path, net: Net, visit: _Visit):
        self._path, self._net, self._visit = path, net, visit
        self.__name__ = "/".join(path)

    def __repr__(self) -> str:
        return repr(self._net)

    def __call__(self, *inputs: Any, key: Any = _UNSET, train: bool | None = None, **keywords: Any) -> Any:
        try:
            options = self._visit.options_for(self._path, self._net, key, train, keywords)
            with jax.named_scope(self.__name__):
                return self._run(inputs, options)
        except NetError as error:
            error.net = error.net or self._net
            error.path = self._path + error.path
            raise

    def _run(self, inputs: tuple, options: Options) -> Any:
        raise NotImplementedError

    @property
    def params(self) -> Any:
        """The child's own parameters."""
        raise NotImplementedError


class _Applied(_Bound):
    """A child while the network is applied."""

    def __init__(self, path: Path, net: Net, params: Any, states: dict[Path, Any], visit: _Visit):
        super().__init__(path, net, visit)
        self._params, self._states = params, states

    def _run(self, inputs: tuple, options: Options) -> Any:
        before = self._states[self._path]
        outputs, after = run(self._net, self._params, before, inputs, options)
        if self._net.core.stateful:
            self._keep(before, after)
        return outputs

    def _keep(self, before: Any, after: Any) -> None:
        changed = [a is not b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=False)]
        if any(changed) and self._visit.inside_transform():
            raise NetError(
                "a network that updates its state to be called outside jax.vmap, lax.scan and other transforms",
                "a call inside one, which would lose the update",
                "Call it outside, or use nets.repeat or nets.ensemble, which carry state.",
            )
        self._states[self._path] = after

    @property
    def params(self) -> Any:
        return self._params


class _Traced(_Bound):
    """A child while shapes are written down: its first call decides the shapes of its parameters."""

    def __init__(self, path: Path, net: Net, plans: dict[Path, Plan], visit: _Visit):
        super().__init__(path, net, visit)
        self._plans = plans

    def _run(self, inputs: tuple, options: Options) -> Any:
        if self._path not in self._plans:
            outputs, self._plans[self._path] = trace(self._net, inputs, options)
            return outputs
        planned = self._plans[self._path]
        params, state = stand_in(planned.shapes)
        return run(self._net, params, state, inputs, options)[0]

    @property
    def params(self) -> Any:
        if self._path not in self._plans:
            error = NetError("the child to be called before its .params are read", "no call so far")
            error.path, error.net = self._path, self._net
            raise error
        return stand_in(self._plans[self._path].shapes[0])


def _flatten(tree: Any, path: Path = ()) -> list[tuple[Path, Net]]:
    if isinstance(tree, Net):
        return [(path, tree)]
    items = tree if isinstance(tree, dict) else {str(index): item for index, item in enumerate(tree)}
    for name in items:
        if not isinstance(name, str) or not name or "/" in name:
            place = "/".join((*path, str(name)))
            raise TypeError(f"{place}: expected a child's name to be a string without a slash, got {name!r}")
    return [pair for name, item in items.items() for pair in _flatten(item, (*path, name))]


def _bind(tree: Any, bind: Callable[[Path, Net], _Bound], path: Path = ()) -> Any:
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


def _key_at(key: jax.Array, path: Path) -> jax.Array:
    for name in path:
        key = child_key(key, name)
    return key


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
