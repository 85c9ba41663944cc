"""What a chain holds and costs, link by link."""

import functools
import math
from collections import Counter
from typing import Any, NamedTuple

import jax
import optax

from .._call import Call
from ._evaluations import GRADIENT, PRODUCT, Cost, counted, losses, oracles
from ._link import Link, check_link
from ._recorded import arguments_of, call_with


class Row(NamedTuple):
    """A link of a `Description`, with all that it holds.

    Attributes:
      link: the call that made it.
      depth: how many links hold it.
      state: numbers in its state by dtype.
      bytes: of its state.
      gradients: evaluations of the gradient in a step, beside the one at the parameters.
      products: products of the gradient's Jacobian, or its transpose, with a vector in a step.
    """

    link: str
    depth: int
    state: dict[str, int]
    bytes: int
    gradients: Cost
    products: Cost


class Description(NamedTuple):
    """What `describe` found. Printed, it is a table.

    Attributes:
      rows: of the chain and of every link in it, each below the one that holds it.
      num_params: numbers in the parameters.
    """

    rows: tuple[Row, ...]
    num_params: int

    def __str__(self) -> str:
        head = ("link", "state", "bytes", "per param", "gradients", "products")
        cells = [_cells(row, self.num_params) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        sides = (str.ljust, str.ljust, str.rjust, str.rjust, str.rjust, str.rjust)

        def line(words: tuple[str, ...]) -> str:
            return "  ".join(side(word, width) for side, word, width in zip(sides, words, widths, strict=True)).rstrip()

        return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, cells)])


def describe(tx: optax.GradientTransformation, params: Any) -> Description:
    """What each link of a chain holds for some parameters, and what it evaluates in a step. Nothing is computed.

    Evaluations are counted in the traced update. Those of a link that looks elsewhere only in one of `every` steps are
    counted by their share; those in a loop, such as a solver's or a line search's, by round. A product with the
    Jacobian costs about two gradients. The loss's values that a line search asks for are not counted.

    Args:
      tx: the chain. Links that Optax made, not `optim`, are part of those that hold them.
      params: the parameters, or their shapes and dtypes.
    Returns:
      A description; `print` it. Each row is for a link with all that it holds, so that the first is the total. The
      state of a link in `low_bit` is shown as the link sees it, unpacked.
    Raises:
      TypeError: if `tx` is no link.

    >>> print(describe(chain(sam(0.05), adam(1e-3)), {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}))
    link                           state                  bytes  per param  gradients  products
    -----------------------------  ---------------------  -----  ---------  ---------  --------
    chain(sam(0.05), adam(0.001))  1301 float32, 2 int32  5,212       8.02          1         0
      sam(0.05)                    1 float32, 1 int32         8       0.01          1         0
      adam(0.001)                  1300 float32, 1 int32  5,204       8.01          0         0
    """
    tx = check_link("describe", "tx", tx)
    shapes = jax.eval_shape(lambda params: params, params)
    watch = _Watch()
    watched = watch.link(tx)
    tasks = tx.holds("agreement")
    grads = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), shapes) if tasks else shapes
    counts = counted(watch.trace(watched, jax.eval_shape(watched.init, shapes), shapes, grads))
    rows = tuple(spy.row(counts) for spy in watch.spies)
    return Description(rows, sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)))


class _Spy:
    """Notes the state of a link where it is held."""

    def __init__(self, link: Link, depth: int, number: int):
        self.link, self.depth, self.number = link, depth, number
        self.held: list[_Spy] = []
        self.state: Any = ()

    def row(self, counts: dict[str, Cost]) -> Row:
        """What was seen."""
        leaves, sizes = jax.tree.leaves(self.state), Counter[str]()
        for leaf in leaves:
            sizes[str(leaf.dtype)] += leaf.size
        num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        return Row(
            repr(self.link) if self.link.call else "a link of Optax",
            self.depth,
            dict(sorted(sizes.items())),
            num_bytes,
            self.total(counts, GRADIENT),
            self.total(counts, PRODUCT),
        )

    def total(self, counts: dict[str, Cost], what: str) -> Cost:
        """Its own evaluations and those of the links that it holds."""
        own, every = counts.get(f"{what}{self.number}", Cost()), _every(self.link)
        if every > 1:
            own = Cost(own.always + own.sometimes / every, 0, own.rounds)
        return sum((spy.total(counts, what) for spy in self.held), start=own)


class _Watch:
    """Puts spies around links, and oracles that leave a trace in their place of the real ones.

    Attributes:
      spies: one for each link, each before those that it holds.
      players: whether losses are those of players.
    """

    def __init__(self):
        self.spies: list[_Spy] = []
        self.players = False

    def link(self, link: Link, depth: int = 0) -> Link:
        """The link made again, watched, and whatever it holds as well."""
        spy = _Spy(link, depth, len(self.spies))
        self.spies.append(spy)
        if link.call is None:
            return self._watched(link, spy)

        def inside(value: Any) -> Any:
            if isinstance(value, Link):
                number = len(self.spies)
                made = self.link(value, depth + 1)
                spy.held.append(self.spies[number])
                return made
            if type(value) in (list, tuple):
                return type(value)(map(inside, value))
            return {name: inside(item) for name, item in value.items()} if type(value) is dict else value

        given = {name: inside(item) for name, item in arguments_of(link.call, defaults=False).items()}
        return self._watched(call_with(link.call.function, given) if spy.held else link, spy)

    def _watched(self, link: Link, spy: _Spy) -> Link:
        def init(params: Any) -> Any:
            state = link.init(params)
            spy.state = jax.eval_shape(lambda: state)
            return state

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            own = oracles(spy.number, players=self.players)
            extra |= {name: own[name] for name in own if extra.get(name) is not None}
            return link.update(updates, state, params, **extra)

        def looking(updates: Any, state: Any, params: Any = None, *, grad_fn: Any = None, **extra: Any) -> Any:
            return update(updates, state, params, grad_fn=grad_fn, **extra)

        watched = Link(init, looking if link.evaluates_gradient else update)
        if link.call is not None:  # a link that makes what it holds again finds it watched again
            function = link.call.function
            again = functools.wraps(function)(lambda *args, **kwargs: self._watched(function(*args, **kwargs), spy))
            watched.call = Call(again, link.call.args, link.call.kwargs, link.call.home)
        return watched

    def trace(self, watched: Link, state: Any, shapes: Any, grads: Any) -> Any:
        """The program of an update: with one loss, and if links refuse that, with one for each player."""

        def update(updates: Any, state: Any, params: Any) -> Any:
            value = losses(params, 0.0, players=self.players)
            return watched.update(
                updates, state, params, value=value, grad=updates, **oracles(-1, players=self.players)
            )

        try:
            return jax.make_jaxpr(update)(grads, state, shapes).jaxpr
        except (TypeError, ValueError):
            if not isinstance(shapes, dict):
                raise
            self.players = True
            return jax.make_jaxpr(update)(grads, state, shapes).jaxpr


def _every(link: Link) -> int:
    """In how many steps a link looks elsewhere once."""
    given = arguments_of(link.call, defaults=True) if link.call else {}
    return given["every"] if isinstance(given.get("every"), int) else 1


def _cells(row: Row, num_params: int) -> tuple[str, ...]:
    state = ", ".join(f"{size} {dtype}" for dtype, size in row.state.items()) or "-"
    words = "  " * row.depth + row.link
    return (
        words if len(words) <= _WIDTH else f"{words[: _WIDTH - 3]}...",
        state,
        f"{row.bytes:,}",
        f"{row.bytes / max(num_params, 1):.2f}",
        str(row.gradients),
        str(row.products),
    )


_WIDTH = 56
