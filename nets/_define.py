"""Networks of any shape: a plain function whose keyword defaults are its children."""

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import jax

from .._call import Call, find
from ._compose import compose
from ._core import Options, arrays_among, bound_to, check_inputs, keywords_for
from ._errors import NetError, shape_of
from ._net import Net, layer, net_from

Initializer = Callable[..., jax.Array]


@layer
def param(shape: tuple[int, ...], init: Initializer, *, dtype: Any = "float32") -> Any:
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

    return net_from(Net(make, apply).core._replace(is_array=True), None)


def define(body: Callable[..., Any]) -> Net:
    """A network from a plain function whose keyword defaults are its children.

    The function's positional parameters are the inputs; one that is declared as `x: jax.Array` is refused as anything
    else, with the path to here. Of its keyword-only parameters, those whose default
    is a network, or a list or dict of networks, are its children: the body calls them like functions. `key`
    and `train` are what the caller of `apply` gave. Any other must have no default or None: callers pass it
    by name, like a mask.

    `init` runs the body once on abstract values and writes down the shapes at which each child is called.
    Only shapes leave that trace, so `jax.vmap`, `jax.lax.scan`, `jax.checkpoint`, `jax.grad` and
    `jax.lax.cond` work inside a body as they are. A child called twice shares its weights. A child's
    `.params` are its own parameters, for weight tying. A child that takes a key gets one of its own at every
    call; inside a transform it is given one by `key=`. One that carries state makes the whole a `StatefulNet`. An
    update of state inside a transform is refused unless it is carried: `y, state = child(x, state=state)` inside,
    from `child.state`, and `child.keep(state)` after.

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
    for p in signature.parameters.values():
        if isinstance(p.default, Net) and p.name not in children:
            raise TypeError(f"{body.__name__}/{p.name}: expected children after the `*`, got one among the inputs")
    inputs_only = signature.replace(parameters=[p for p in signature.parameters.values() if p.name not in children])

    arrays = arrays_among(inputs_only)

    def call(bound: dict[str, Any], inputs: tuple, options: Options) -> Any:
        keywords = keywords_for(body, passed, options)
        bound_to(inputs_only, 0, inputs, keywords)
        check_inputs(arrays, inputs)
        return body(*inputs, **bound, **keywords)

    core = compose(call, children, wants_key="key" in passed, trains="train" in passed)
    net = net_from(core, _Definition(define, (body,), {}), body.__name__)
    object.__setattr__(net, "__doc__", body.__doc__)
    return net


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
