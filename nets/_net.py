"""What a network is: two pure functions, and the call that made them."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import jax
import jax.numpy as jnp

from .._call import Call, Recorded, recording
from ._errors import NetError, ShapeError, shape_of

Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class Options(NamedTuple):
    """What an application is given beside parameters and inputs."""

    key: jax.Array | None = None
    train: bool = False
    keywords: Mapping[str, Any] = MappingProxyType({})


class Plan(NamedTuple):
    """What one abstract run of a network writes down: shapes, and how to make its parameters."""

    net: "Net"
    build: Callable[[jax.Array], tuple[Any, Any]]  # key -> (params, state)
    params: Any
    state: Any
    inputs: Any
    outputs: Any
    children: dict[str, "Plan"]


class Core(NamedTuple):
    """What lies under every network: parameters, state, keys and errors go the same way through all.

    A layer has `init: (inputs, options) -> build`. A combinator has `trace` in its place, which runs it on
    abstract inputs and returns `(outputs, build, children)`.
    """

    apply: Callable[[Any, Any, tuple, Options], tuple[Any, Any]]
    init: Callable[[tuple, Options], Callable[[jax.Array], tuple[Any, Any]]] | None = None
    trace: Callable[[tuple, Options], tuple[Any, Callable, dict[str, Plan]]] | None = None
    has_params: bool = True
    stateful: bool = False
    wants_key: bool = False


class Net(Recorded):
    """A network: a pair of pure functions, as a value.

    It prints, compares, hashes and pickles as the call that made it, so two networks built alike are equal
    and `jax.jit` compiles once for both. It holds no arrays.

    Args:
      init: `init(key, *inputs) -> params`. It is given `jax.ShapeDtypeStruct`s for inputs, whatever the
        caller gave. None for a network without parameters.
      apply: `apply(params, *inputs) -> outputs`. It may declare the keyword-only arguments `key` and
        `train`, and any other keyword that callers may pass.

    Attributes:
      init: `(key, *inputs) -> params`, a nested dict of arrays. Inputs are arrays or
        `jax.ShapeDtypeStruct`s: only shapes and dtypes are looked at.
      apply: `(params, *inputs, key=None, train=False) -> outputs`.

    >>> scale = Net(lambda key, x: {"s": jnp.ones(x.shape[-1])}, lambda params, x: params["s"] * x)
    >>> params = scale.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> scale.apply(params, jnp.ones((2, 3))).shape
    (2, 3)
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    call: Call | None
    core: Core
    name: str

    def __init__(self, init: Callable[..., Any] | None, apply: Callable[..., Any]):
        _settle(self, _leaf(init, apply, stateful=False), Call(type(self), (init, apply), {}))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r}: a network is a value and cannot be changed; build another one")

    __delattr__ = cast(Any, __setattr__)

    def __call__(self, *inputs: Any, key: jax.Array | None = None, train: bool = False, **keywords: Any) -> Any:
        """Applies a network without parameters, as a function.

        Raises:
          NetError: if the network has parameters or state.
        """
        if self.core.has_params or self.core.stateful:
            error = NetError(
                "a network without parameters to be called like a function",
                "one that has them",
                "Use net.apply(params, x), or make it a child of a `define`d network.",
            )
            error.net = self
            raise error
        return self.apply({}, *inputs, key=key, train=train, **keywords)


class StatefulNet(Net):
    """A network that carries statistics from one application to the next.

    Args:
      init: `init(key, *inputs) -> (params, state)`.
      apply: `apply(params, state, *inputs) -> (outputs, state)`; keywords as for `Net`.

    Attributes:
      init: `(key, *inputs) -> (params, state)`, two nested dicts of arrays.
      apply: `(params, state, *inputs, key=None, train=False) -> (outputs, state)`.

    >>> def init(key, x):
    ...     return {}, {"n": jnp.zeros(())}
    >>> def apply(params, state, x):
    ...     return x, {"n": state["n"] + 1}
    >>> count = StatefulNet(init, apply)
    >>> params, state = count.init(jax.random.key(0), 1.0)
    >>> count.apply(params, state, 1.0)[1]["n"].item()
    1.0
    """

    def __init__(self, init: Callable[..., Any], apply: Callable[..., Any]):
        _settle(self, _leaf(init, apply, stateful=True), Call(type(self), (init, apply), {}))


def layer(constructor: Constructor) -> Constructor:
    """Marks a function that returns a network: the network then is the call that made it.

    The network prints, compares, hashes and pickles as that call. Works for layers written with `Net`, for
    architectures written with `define`, and for combinators.

    Args:
      constructor: a function that returns a `Net`.
    Returns:
      The same function, with the same signature.

    >>> @layer
    ... def scale(by: float) -> Net:
    ...     return Net(None, lambda params, x: by * x)
    >>> scale(by=2.0), scale(2.0) == scale(2.0), scale(3.0)(4.0)
    (scale(2.0), True, 12.0)
    """

    def wrap(net: Any, call: Call) -> Net:
        if not isinstance(net, Net):
            raise TypeError(f"{call.name}: expected a function marked @layer to return a Net, got {net!r}")
        return net_from(net.core, call)

    return recording(constructor, wrap)


def net_from(core: Core, call: Call | None, name: str = "") -> Net:
    """A network of the kind that `core` needs."""
    net = object.__new__(StatefulNet if core.stateful else Net)
    _settle(net, core, call, name)
    return net


def run(net: Net, params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
    """Applies any network to explicit parameters and state: `(outputs, state)`."""
    try:
        return net.core.apply(params, state, inputs, options)
    except NetError as error:
        error.net = error.net or net
        raise


def trace(net: Net, inputs: tuple, options: Options) -> tuple[Any, Plan]:
    """Runs any network on abstract values inside a trace, and writes down what it sees."""
    try:
        if net.core.trace is None:
            return _trace_leaf(net, inputs, options)
        outputs, build, children = net.core.trace(inputs, options)
    except NetError as error:
        error.net = error.net or net
        raise
    params, state = jax.eval_shape(build, _abstract_key())
    return outputs, Plan(net, build, params, state, struct(inputs), struct(outputs), children)


def plan(net: Net, inputs: tuple, options: Options) -> Plan:
    """The plan of a network for inputs of these shapes; nothing is computed."""
    noted: list[Plan] = []

    def note(inputs: tuple, keywords: dict) -> None:
        noted.append(trace(net, inputs, options._replace(keywords=keywords))[1])

    with_root(net, lambda: jax.eval_shape(note, struct(inputs), struct(dict(options.keywords))))
    return noted[0]


def with_root(net: Net, run: Callable[[], Any]) -> Any:
    """Runs, and makes `net` the beginning of the path of any error."""
    try:
        return run()
    except NetError as error:
        error.root, error.net = net.name, error.net or net
        raise


def struct(tree: Any) -> Any:
    """Shapes and dtypes of a pytree of arrays, numbers or `jax.ShapeDtypeStruct`s."""

    def of(leaf: Any) -> jax.ShapeDtypeStruct:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            leaf = jnp.asarray(leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree.map(of, tree)


def stand_in(tree: Any) -> Any:
    """Arrays of the given shapes and dtypes, for use inside an abstract trace."""

    def make(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(make, tree)


def check_params(params: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Refuses parameters that are not the arrays named, of these shapes; None stands for any size.

    Raises:
      ShapeError: if a name is missing or unknown, or its array has another shape.
    """
    given = params if isinstance(params, dict) else {"params": params}
    fits = set(given) == set(shapes) and all(_fits(given[name], shape) for name, shape in shapes.items())
    if not fits:
        expected = ", ".join(f"{name} {_sizes(shape)}" for name, shape in shapes.items()) or "none"
        raise ShapeError(f"parameters {expected}", shape_of(params), "Make them with this network's own init(key, x).")


def _fits(array: Any, shape: tuple[int | None, ...]) -> bool:
    given = getattr(array, "shape", None)
    return (
        given is not None
        and len(given) == len(shape)
        and all(w in (None, g) for g, w in zip(given, shape, strict=True))
    )


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def declared(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """The keyword-only arguments of a function, and whether it takes any other."""
    kinds = inspect.signature(function).parameters.values()
    return {p.name for p in kinds if p.kind is p.KEYWORD_ONLY}, any(p.kind is p.VAR_KEYWORD for p in kinds)


def keywords_for(function: Callable[..., Any], names: set[str], options: Options) -> dict[str, Any]:
    """The keyword arguments that a body or an `apply` with these keyword-only names is to be given."""
    given = {"key": options.key, "train": options.train}
    return {name: value for name, value in given.items() if name in names} | dict(options.keywords)


def bound_to(signature: inspect.Signature, skip: int, args: tuple, keywords: dict[str, Any]) -> None:
    """Refuses arguments that a function does not take.

    Args:
      signature: the function's.
      skip: how many of its first parameters are not inputs.
      args: all positional arguments.
      keywords: all keyword arguments.
    Raises:
      NetError: if they do not fit, with the names of the inputs that are taken.
    """
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        parameters = list(signature.parameters.values())[skip:]
        taken = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters if p.name not in ("key", "train"))
        raise NetError(f"inputs ({taken})", f"{len(args) - skip} inputs: {error}") from None


class _Init:
    """`net.init`: equal for equal networks, so that `jax.jit(net.init)` is found again in jit's cache."""

    def __init__(self, net: Net):
        self.net = net
        self.__name__ = f"{net.name}_init"

    def __call__(self, key: jax.Array, *inputs: Any, **keywords: Any) -> Any:
        net = self.net
        _check_key(net, key)
        params, state = with_root(net, lambda: _builder(net, inputs, Options(keywords=keywords)))(key)
        return (params, state) if net.core.stateful else params

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.net == cast(_Init, other).net

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.net))

    def __repr__(self) -> str:
        return f"{self.net!r}.{type(self).__name__.strip('_').lower()}"

    def __reduce__(self) -> tuple:
        return getattr, (self.net, type(self).__name__.strip("_").lower())


class _Apply(_Init):
    """`net.apply`."""

    def __init__(self, net: Net):
        super().__init__(net)
        self.__name__ = f"{net.name}_apply"

    def __call__(
        self, params: Any, *inputs: Any, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> Any:
        net = self.net
        state = {}
        if net.core.stateful:
            if not inputs:
                raise TypeError(f"{net!r}: expected apply(params, state, *inputs), got params alone")
            state, inputs = inputs[0], inputs[1:]
        if key is not None:
            _check_key(net, key)
        if not isinstance(train, bool):
            raise TypeError(
                f"{net!r}: expected train to be True or False while tracing, got {train!r}. "
                "Fix it with functools.partial, or name it in static_argnames of jax.jit."
            )
        options = Options(key, train, keywords)
        outputs, state = with_root(net, lambda: run(net, params, state, inputs, options))
        return (outputs, state) if net.core.stateful else outputs


def _settle(net: Net, core: Core, call: Call | None, name: str = "") -> None:
    fields = {"core": core, "call": call, "name": name or (call.name if call else "net")}
    for field, value in fields.items():
        object.__setattr__(net, field, value)
    object.__setattr__(net, "init", _Init(net))
    object.__setattr__(net, "apply", _Apply(net))


def _leaf(init: Callable[..., Any] | None, apply: Callable[..., Any], stateful: bool) -> Core:
    """The core of a layer written as two functions."""
    names, open_ended = declared(apply)
    signature = inspect.signature(apply)

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        keywords = keywords_for(apply, names if not open_ended else names | {"key", "train"}, options)
        args = (params, state, *inputs) if stateful else (params, *inputs)
        bound_to(signature, 1 + stateful, args, keywords)
        result = apply(*args, **keywords)
        if not stateful:
            return result, state
        if not isinstance(result, tuple) or len(result) != 2:
            raise NetError("apply to return (outputs, state)", f"{type(result).__name__}")
        return result

    def core_init(inputs: tuple, options: Options) -> Callable[[jax.Array], tuple[Any, Any]]:
        if init is None:
            return lambda key: ({}, {})
        accepted = _accepted(init, struct(inputs))
        keywords = {name: value for name, value in options.keywords.items() if name in declared(init)[0]}
        made = functools.partial(_call_init, init, accepted, struct(keywords))
        return made if stateful else lambda key: (made(key), {})

    return Core(core_apply, core_init, None, init is not None, stateful, open_ended or "key" in names)


def _call_init(init: Callable[..., Any], inputs: tuple, keywords: dict[str, Any], key: jax.Array) -> Any:
    bound_to(inspect.signature(init), 1, (key, *inputs), keywords)
    return init(key, *inputs, **keywords)


def _accepted(init: Callable[..., Any], inputs: tuple) -> tuple:
    """As many of the inputs as `init` looks at: the later ones of `apply` may not matter to it."""
    kinds = [p.kind for p in inspect.signature(init).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return inputs
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inputs[: sum(kind in positional for kind in kinds) - 1]


def _builder(net: Net, inputs: tuple, options: Options) -> Callable[[jax.Array], tuple[Any, Any]]:
    if net.core.init is not None:
        return net.core.init(inputs, options)
    return plan(net, inputs, options).build


def _trace_leaf(net: Net, inputs: tuple, options: Options) -> tuple[Any, Plan]:
    assert net.core.init is not None
    build = net.core.init(inputs, options)
    params, state = jax.eval_shape(build, _abstract_key())
    outputs, _ = net.core.apply(stand_in(params), stand_in(state), inputs, options)
    return outputs, Plan(net, build, params, state, struct(inputs), struct(outputs), {})


@functools.cache
def _abstract_key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _check_key(net: Net, key: Any) -> None:
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and not (dtype == jnp.uint32 and getattr(key, "ndim", 0) == 1):
        given = f"{dtype}{list(key.shape)}" if dtype is not None else repr(key)
        raise TypeError(f"{net!r}: expected a JAX random key, got {given}. Make one with jax.random.key(0).")
