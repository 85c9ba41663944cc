"""What linear maps of several axes and of two inputs refuse, and tied weights."""

from collections.abc import Callable
from typing import Any

from renga import nets
from renga.nets import ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

EQUATION = "...d,dhk->...hk"
general, heads, scores = nets.linear_general((4, 2), num_axes=2), nets.einsum(EQUATION, h=4, k=2), nets.bilinear(2)
exact = nets.einsum("td,td->t")
rows, blocks = zeros(4, 3), zeros(5, 3, 6)


def attending(params: Any) -> nets.Net:
    @nets.define
    def attending(x, *, head=nets.linear(3)):
        return nets.attend(params, head(x))

    return attending


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "linear_general, rank at init": (
        lambda: general.init(KEY, zeros(3)),
        ShapeError,
        "linear_general((4, 2), num_axes=2): expected an input [..., in1, in2], got (3,).",
    ),
    "linear_general, an axis of 0": (
        lambda: general.init(KEY, zeros(3, 0)),
        ShapeError,
        "linear_general((4, 2), num_axes=2): expected an input [..., in1, in2], got (3, 0).",
    ),
    "linear_general, size": (
        lambda: applied(general, (blocks,), zeros(5, 3, 7)),
        ShapeError,
        "linear_general((4, 2), num_axes=2): expected an input [..., 3, 6], got (5, 3, 7).",
    ),
    "linear_general, rank": (
        lambda: applied(general, (blocks,), zeros(6)),
        ShapeError,
        "linear_general((4, 2), num_axes=2): expected an input [..., 3, 6], got (6,).",
    ),
    "linear_general, parameters of one axis": (
        lambda: general.apply(params_of(nets.linear_general((4, 2)), rows), blocks),
        ShapeError,
        "linear_general((4, 2), num_axes=2): expected parameters w [any, any, 4, 2], b [4, 2], got {'b': (4, 2), "
        "'w': (3, 4, 2)}." + REMEDY,
    ),
    "linear_general, no features": (
        lambda: nets.linear_general(()),
        ValueError,
        "linear_general: expected features to be one size or several, got ()",
    ),
    "linear_general, features of letters": (
        lambda: nets.linear_general("ab"),  # pyright: ignore[reportArgumentType]
        ValueError,
        "linear_general: expected features to be one size or several, got 'ab'",
    ),
    "linear_general, a size of 0": (
        lambda: nets.linear_general((4, 0)),
        ValueError,
        "linear_general: expected features to be an integer of at least 1, got 0",
    ),
    "linear_general, a float": (
        lambda: nets.linear_general(2.5),  # pyright: ignore[reportArgumentType]
        ValueError,
        "linear_general: expected features to be an integer of at least 1, got 2.5",
    ),
    "linear_general, num_axes": (
        lambda: nets.linear_general(4, num_axes=0),
        ValueError,
        "linear_general: expected num_axes to be an integer of at least 1, got 0",
    ),
    "einsum, rank at init": (
        lambda: heads.init(KEY, zeros()),
        ShapeError,
        "einsum('...d,dhk->...hk', h=4, k=2): expected an input [..., d], got ().",
    ),
    "einsum, an axis of 0": (
        lambda: heads.init(KEY, zeros(4, 0)),
        ShapeError,
        "einsum('...d,dhk->...hk', h=4, k=2): expected an input [..., d] without axes of 0, got (4, 0).",
    ),
    "einsum, size": (
        lambda: applied(heads, (rows,), zeros(4, 5)),
        ShapeError,
        "einsum('...d,dhk->...hk', h=4, k=2): expected an input [..., 3], got (4, 5).",
    ),
    "einsum, rank": (
        lambda: applied(exact, (rows,), blocks),
        ShapeError,
        "einsum('td,td->t'): expected an input [4, 3], got (5, 3, 6).",
    ),
    "einsum, rank at init of an equation without dots": (
        lambda: exact.init(KEY, blocks),
        ShapeError,
        "einsum('td,td->t'): expected an input [t, d], got (5, 3, 6).",
    ),
    "einsum, parameters of other sizes": (
        lambda: heads.apply(params_of(nets.einsum(EQUATION, h=4, k=3), rows), rows),
        ShapeError,
        "einsum('...d,dhk->...hk', h=4, k=2): expected parameters w [any, 4, 2], got {'w': (3, 4, 3)}." + REMEDY,
    ),
    "einsum, parameters with a bias": (
        lambda: heads.apply(params_of(nets.einsum(EQUATION, bias_axes="k", h=4, k=2), rows), rows),
        ShapeError,
        "einsum('...d,dhk->...hk', h=4, k=2): expected parameters w [any, 4, 2], got {'b': (2,), 'w': (3, 4, 2)}."
        + REMEDY,
    ),
    "einsum, a bias of another size": (
        lambda: nets.einsum("...gd,gd->...g", bias_axes="g").apply({"w": zeros(4, 3), "b": zeros(2)}, rows),
        ShapeError,
        "einsum('...gd,gd->...g', bias_axes='g'): expected parameters w [4, 3], b [4], got {'b': (2,), 'w': (4, 3)}."
        + REMEDY,
    ),
    "einsum, no weight": (
        lambda: nets.einsum("...d->...d"),
        ValueError,
        "einsum: expected one input, one weight and one output, 'x,w->y', got '...d->...d'",
    ),
    "einsum, no output": (
        lambda: nets.einsum("...d,dh", h=3),
        ValueError,
        "einsum: expected one input, one weight and one output, 'x,w->y', got '...d,dh'",
    ),
    "einsum, two weights": (
        lambda: nets.einsum("...d,dh,hk->...k", h=3, k=2),
        ValueError,
        "einsum: expected one input, one weight and one output, 'x,w->y', got '...d,dh,hk->...k'",
    ),
    "einsum, not a string": (
        lambda: nets.einsum(3),  # pyright: ignore[reportArgumentType]
        ValueError,
        "einsum: expected one input, one weight and one output, 'x,w->y', got 3",
    ),
    "einsum, an axis twice": (
        lambda: nets.einsum("...dd,dh->...h", h=3),
        ValueError,
        "einsum: expected axes to be letters, each once, and '...' in the input and the output only, got '...dd' in "
        "'...dd,dh->...h'",
    ),
    "einsum, dots in the weight": (
        lambda: nets.einsum("...d,...dh->...h", h=3),
        ValueError,
        "einsum: expected axes to be letters, each once, and '...' in the input and the output only, got '...dh' in "
        "'...d,...dh->...h'",
    ),
    "einsum, a number": (
        lambda: nets.einsum("...d,d2->...2"),
        ValueError,
        "einsum: expected axes to be letters, each once, and '...' in the input and the output only, got 'd2' in "
        "'...d,d2->...2'",
    ),
    "einsum, dots in the input only": (
        lambda: nets.einsum("...d,dh->h", h=3),
        ValueError,
        "einsum: expected '...' in both the input and the output or in neither, got '...d,dh->h'",
    ),
    "einsum, an output from nowhere": (
        lambda: nets.einsum("...d,dh->...hz", h=3),
        ValueError,
        "einsum: expected axes of the output that input or weight have, got ['z']",
    ),
    "einsum, a weight summed alone": (
        lambda: nets.einsum("...d,dh->...", h=3),
        ValueError,
        "einsum: expected axes of the weight that input or output have, got ['h']",
    ),
    "einsum, a size missing": (
        lambda: nets.einsum(EQUATION, h=4),
        ValueError,
        "einsum: expected a size for each axis that the weight has and the input has not, ['h', 'k'], got {'h': 4}",
    ),
    "einsum, a size of the input": (
        lambda: nets.einsum("...d,dh->...h", h=4, d=3),
        ValueError,
        "einsum: expected a size for each axis that the weight has and the input has not, ['h'], got {'h': 4, 'd': 3}",
    ),
    "einsum, a size of 0": (
        lambda: nets.einsum("...d,dh->...h", h=0),
        ValueError,
        "einsum: expected h to be an integer of at least 1, got 0",
    ),
    "einsum, bias_axes from elsewhere": (
        lambda: nets.einsum("...d,dh->...h", bias_axes="d", h=4),
        ValueError,
        "einsum: expected bias_axes to be axes of '...h' in their order, got 'd'",
    ),
    "einsum, bias_axes in another order": (
        lambda: nets.einsum(EQUATION, bias_axes="kh", h=4, k=2),
        ValueError,
        "einsum: expected bias_axes to be axes of '...hk' in their order, got 'kh'",
    ),
    "einsum, bias_axes of no string": (
        lambda: nets.einsum("...d,dh->...h", bias_axes=True, h=4),  # pyright: ignore[reportArgumentType]
        ValueError,
        "einsum: expected bias_axes to be axes of '...h' in their order, got True",
    ),
    "bilinear, rank at init": (
        lambda: scores.init(KEY, zeros(), zeros(3)),
        ShapeError,
        "bilinear(2): expected inputs [..., in1] and [..., in2] of the same leading axes, got () and (3,).",
    ),
    "bilinear, leading axes": (
        lambda: scores.init(KEY, rows, zeros(5, 3)),
        ShapeError,
        "bilinear(2): expected inputs [..., in1] and [..., in2] of the same leading axes, got (4, 3) and (5, 3).",
    ),
    "bilinear, size": (
        lambda: applied(scores, (rows, rows), rows, zeros(4, 5)),
        ShapeError,
        "bilinear(2): expected inputs [..., 3] and [..., 3] of the same leading axes, got (4, 3) and (4, 5).",
    ),
    "bilinear, parameters": (
        lambda: scores.apply(params_of(nets.linear(2), rows), rows, rows),
        ShapeError,
        "bilinear(2): expected parameters w [any, any, 2], b [2], got {'b': (2,), 'w': (3, 2)}." + REMEDY,
    ),
    "bilinear, features": (
        lambda: nets.bilinear(0),
        ValueError,
        "bilinear: expected features to be an integer of at least 1, got 0",
    ),
    "attend, parameters of a linear": (
        lambda: applied(attending(params_of(nets.linear(2), rows)), (rows,), rows),
        ShapeError,
        "attending: expected the parameters of an embed, w [num_embeddings, features], got {'b': (2,), 'w': (3, 2)}.",
    ),
    "attend, an array": (
        lambda: attending(rows).init(KEY, rows),
        ShapeError,
        "attending: expected the parameters of an embed, w [num_embeddings, features], got (4, 3).",
    ),
    "attend, vectors of another size": (
        lambda: attending({"w": zeros(5, 4)}).init(KEY, rows),
        ShapeError,
        "attending: expected an input [..., 4], got (4, 3).",
    ),
}  # fmt: skip
