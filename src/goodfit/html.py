"""Small plain tables for notebooks: no style, no script, every cell escaped."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["table"]


def table(rows: Iterable[Sequence[str]], titles: Sequence[str] = (), caption: str = "") -> str:
    """Return an HTML table whose rows each begin with a heading of their own, under `titles` if there are any."""
    head = f"<thead><tr>{''.join(f'<th>{_text(title)}</th>' for title in titles)}</tr></thead>" if titles else ""
    body = "".join(
        f'<tr><th style="text-align: left">{_text(first)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # The class is pandas' own: notebooks draw it as they draw data frames.
    line = f"<p>{_text(caption)}</p>" if caption else ""
    return f'<div>{line}<table class="dataframe">{head}<tbody>{body}</tbody></table></div>'


def _text(text: str) -> str:
    """Return text as HTML shows it; what is no text, such as a file name of other bytes, is written as an escape."""
    return escape(text.encode("utf-8", "backslashreplace").decode())
