"""What a network is: two pure functions, and the call that made them."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

import jax
import jax.numpy as jnp

from .._call import Call, Recorded, recording
from ._core import Core, Options, builder, leaf, naming, run
from ._errors import NetError

Constructor = TypeVar("Constructor", bound=Callable[..., Any])


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
    inner: "Net | None"  # what a function marked `layer` returned, if that was a call too: `tower()`, `repeat(..., 3)`

    def __init__(self, init: Callable[..., Any] | None, apply: Callable[..., Any]):
        _settle(self, leaf(init, apply, stateful=False), Call(type(self), (init, apply), {}))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r}: a network is a value and cannot be changed; build another one")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def __call__(self, *inputs: Any, key: jax.Array | None = None, train: bool | None = None, **keywords: Any) -> Any:
        """Applies a network without parameters, as a function.

        Raises:
          NetError: if the network has parameters or state; or if it takes a key, and `train` is not given: a body's own
            `key` and `train` reach children alone.
        """
        if self.core.has_params or self.core.stateful:
            error = NetError(
                "a network without parameters to be called like a function",
                "one that has them",
                "Use net.apply(params, x), or make it a child of a `define`d network.",
            )
            error.net = self
            raise error
        if self.core.wants_key and train is None:
            error = NetError(
                "train=, and key= to train, where a network that takes a key is called like a function",
                "neither: only children of a `define`d network are handed those of the whole",
                "Make it a child, or pass both.",
            )
            error.net = self
            raise error
        return self.apply({}, *inputs, key=key, train=bool(train), **keywords)

    @property
    def params(self) -> Any:
        """A child's own parameters, in the body of a `define`d network; a network by itself holds none."""
        raise AttributeError(f"{self!r}: a network holds no parameters; those of a child are seen in the body it is in")

    @property
    def state(self) -> Any:
        """A child's own state, in the body of a `define`d network; a network by itself holds none."""
        raise AttributeError(f"{self!r}: a network holds no state; that of a child is seen in the body it is in")

    def keep(self, state: Any) -> None:
        """Makes a state that was carried through a transform a child's own, in the body of a `define`d network."""
        raise AttributeError(f"{self!r}: a network holds no state; that of a child is kept in the body it is in")


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
        _settle(self, leaf(init, apply, stateful=True), Call(type(self), (init, apply), {}))


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
        return net_from(net.core, call, inner=net)

    return recording(constructor, wrap)


def net_from(core: Core, call: Call | None, name: str = "", inner: Net | None = None) -> Net:
    """A network of the kind that `core` needs."""
    net = object.__new__(StatefulNet if core.stateful else Net)
    _settle(net, core, call, name, inner if inner is not None and inner.call is not None else None)
    return net


class _Init:
    """`net.init`: equal for equal networks, so that `jax.jit(net.init)` is found again in jit's cache."""

    def __init__(self, net: Net):
        self.net = net
        self.__name__ = f"{net.name}_init"

    def __call__(self, key: jax.Array, *inputs: Any, **keywords: Any) -> Any:
        net = self.net
        _check_key(net, key)
        with naming(net, root=True):
            params, state = builder(net, inputs, Options(keywords=keywords))(key)
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
        with naming(net, root=True):
            outputs, state = run(net, params, state, inputs, options)
        return (outputs, state) if net.core.stateful else outputs


def _settle(net: Net, core: Core, call: Call | None, name: str = "", inner: Net | None = None) -> None:
    fields = {"core": core, "call": call, "name": name or (call.name if call else "net"), "inner": inner}
    for field, value in fields.items():
        object.__setattr__(net, field, value)
    object.__setattr__(net, "init", _Init(net))
    object.__setattr__(net, "apply", _Apply(net))


def _check_key(net: Net, key: Any) -> None:
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    axes = (1 if dtype == jnp.uint32 else -1) if not typed else 0
    if getattr(key, "ndim", None) != axes:
        given = f"{dtype}{list(key.shape)}" if dtype is not None else repr(key)
        remedy = "Map over several with jax.vmap." if typed else "Make one with jax.random.key(0)."
        raise TypeError(f"{net!r}: expected a JAX random key, got {given}. {remedy}")
