"""Linear maps of several axes and of two inputs, and tied weights."""

import jax

from renga import nets

from ..kit import Case, floats, integers


@nets.define
def language_model(ids, *, tokens=nets.embed(5, 4), hidden=nets.linear(4)):
    """Its output layer is its embedding."""
    h = hidden(tokens(ids))
    return nets.attend(tokens.params, h)  # pyright: ignore[reportAttributeAccessIssue]


@nets.define
def scored(x: jax.Array, *, tokens=nets.embed(5, 3)):
    """Vectors against the rows of a table."""
    tokens(x[..., 0].astype("int32"))
    return nets.attend(tokens.params, x)  # pyright: ignore[reportAttributeAccessIssue]


CASES: dict[str, Case] = {
    "linear_general": Case(lambda: nets.linear_general(3), floats(4, 5)),
    "linear_general to two axes": Case(lambda: nets.linear_general([3, 2]), floats(4, 5), long=True),
    "linear_general of two axes": Case(lambda: nets.linear_general((2, 3), num_axes=2), floats(2, 3, 5), long=True),
    "linear_general without bias": Case(
        lambda: nets.linear_general(3, num_axes=3, bias=False), floats(2, 3, 2, 2), long=True
    ),
    "einsum into heads": Case(lambda: nets.einsum("...d,dhk->...hk", h=2, k=3), floats(4, 5)),
    "einsum with a bias": Case(
        lambda: nets.einsum("...d,dhk->...hk", bias_axes="k", h=2, k=3), floats(2, 3, 5), long=True
    ),
    "einsum by group": Case(lambda: nets.einsum("...gd,gdo->...go", bias_axes="go", o=4), floats(4, 2, 3), long=True),
    "einsum over positions": Case(
        lambda: nets.einsum("...td,ts->...sd", bias_axes="s", s=2), floats(4, 3, 5), long=True
    ),
    "bilinear": Case(lambda: nets.bilinear(3), floats(4, 5) + floats(4, 2)),
    "bilinear without bias": Case(lambda: nets.bilinear(3, bias=False), floats(2, 3, 5) + floats(2, 3, 2), long=True),
    "attend": Case(lambda: language_model, integers(4, 3)),
    "attend to floats": Case(lambda: scored, floats(4, 3), long=True),
}  # fmt: skip
