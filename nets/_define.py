"""Networks of any shape: a plain function whose keyword defaults are its children."""

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from .._call import Call, find
from ._errors import NetError, shape_of
from ._keys import child_key
from ._net import Core, Net, Options, Plan, bound_to, keywords_for, layer, net_from, run, stand_in, trace

Initializer = Callable[..., jax.Array]
Path = tuple[str, ...]
_UNSET: Any = object()


@layer
def param(shape: tuple[int, ...], init: Initializer, *, dtype: Any = "float32") -> Net:
    """A child that is one array: in the body of a `define`d network its name *is* the array.

    Args:
      shape: of the array.
      init: `init(key, shape, dtype) -> array`.
      dtype: of the array.
    Returns:
      A net without inputs whose params are the array itself.

    >>> @define
    ... def scale(x, *, factor=param((), jax.nn.initializers.ones)):
    ...     return factor * x
    >>> scale.init(jax.random.key(0), 2.0)
    {'factor': Array(1., dtype=float32)}
    """

    def make(key: jax.Array) -> jax.Array:
        return init(key, shape, dtype)

    def apply(params: jax.Array) -> jax.Array:
        if getattr(params, "shape", None) != tuple(shape):
            raise NetError(
                f"an array {tuple(shape)}", shape_of(params), "Make it with this network's own init(key, x)."
            )
        return params

    return Net(make, apply)


def define(body: Callable[..., Any]) -> Net:
    """A network from a plain function whose keyword defaults are its children.

    The function's positional parameters are the inputs. Of its keyword-only parameters, those whose default
    is a network, or a list or dict of networks, are its children: the body calls them like functions. `key`
    and `train` are what the caller of `apply` gave. Any other must have no default or None: callers pass it
    by name, like a mask.

    `init` runs the body once on abstract values and writes down the shapes at which each child is called.
    Only shapes leave that trace, so `jax.vmap`, `jax.lax.scan`, `jax.checkpoint`, `jax.grad` and
    `jax.lax.cond` work inside a body as they are. A child called twice shares its weights. A child's
    `.params` are its own parameters, for weight tying. A child that takes a key gets one of its own at every
    call; one that carries state makes the whole a `StatefulNet`.

    Args:
      body: the function.
    Returns:
      A `Net`, or a `StatefulNet` if a child is one; params `{child: params}`.
    Raises:
      TypeError: if a keyword default is neither a network nor None.
      NetError: from `init`, if a child that has parameters is never called.

    >>> from renga import nets
    >>> @define
    ... def block(x, *, hidden=nets.linear(8), out=nets.linear(3)):
    ...     return x + out(jax.nn.relu(hidden(x)))
    >>> params = block.init(jax.random.key(0), jax.ShapeDtypeStruct((3,), "float32"))
    >>> jax.tree.map(lambda array: array.shape, params)
    {'hidden': {'b': (8,), 'w': (3, 8)}, 'out': {'b': (3,), 'w': (8, 3)}}
    """
    signature = inspect.signature(body)
    keyword_only = {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    children = {name: _child_tree(body, name, default) for name, default in keyword_only.items() if _is_child(default)}
    passed = set(keyword_only) - set(children)
    inputs_only = signature.replace(parameters=[p for p in signature.parameters.values() if p.name not in children])

    def call(bound: dict[str, Any], inputs: tuple, options: Options) -> Any:
        keywords = keywords_for(body, passed, options)
        bound_to(inputs_only, 0, inputs, keywords)
        return body(*inputs, **bound, **keywords)

    core = compose(call, children, wants_key="key" in passed, trains="train" in passed)
    net = net_from(core, _Definition(define, (body,), {}), body.__name__)
    object.__setattr__(net, "__doc__", body.__doc__)
    return net


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
        return run(self._net, stand_in(planned.params), stand_in(planned.state), inputs, options)[0]

    @property
    def params(self) -> Any:
        if self._path not in self._plans:
            error = NetError("the child to be called before its .params are read", "no call so far")
            error.path, error.net = self._path, self._net
            raise error
        return stand_in(self._plans[self._path].params)


def _is_child(default: Any) -> bool:
    return default is not inspect.Parameter.empty and default is not None


def _child_tree(body: Callable[..., Any], name: str, default: Any) -> Any:
    """The default of a keyword, if it is a network or a list or dict of networks."""
    if isinstance(default, Net):
        return default
    if isinstance(default, list | tuple):
        return [_child_tree(body, f"{name}/{index}", item) for index, item in enumerate(default)]
    if isinstance(default, dict):
        return {key: _child_tree(body, f"{name}/{key}", item) for key, item in default.items()}
    raise TypeError(
        f"{body.__name__}/{name}: expected a network, a list or dict of networks, or None as a keyword's default, "
        f"got {default!r}. Hyper-parameters belong to an enclosing function marked @layer."
    )


def _flatten(tree: Any, path: Path = ()) -> list[tuple[Path, Net]]:
    if isinstance(tree, Net):
        return [(path, tree)]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [pair for name, item in items for pair in _flatten(item, (*path, str(name)))]


def _bind(tree: Any, bind: Callable[[Path, Net], _Bound], path: Path = ()) -> Any:
    """The children as the body sees them: nets as functions, `param`s as arrays."""
    if isinstance(tree, Net):
        bound = bind(path, tree)
        is_array = tree.call is not None and tree.call.function is param
        return bound() if is_array else bound
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
    """Refuses parameters or state with names that no child has."""
    if isinstance(tree, Net):
        return
    names = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    if isinstance(given, list | tuple):
        found = list(range(len(given)))
        fits = isinstance(tree, list) and found == names
    else:
        found = sorted(given) if isinstance(given, dict) else shape_of(given)
        fits = isinstance(given, dict) and set(given) <= (set(names) if isinstance(tree, dict) else set())
    if not fits:
        error = NetError(
            f"{what} of the children {names}", f"{found}", "Make them with this network's own init(key, x)."
        )
        error.path = path
        raise error
    for name in found:
        _check_structure(tree[name], given[name], what, (*path, str(name)))


class _Definition(Call):
    """The call that made a `define`d network: it prints as the body's name, and pickles by it."""

    @property
    def body(self) -> Callable[..., Any]:
        return self.args[0]

    def __repr__(self) -> str:
        return self.body.__name__

    def recipe(self) -> tuple[str, str, tuple, dict]:
        place = (self.body.__module__, self.body.__qualname__)
        if "<locals>" in place[1] or getattr(find(*place), "call", None) != self:
            raise pickle.PicklingError(
                f"{self!r}: expected a network that is found as {':'.join(place)}, got another value or none there. "
                "Define it at the top level of a module, or return it from a function marked @layer."
            )
        return find.__module__, find.__name__, place, {}
