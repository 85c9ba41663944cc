"""Tables of words: as text, and for rich."""

from collections.abc import Collection, Sequence
from typing import Any

Cells = Sequence[str]


def text(head: Cells, rows: Sequence[Cells], foot: Cells | None = None, right: Collection[str] = ()) -> str:
    """A table in plain text.

    Args:
      head: names of the columns.
      rows: cells of each row.
      foot: a last row, under a ruler.
      right: names of the columns that are set to the right.
    """
    lines = [head, *rows, *([] if foot is None else [foot])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def line(cells: Cells) -> str:
        set_to = (str.rjust if name in right else str.ljust for name in head)
        return "  ".join(side(cell, width) for side, cell, width in zip(set_to, cells, widths, strict=True)).rstrip()

    ruler = "  ".join("-" * width for width in widths)
    return "\n".join([line(head), ruler, *map(line, rows), *([] if foot is None else [ruler, line(foot)])])


def rich(head: Cells, rows: Sequence[Cells], foot: Cells | None = None, right: Collection[str] = ()) -> Any:
    """The same as a `rich.table.Table`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_footer=foot is not None, header_style="bold", footer_style="bold")
    for column, name in enumerate(head):
        justify = "right" if name in right else "left"
        table.add_column(name, foot[column] if foot else "", justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def shortened(words: str, width: int = 48) -> str:
    """Words cut to a width."""
    return words if len(words) <= width else f"{words[: width - 3]}..."
