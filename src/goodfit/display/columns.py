"""Aligned columns in which nothing is cut: a path or name that is too long has its line to itself."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from goodfit.display.text import printable

__all__ = ["Column", "lay_out", "wrap"]

GAP = 2
LEAST_PROSE = 12


@dataclass(frozen=True)
class Column:
    """How a column is shown.

    A flexible one gives way where the table is too wide: the rest of a row then goes on below a longer cell. One that
    wraps, which has to be the last, breaks its prose between words.
    """

    title: str
    right: bool = False
    flexible: bool = False
    wraps: bool = False
    style: str = ""


def lay_out(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    indent: int = 0,
    titles: bool = True,
    gap: int = GAP,
) -> list[Text]:
    """Return the lines of a table that is at most `width` wide, if its longest cells allow that."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells, width - indent, gap, titles)
    lines = []
    if titles:
        heads = [Column(column.title, column.right, style="dim") for column in columns]
        lines += _row(heads, widths, [column.title for column in columns], width, indent, gap)
    for row in cells:
        lines += _row(columns, widths, row, width, indent, gap)
    return lines


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, gap: int, titles: bool) -> list[int]:
    heads = [cell_len(column.title) if titles else 0 for column in columns]
    widths = [max([head, *(cell_len(row[index]) for row in rows)]) for index, head in enumerate(heads)]
    excess = sum(widths) + gap * (len(widths) - 1) - width
    for index, column in enumerate(columns):
        if column.flexible and excess > 0:
            narrower = max(heads[index], widths[index] - excess)
            excess -= widths[index] - narrower
            widths[index] = narrower
    return widths


def _row(
    columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str], width: int, indent: int, gap: int
) -> list[Text]:
    """Return the lines of one row, without spaces at their ends."""
    lines = [Text()]
    start = indent
    for column, space, cell in zip(columns, widths, cells, strict=True):
        if lines[-1].cell_len > max(0, start - 1):
            lines.append(Text())
        if cell:
            here = start + (max(0, space - cell_len(cell)) if column.right else 0)
            parts = wrap(cell, width - here) if column.wraps else [cell]
            lines[-1].append(" " * (here - lines[-1].cell_len))
            lines[-1].append(parts[0], column.style)
            lines += [Text(" " * here).append(part, column.style) for part in parts[1:]]
        start += space + gap
    return lines


def wrap(prose: str, width: int) -> list[str]:
    """Break prose between words; a long word, such as a path, stays whole."""
    return textwrap.wrap(prose, max(LEAST_PROSE, width), break_long_words=False, break_on_hyphens=False) or [""]
