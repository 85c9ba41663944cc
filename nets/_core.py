"""What lies under every network: parameters, state, keys, shapes and errors go the same way through all."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._check import check_array, check_arrays
from ._errors import NetError


class Options(NamedTuple):
    """What an application is given beside parameters and inputs."""

    key: jax.Array | None = None
    train: bool = False
    keywords: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one abstract run of a network writes down: shapes, and how to make its parameters.

    Attributes:
      net: the network.
      build: `key -> (params, state)`.
      inputs: shapes and dtypes of what it was given first.
      outputs: shapes and dtypes of what it returned.
      children: plans of the networks that it called, by path.
    """

    net: Any
    build: Callable[[jax.Array], tuple[Any, Any]]
    inputs: Any
    outputs: Any
    children: dict[str, "Plan"]

    @functools.cached_property
    def shapes(self) -> tuple[Any, Any]:
        """Shapes and dtypes of parameters and state."""
        return jax.eval_shape(self.build, abstract_key())


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
    is_array: bool = False  # the parameters are one array, not a dict of them


def leaf(init: Callable[..., Any] | None, apply: Callable[..., Any], stateful: bool) -> Core:
    """The core of a layer written as two functions."""
    names, open_ended = declared(apply)
    signature = inspect.signature(apply)

    arrays = arrays_among(signature, 1 + stateful)

    def core_apply(params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
        keywords = keywords_for(apply, names if not open_ended else names | {"key", "train"}, options)
        args = (params, state, *inputs) if stateful else (params, *inputs)
        if init is None:
            check_arrays(params, {})
        bound_to(signature, 1 + stateful, args, keywords)
        check_inputs(arrays, inputs)
        result = apply(*args, **keywords)
        if not stateful:
            return result, state
        if not isinstance(result, tuple) or len(result) != 2:
            raise NetError("apply to return (outputs, state)", f"{type(result).__name__}")
        return result

    def core_init(inputs: tuple, options: Options) -> Callable[[jax.Array], tuple[Any, Any]]:
        skip = 1 + stateful
        bound_to(signature, skip, (None,) * skip + inputs, dict(options.keywords), partial=True)
        check_inputs(arrays, inputs)
        if init is None:
            return lambda key: ({}, {})
        accepted = _accepted(init, struct(inputs))
        keywords = {
            name: struct(value) if holds_arrays(value) else value
            for name, value in options.keywords.items()
            if name in declared(init)[0]
        }
        made = functools.partial(_call_init, init, accepted, keywords)
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


def run(net: Any, params: Any, state: Any, inputs: tuple, options: Options) -> tuple[Any, Any]:
    """Applies any network to explicit parameters and state: `(outputs, state)`."""
    with naming(net):
        return net.core.apply(params, state, inputs, options)


def trace(net: Any, inputs: tuple, options: Options) -> tuple[Any, Plan]:
    """Runs any network on abstract values inside a trace, and writes down what it sees."""
    with naming(net):
        if net.core.trace is not None:
            outputs, build, children = net.core.trace(inputs, options)
            return outputs, Plan(net, build, struct(inputs), struct(outputs), children)
        planned = Plan(net, net.core.init(inputs, options), struct(inputs), None, {})
        outputs, _ = net.core.apply(*stand_in(planned.shapes), inputs, options)
        return outputs, dataclasses.replace(planned, outputs=struct(outputs))


def plan(net: Any, inputs: tuple, options: Options) -> Plan:
    """The plan of a network for inputs of these shapes; nothing is computed."""
    noted: list[Plan] = []
    keywords = {name: struct(value) if holds_arrays(value) else value for name, value in options.keywords.items()}
    leaves, structure = jax.tree.flatten((inputs, keywords))

    def note(arrays: list) -> None:
        every = [leaf if array is None else array for leaf, array in zip(leaves, arrays, strict=True)]
        inputs, keywords = jax.tree.unflatten(structure, every)
        noted.append(trace(net, inputs, options._replace(keywords=keywords))[1])

    with naming(net, root=True):
        jax.eval_shape(note, [struct(leaf) if _is_array(leaf) else None for leaf in leaves])
    return noted[0]


def builder(net: Any, inputs: tuple, options: Options) -> Callable[[jax.Array], tuple[Any, Any]]:
    """How to make a network's parameters and state, `key -> (params, state)`, for inputs of these shapes."""
    if net.core.init is not None:
        return net.core.init(inputs, options)
    return plan(net, inputs, options).build


@contextlib.contextmanager
def naming(net: Any, *, root: bool = False) -> Iterator[None]:
    """Names the network that raises an error; at the root, also where the error's path begins."""
    try:
        yield
    except NetError as error:
        error.net = error.net or net
        if root:
            error.root = net.name
        raise


@contextlib.contextmanager
def within(net: Any, *path: str) -> Iterator[None]:
    """Names the part of a network that runs here: in errors, in summaries and in profiles."""
    try:
        with jax.named_scope("/".join(path)):
            yield
    except NetError as error:
        error.net = error.net or net
        error.path = path + error.path
        raise


def struct(tree: Any) -> Any:
    """Shapes and dtypes of a pytree of arrays, numbers or `jax.ShapeDtypeStruct`s; flags and words stay."""

    def of(leaf: Any) -> Any:
        if not _is_array(leaf):
            if isinstance(leaf, bool) or not isinstance(leaf, int | float | complex):
                return leaf
            leaf = jnp.asarray(leaf)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree.map(of, tree)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def holds_arrays(keyword: Any) -> bool:
    """Whether a keyword's value is traced: a flag or a word is not."""
    return any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(keyword))


def stand_in(tree: Any) -> Any:
    """Arrays of the given shapes and dtypes, for use inside an abstract trace."""

    def make(leaf: Any) -> Any:
        if not _is_array(leaf):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(make, tree)


def declared(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """The keyword-only arguments of a function, and whether it takes any other."""
    kinds = inspect.signature(function).parameters.values()
    return {p.name for p in kinds if p.kind is p.KEYWORD_ONLY}, any(p.kind is p.VAR_KEYWORD for p in kinds)


def keywords_for(function: Callable[..., Any], names: set[str], options: Options) -> dict[str, Any]:
    """The keyword arguments that a body or an `apply` with these keyword-only names is to be given."""
    given = {"key": options.key, "train": options.train}
    return {name: value for name, value in given.items() if name in names} | dict(options.keywords)


def bound_to(
    signature: inspect.Signature, skip: int, args: tuple, keywords: dict[str, Any], *, partial: bool = False
) -> None:
    """Refuses arguments that a function does not take.

    Args:
      signature: the function's.
      skip: how many of its first parameters are not inputs.
      args: all positional arguments.
      keywords: all keyword arguments.
      partial: whether some may be missing.
    Raises:
      NetError: if they do not fit, with the names of the inputs that are taken.
    """
    try:
        (signature.bind_partial if partial else signature.bind)(*args, **keywords)
    except TypeError as error:
        parameters = list(signature.parameters.values())[skip:]
        taken = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters if p.name not in ("key", "train"))
        raise NetError(f"inputs ({taken})", f"{len(args) - skip} inputs: {error}") from None


def arrays_among(signature: inspect.Signature, skip: int = 0) -> tuple[tuple[str, bool] | None, ...]:
    """The inputs that a function declares as `x: jax.Array`, with whether None may stand for them; None for others."""
    positional = [p for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][skip:]
    optional = {jax.Array: False, jax.Array | None: True}
    return tuple(
        (p.name, optional[p.annotation] or p.default is None) if p.annotation in optional else None for p in positional
    )


def check_inputs(arrays: tuple[tuple[str, bool] | None, ...], inputs: tuple) -> None:
    """Refuses an input that is declared as one array and is something else.

    Raises:
      ShapeError: with its name and what was given.
    """
    for wanted, given in zip(arrays, inputs, strict=False):
        if wanted is not None and not (wanted[1] and given is None):
            check_array(wanted[0], given)


@functools.cache
def abstract_key() -> jax.ShapeDtypeStruct:
    """The shape and dtype of a key."""
    return jax.eval_shape(lambda: jax.random.key(0))
