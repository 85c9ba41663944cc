"""Intermediate values: marked where they arise, and returned beside the outputs, without state."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, Literal, Primitive
from jax.interpreters import ad, batching, mlir

from .._call import recording
from .._patterns import matching
from .._programs import evaluated
from ._flops import Path, programs, scope

_CALLS = frozenset({"closed_call", "core_call", "jit", "pjit"})
_CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call"})


def tap(name: str, x: Any) -> Any:
    """Marks a value in the body of a network, or in any function, for `capture` to find; it is the identity.

    Go on with what it returns: a value that nothing uses may be gone before `capture` looks. In the backward pass of
    a `jax.grad` inside the body there are no taps.

    Args:
      name: of the value; its path is that of the network in which it stands, and this name.
      x: an array, or a tree of them, each of which is marked: `name/0` and `name/1` for a pair.
    Returns:
      `x`.

    >>> tap("hidden", jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"tap: expected a name and a value, got {name!r} for a name")

    def mark(path: Any, leaf: Any) -> jax.Array:
        inside = jax.tree_util.keystr(path, simple=True, separator="/")
        return _tap.bind(jnp.asarray(leaf), name=f"{name}/{inside}" if inside else name)

    return jax.tree.map_with_path(mark, x)


@recording
def capture(function: Callable[..., Any], *patterns: str) -> Callable[..., Any]:
    """A function that returns, beside its outputs, the values that are `tap`ped inside.

    Values keep what JAX does to them inside the function: a `vmap` gives them a leading axis, and so does a `lax.scan`,
    as in `repeat`, before all others. They have gradients as outputs do, except inside a function that has derivatives
    of its own (`jax.custom_jvp`, `jax.custom_vjp`), where they are constants.

    Args:
      function: such as `net.apply`.
      *patterns: of paths to be captured, as for `mask_params`; all unless given.
    Returns:
      A function of the same arguments that returns `(outputs, {path: value})`; as pure as `function`.
    Raises:
      ValueError: when called, for a pattern that matches no tap; for two taps under one path, as in a child that is
        called twice; for a tap that has no value of known shape to return: inside `lax.while_loop`, or in some branches
        of `lax.cond` alone.

    >>> @define
    ... def block(x, *, up=linear(8), down=linear(4)):
    ...     return x + down(tap("hidden", jax.nn.relu(up(x))))
    >>> net = serial(linear(4), repeat(block, 3))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> outputs, values = capture(net.apply)(params, jnp.ones((2, 4)))
    >>> {path: value.shape for path, value in values.items()}
    {'repeat/hidden': (3, 2, 8)}
    """

    def captured(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, jax.Array]]:
        leaves, structure = jax.tree.flatten((args, kwargs))
        arrays = {place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)}

        def of_arrays(arrays: dict[int, jax.Array]) -> Any:
            args, kwargs = jax.tree.unflatten(structure, [arrays.get(i, leaf) for i, leaf in enumerate(leaves)])
            return function(*args, **kwargs)

        program, shapes = jax.make_jaxpr(of_arrays, return_shape=True)(arrays)
        reader = _Reader(_chosen(program.jaxpr, patterns))
        outputs, values = reader.run(program.jaxpr, program.consts, [arrays[place] for place in sorted(arrays)], ())
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs), values

    return captured


def _chosen(jaxpr: Jaxpr, patterns: tuple[str, ...]) -> set[str]:
    """The paths to be captured, each of which is tapped once."""
    found = _taps(jaxpr, ())
    chosen = matching(found, patterns, "capture") if patterns else set(found)
    if twice := [path for path in found if path in chosen and found[path] > 1]:
        raise ValueError(
            f"capture: expected one tap of each path, got {found[twice[0]]} of {twice[0]!r}. "
            "Give each a name of its own, or call a child that is called twice inside jax.named_scope."
        )
    return chosen


def _taps(jaxpr: Jaxpr, path: Path) -> Counter[str]:
    """How often each path is tapped in a program; branches of which one is taken count once."""
    found = Counter[str]()
    for eqn in jaxpr.eqns:
        here = path + scope(eqn)
        if eqn.primitive is _tap:
            found["/".join((*here, eqn.params["name"]))] += 1
        inside = [_taps(program, here) for program in _forward(eqn)]
        for taps in inside:
            found = found | taps if eqn.primitive.name == "cond" else found + taps
    return found


def _forward(eqn: Any) -> list[Jaxpr]:
    """The programs inside an equation, unless it computes again what the forward pass has computed."""
    return [] if eqn.params.get("differentiated") else programs(eqn)


class _Reader:
    """Runs a program, and collects the values of chosen taps.

    Args:
      chosen: the paths.
      marks: whether values stay marked, for a `capture` around this one.
    """

    def __init__(self, chosen: set[str], marks: bool = True):
        self.chosen, self.marks = chosen, marks

    def run(self, jaxpr: Jaxpr, consts: Any, args: Any, path: Path) -> tuple[list[Any], dict[str, Any]]:
        """`(outputs, values by path)`."""
        values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
        found: dict[str, Any] = {}

        def read(variable: Any) -> Any:
            return variable.val if isinstance(variable, Literal) else values[variable]

        for eqn in jaxpr.eqns:
            args, here = [read(variable) for variable in eqn.invars], path + scope(eqn)
            inside = [set(_taps(program, here)) & self.chosen for program in _forward(eqn)]
            if eqn.primitive is _tap or any(inside):
                with jax.named_scope("/".join(scope(eqn))):
                    outputs, taps = self._tapped(eqn, args, here, inside)
                found |= taps
            else:
                outputs = evaluated(jaxpr, eqn, args)
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [read(variable) for variable in jaxpr.outvars], found

    def _tapped(
        self, eqn: Any, args: list[Any], path: Path, inside: list[set[str]]
    ) -> tuple[list[Any], dict[str, Any]]:
        """An equation that is a tap, or has some inside."""
        name, params = eqn.primitive.name, eqn.params
        if eqn.primitive is _tap:
            x = _tap.bind(*args, **params) if self.marks else args[0]
            place = "/".join((*path, params["name"]))
            return [x], {place: x} if place in self.chosen else {}
        if name in _CALLS:
            body = params["jaxpr"]
            return self.run(body.jaxpr, body.consts, args, path)
        if name in _CUSTOM:
            body, constants = params["call_jaxpr"], [lax.stop_gradient(arg) for arg in args]
            _, values = _Reader(self.chosen, False).run(body.jaxpr, body.consts, constants, path)
            return evaluated(body.jaxpr, eqn, args), values
        if name in ("checkpoint", "remat", "remat2"):
            options = {option: params[option] for option in ("prevent_cse", "policy")}
            return jax.checkpoint(lambda *args: self.run(params["jaxpr"], (), args, path), **options)(*args)
        if name == "scan":
            return self._scan(params, args, path)
        if name == "cond":
            return self._cond(params["branches"], inside, args, path)
        raise ValueError(
            f"capture: expected taps whose values have a known shape, got {sorted(set().union(*inside))} in a {name}. "
            "Return them from there as outputs, or use lax.scan."
        )

    def _scan(self, params: dict[str, Any], args: list[Any], path: Path) -> tuple[list[Any], dict[str, Any]]:
        num_consts, num_carry, body = params["num_consts"], params["num_carry"], params["jaxpr"]
        consts, carry, xs = args[:num_consts], args[num_consts:][:num_carry], args[num_consts + num_carry :]

        def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], Any]:
            outputs, values = self.run(body.jaxpr, body.consts, [*consts, *carry, *xs], path)
            return outputs[:num_carry], (outputs[num_carry:], values)

        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, (ys, values) = lax.scan(step, carry, xs, **options)
        return [*carry, *ys], values

    def _cond(self, branches: Any, inside: list[set[str]], args: list[Any], path: Path) -> Any:
        if any(paths != inside[0] for paths in inside):
            raise ValueError(
                f"capture: expected all branches of lax.cond to have the same taps, got {list(map(sorted, inside))}. "
                "Tap what it returns."
            )

        def branch(program: Any) -> Callable[..., Any]:
            return lambda *args: self.run(program.jaxpr, program.consts, args, path)

        index, *operands = args
        return lax.switch(index, [branch(program) for program in branches], *operands)


def _batched(args: Any, axes: Any, *, name: str) -> tuple[jax.Array, int]:
    """Rows of a `vmap` stand along the leading axis of a tapped value."""
    return _tap.bind(jnp.moveaxis(args[0], axes[0], 0), name=name), 0


_tap = Primitive("tap")
_tap.def_impl(lambda x, *, name: x)
_tap.def_abstract_eval(lambda x, *, name: x)
ad.primitive_jvps[_tap] = lambda xs, tangents, *, name: (_tap.bind(xs[0], name=name), tangents[0])
ad.primitive_transposes[_tap] = lambda cotangent, x, *, name: [cotangent]
batching.primitive_batchers[_tap] = _batched
mlir.register_lowering(_tap, lambda ctx, x, *, name: [x])
