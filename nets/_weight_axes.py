"""Which axes of a weight are inputs, which are outputs, and which run over networks."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._patterns import matching
from ._check import check_size
from ._conv_transpose import conv_transpose
from ._core import Plan
from ._errors import NetError
from ._net import Net
from ._paths import join, paths_of
from ._stack import ensemble, repeat
from ._wrap import cast, frozen, remat


class Axes(NamedTuple):
    """The axes of one weight: `stacked` first, then `inputs` and `outputs`."""

    stacked: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Layout(NamedTuple):
    """Which arrays of a network are weights, and which of their axes are what.

    Attributes:
      name: who asks, as errors begin.
      patterns: paths of weights.
      num_stacked: how many leading axes run over networks.
      num_outputs: how many trailing axes are outputs.
      transposed: paths of weights that end in outputs and one axis of inputs.
    """

    name: str
    patterns: tuple[str, ...]
    num_stacked: int
    num_outputs: int
    transposed: tuple[str, ...]

    def weights(self, params: Any) -> dict[str, tuple[Any, Axes]]:
        """The arrays that match, and their axes, by path."""
        leaves = paths_of(params)
        found = sorted(matching(leaves, self.patterns, self.name))
        turned = matching(found, self.transposed, f"{self.name}, transposed")
        return {path: (leaves[path], self._axes(path, leaves[path], path in turned)) for path in found}

    def check(self, planned: Plan) -> None:
        """Refuses weights whose axes the network says to be others.

        Raises:
          NetError: with the path of the weight and the argument to pass.
        """
        weights = self.weights(planned.shapes[0])
        turned = matching(weights, self.transposed, f"{self.name}, transposed")
        check_stacked(planned, weights, self.num_stacked)
        for prefix, net, _ in _parts(planned):
            if join(prefix, "w") in weights:
                _check_kernel(net, join(prefix, "w"), join(prefix, "w") in turned)

    def _axes(self, path: str, w: Any, turned: bool) -> Axes:
        first, last = self.num_stacked, w.ndim - self.num_outputs
        if last <= first or not jnp.issubdtype(w.dtype, jnp.floating):
            stacked = f"{first} stacked axes, " if first else ""
            made = "one" if self.num_outputs == 1 else f"{self.num_outputs}"
            raise NetError(
                f"{path} to be a weight with {stacked}at least one axis of inputs, and {made} of outputs",
                f"{w.dtype} {tuple(w.shape)}",
                "Say which arrays are weights by patterns of paths.",
            )
        stacked, inputs, outputs = tuple(range(first)), tuple(range(first, last)), tuple(range(last, w.ndim))
        return Axes(stacked, (*inputs[:-1], *outputs), inputs[-1:]) if turned else Axes(stacked, inputs, outputs)


def check_stacked(planned: Plan, weights: Collection[str], num_stacked: int) -> None:
    """Refuses weights that `repeat` and `ensemble` stack deeper than is said.

    Raises:
      NetError: with the path of the first weight, and the argument to pass.
    """
    for prefix, net, depth in _parts(planned):
        inside = [path for path in weights if path.startswith(join(prefix, ""))]
        if depth > num_stacked and inside:
            raise NetError(
                f"{inside[0]} to have {num_stacked} stacked axes",
                f"{depth}, of {net!r}",
                f"Pass num_stacked={depth}, or choose weights outside of it by patterns of paths.",
            )


def layout_of(
    name: str, patterns: tuple[str, ...], num_stacked: int, num_outputs: int, transposed: str | Sequence[str]
) -> Layout:
    """The layout that a constructor's arguments describe.

    Raises:
      ValueError: if a number is none.
    """
    check_size(name, "num_stacked", num_stacked, at_least=0)
    check_size(name, "num_outputs", num_outputs)
    turned = (transposed,) if isinstance(transposed, str) else tuple(transposed)
    return Layout(name, patterns or ("**/w",), num_stacked, num_outputs, turned)


def _check_kernel(net: Net, path: str, turned: bool) -> None:
    """Refuses a kernel of `conv_transpose` that is not said to be transposed, or whose groups share outputs."""
    if net.call is None or net.call.function is not conv_transpose or not net.call.kwargs.get("transpose_kernel", True):
        return
    grouped = net.call.kwargs.get("groups", 1) > 1
    if grouped or not turned:
        remedy = "For groups," if grouped else f"Pass transposed={path!r}, or"
        raise NetError(
            f"{path} to end in the axes of inputs and outputs",
            f"a kernel of {net!r}, which ends in those of outputs and inputs",
            f"{remedy} build the layer with transpose_kernel=False.",
        )


def _parts(planned: Plan, path: str = "", depth: int = 0) -> Iterator[tuple[str, Net, int]]:
    """Every network inside, with its path, and how many axes of `repeat` and `ensemble` its parameters have."""
    for net in _same_paths(planned.net):
        depth += net.call is not None and net.call.function in (repeat, ensemble)
        yield path, net, depth
    for name, child in planned.children.items():
        yield from _parts(child, join(path, name), depth)


def _same_paths(net: Net | None) -> Iterator[Net]:
    """A network and those inside of it whose parameters have the same paths."""
    if net is None or net.call is None:
        return
    yield net
    wraps = net.call.function in (repeat, ensemble, remat, cast, frozen) or net.call.name == "spectral_norm"
    yield from _same_paths(net.call.args[0] if wraps else net.inner)
