"""Children while the body that calls them runs: applied to arrays, or traced for their shapes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

from ._core import Options, Plan, run, stand_in, struct, trace, within
from ._errors import NetError, ShapeError, shape_of
from ._keys import key_at
from ._net import Net
from ._sealed import changed, sealed

Path = tuple[str, ...]
_UNSET: Any = object()


class Visit:
    """One run of a body: its options, which children are equal, the trace it runs in, and how often each was called."""

    def __init__(self, options: Options, repeated: set[Net]):
        self.options = options
        self.repeated = repeated
        self.trace_state = get_opaque_trace_state()
        self.calls: dict[Path, int] = {}
        self._jitted: dict[Callable[..., Any], Callable[..., Any]] = {}

    def jitted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function under `jax.jit`, the same for equal functions, so that equal children are traced once."""
        return self._jitted.setdefault(function, jax.jit(function))

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
                "none: every row of a vmap and step of a scan would see the same random numbers",
                "Split the body's own `key` outside, and pass each row or step its part.",
            )
        count = self.calls[path] = self.calls.get(path, -1) + 1
        return Options(jax.random.fold_in(key_at(self.options.key, path), count), train, keywords)


class Bound:
    """A child inside a body: called like a function."""

    def __init__(self, path: Path, net: Net, visit: Visit):
        self._path, self._net, self._visit = path, net, visit
        self.__name__ = "/".join(path)

    def __repr__(self) -> str:
        return repr(self._net)

    def __call__(
        self, *inputs: Any, key: Any = _UNSET, train: bool | None = None, state: Any = _UNSET, **keywords: Any
    ) -> Any:
        """Runs the child: its outputs, or `(outputs, state)` if it is given a state to start from."""
        with within(self._net, *self._path):
            options = self._visit.options_for(self._path, self._net, key, train, keywords)
            if state is not _UNSET:
                self._check_stateful()
                return self._run(state, inputs, options)
            before = self._state()
            outputs, after = self._run(before, inputs, options)
            self._keep(before, after)
            return outputs

    def keep(self, state: Any) -> None:
        """Makes a state that was carried through a transform the child's own."""
        with within(self._net, *self._path):
            self._check_stateful()
            before = self._state()
            if before is not None and _types(state) != _types(before):
                hint = "Of a state for each row, keep one, or their mean; of a scan, the last."
                raise ShapeError(f"a state {shape_of(before)} to keep", shape_of(state), hint)
            self._keep(before, state)

    @property
    def params(self) -> Any:
        """The child's own parameters."""
        raise NotImplementedError

    @property
    def state(self) -> Any:
        """The child's own state."""
        with within(self._net, *self._path):
            self._check_stateful()
            return self._state()

    def _run(self, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        raise NotImplementedError

    def _state(self) -> Any:
        raise NotImplementedError

    def _keep(self, before: Any, after: Any) -> None:
        raise NotImplementedError

    def _check_stateful(self) -> None:
        if not self._net.core.stateful:
            raise NetError("a network that carries state", "one without")


class Applied(Bound):
    """A child while the network is applied."""

    def __init__(self, path: Path, net: Net, params: Any, states: dict[Path, Any], visit: Visit):
        super().__init__(path, net, visit)
        self._params, self._states = params, states

    def _run(self, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        if self._net in self._visit.repeated and _traced((self._params, state, inputs, dict(options.keywords))):
            return sealed(self._visit.jitted, self._net, self._params, state, inputs, options)
        return run(self._net, self._params, state, inputs, options)

    def _state(self) -> Any:
        return self._states[self._path]

    def _keep(self, before: Any, after: Any) -> None:
        if changed(before, after) and self._visit.inside_transform():
            raise NetError(
                "a network that updates its state to be called outside jax.vmap, lax.scan and other transforms",
                "a call inside one, which would lose the update",
                "Call it outside, use nets.repeat or nets.ensemble, which carry state, or carry it yourself: "
                "y, state = child(x, state=state), then child.keep(state) outside.",
            )
        self._states[self._path] = after

    @property
    def params(self) -> Any:
        return self._params


class Traced(Bound):
    """A child while shapes are written down: its first call decides the shapes of its parameters."""

    def __init__(self, path: Path, net: Net, plans: dict[Path, Plan], alike: dict[Any, Plan], visit: Visit):
        super().__init__(path, net, visit)
        self._plans, self._alike = plans, alike

    def _run(self, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        if self._path not in self._plans:
            outputs = self._plan(inputs, options)
            return outputs, stand_in(self._plans[self._path].shapes[1])
        params, state = stand_in(self._plans[self._path].shapes)
        return run(self._net, params, state, inputs, options)

    def _plan(self, inputs: tuple, options: Options) -> Any:
        """Equal networks are traced once for equal inputs, if these are arrays: a number may decide on shapes."""
        arrays = all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(inputs))
        if self._net not in self._visit.repeated or options.keywords or not arrays:
            outputs, self._plans[self._path] = trace(self._net, inputs, options)
            return outputs
        leaves, structure = jax.tree.flatten(struct(inputs))
        call = (self._net, options.train, structure, tuple(leaves))
        if call not in self._alike:
            outputs, self._alike[call] = trace(self._net, inputs, options)
        self._plans[self._path] = self._alike[call]
        return stand_in(self._alike[call].outputs)

    def _state(self) -> Any:
        return stand_in(self._planned("state").shapes[1]) if self._path in self._plans else None

    def _keep(self, before: Any, after: Any) -> None:
        pass

    @property
    def params(self) -> Any:
        return stand_in(self._planned("params").shapes[0])

    @property
    def state(self) -> Any:
        self._planned("state")
        return super().state

    def _planned(self, what: str) -> Plan:
        if self._path not in self._plans:
            error = NetError(f"the child to be called before its .{what} {_VERBS[what]} read", "no call so far")
            error.path, error.net = self._path, self._net
            raise error
        return self._plans[self._path]


_VERBS = {"params": "are", "state": "is"}


def _types(tree: Any) -> Any:
    return jax.tree.structure(tree), [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]


def _traced(tree: Any) -> bool:
    """Whether these are arrays alone, and some are being traced."""
    leaves = jax.tree.leaves(tree)
    return any(isinstance(leaf, Tracer) for leaf in leaves) and all(hasattr(leaf, "dtype") for leaf in leaves)
