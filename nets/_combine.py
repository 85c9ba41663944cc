"""Networks from networks: one after another, side by side, around a shortcut."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .._call import Call, Recorded
from .._names import numbered
from ._compose import compose
from ._core import Core, Options, struct
from ._errors import NetError, ShapeError, shape_of
from ._net import Net, layer, net_from

Layer = Net | Callable[..., Any]


@layer
def serial(*layers: Layer, **named_layers: Layer) -> Net:
    """Applies networks one after another.

    Children are named after their layer (`conv`, `conv_1`), or by the keyword they are given as. Plain
    functions are welcome. The first layer takes all inputs, every other one the output of the one before.

    Args:
      *layers: networks or functions.
      **named_layers: further ones, with their names.
    Returns:
      A net with params `{name: params}`; without layers, the identity.

    >>> net = serial(linear(8), jax.nn.relu, head=linear(3))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> sorted(params), net.apply(params, jnp.ones((2, 4))).shape
    (['head', 'linear'], (2, 3))
    """
    return net_from(_serial(name_layers(layers, named_layers)), None)


@layer
def parallel(*layers: Layer, **named_layers: Layer) -> Net:
    """Applies networks side by side, each to the same inputs.

    Args:
      *layers: networks or functions; the output is a tuple.
      **named_layers: in place of the former; the output is a dict.
    Returns:
      A net with params `{name: params}`, children named as in `serial`.
    Raises:
      TypeError: if some layers are named and some are not.

    >>> net = parallel(mean=linear(2), scale=serial(linear(2), jnp.exp))
    >>> params = net.init(jax.random.key(0), jnp.ones(3))
    >>> sorted(net.apply(params, jnp.ones(3)))
    ['mean', 'scale']
    """
    if layers and named_layers:
        raise TypeError("parallel: expected layers by position or by name, got both")
    children = name_layers(layers, named_layers)

    def body(bound: dict[str, Any], inputs: tuple, options: Options) -> Any:
        _check_positional(options)
        outputs = {name: child(*inputs) for name, child in bound.items()}
        return outputs if named_layers else tuple(outputs.values())

    return net_from(compose(body, children), None)


@layer
def residual(*layers: Layer, shortcut: Layer | None = None, **named_layers: Layer) -> Net:
    """Adds the input to what `serial(*layers)` makes of it: `x + f(x)`.

    Args:
      *layers: as for `serial`.
      shortcut: what is added in place of the input, a projection say.
      **named_layers: as for `serial`.
    Returns:
      A net with params `{name: params}`, those of a shortcut under `shortcut`.
    Raises:
      ShapeError: if the two terms differ in shape.

    >>> net = residual(layer_norm(), linear(4))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> net.apply(params, jnp.ones((2, 4))).shape
    (2, 4)
    """
    path = name_layers(layers, named_layers)
    children = path if shortcut is None else name_layers(layers, {**named_layers, "shortcut": shortcut})

    def body(bound: dict[str, Any], inputs: tuple, options: Options) -> Any:
        if not inputs:
            raise NetError("inputs (x, ...)", "0 inputs")
        out = _in_turn([bound[name] for name in path], inputs, options)
        across = bound["shortcut"](*inputs) if shortcut is not None else inputs[0]
        if jnp.shape(out) != jnp.shape(across):
            raise ShapeError(
                f"layers from {shape_of(struct(inputs[0]))} to {jnp.shape(across)}, the shape they are added to",
                str(jnp.shape(out)),
                "Give shortcut= a layer that projects the input.",
            )
        return across + out

    return net_from(compose(body, children), None)


def name_layers(layers: tuple[Layer, ...], named_layers: dict[str, Layer]) -> dict[str, Net]:
    """Children by name: after their layer, numbered from the second of a kind on, or as the caller says."""
    children: dict[str, Net] = {}
    for item in layers:
        net = as_net(item)
        children[numbered(net.name, children)] = net
    for name, item in named_layers.items():
        if name in children:
            raise TypeError(f"{name}: expected a name of its own, got that of an unnamed layer")
        children[name] = as_net(item)
    return children


def as_net(item: Layer) -> Net:
    """A network, or a function as a network without parameters."""
    if isinstance(item, Net):
        return item
    if not callable(item) or isinstance(item, Recorded):
        raise TypeError(f"expected a network or a function, got {item!r}")
    return function(item)


def function(fn: Callable[..., Any]) -> Net:
    """A function of arrays as a network without parameters.

    Args:
      fn: the function.
    Returns:
      A net that applies it.

    >>> function(jnp.tanh)(0.0).item()
    0.0
    """
    name = getattr(fn, "__name__", "function")
    core = Net(None, lambda params, *inputs: fn(*inputs)).core
    return net_from(core, Call(function, (fn,), {}), name if name.isidentifier() else "function")


def _serial(children: dict[str, Net]) -> Core:
    return compose(lambda bound, inputs, options: _in_turn(list(bound.values()), inputs, options), children)


def _check_positional(options: Options) -> None:
    if options.keywords:
        raise NetError("inputs by position", f"the keywords {list(options.keywords)}")


def _in_turn(layers: list[Callable[..., Any]], inputs: tuple, options: Options) -> Any:
    _check_positional(options)
    if not layers and not inputs:
        raise NetError("inputs (x, ...)", "0 inputs")
    for child in layers:
        inputs = (child(*inputs),)
    return inputs[0]
