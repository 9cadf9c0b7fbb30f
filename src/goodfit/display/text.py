"""Numbers, times and names as a person reads them."""

from collections.abc import Iterable
from math import floor, isfinite, log10

__all__ = ["count", "duration", "flops", "loss_number", "number", "percent", "printable", "shape"]


def count(n: int, noun: str = "") -> str:
    """Return a whole number with thousands separators, and the noun, where given, in its singular or plural."""
    if not noun:
        return f"{n:,}"
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def percent(share: float) -> str:
    """Return a share between 0 and 1 as a percentage with one decimal."""
    return f"{share:.1%}"


def number(value: float, digits: int = 4) -> str:
    """Return a measured number with that many significant digits, and thousands separators."""
    if not isfinite(value) or value == 0:
        return f"{value:g}"
    size = floor(log10(abs(value)))
    if -5 < size < 12:
        return f"{value:,.{max(0, digits - 1 - size)}f}"
    return f"{value:.{digits - 1}e}"


def loss_number(value: float) -> str:
    """Return a loss with four decimals, so that those of many epochs align; large ones shorter."""
    return f"{value:.4f}" if abs(value) < 1000 else number(value)


def duration(seconds: float) -> str:
    """Return a time span: "4.2 s", "12 s", "3 min 05 s", "1 h 02 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def flops(n: int) -> str:
    """Return a number of floating-point operations: "2.3 MFLOPs"."""
    value, prefixes = float(n), iter(("", "k", "M", "G", "T"))
    prefix = next(prefixes)
    while value >= 999.5 and prefix != "T":
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}FLOPs"


def shape(sizes: Iterable[int]) -> str:
    """Return the sizes of a tensor: "3×32×32"."""
    return "×".join(str(size) for size in sizes)


def printable(text: str) -> str:
    """Return `text` with what would move the cursor, or cannot be encoded, written as an escape."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
