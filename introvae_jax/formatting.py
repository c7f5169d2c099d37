"""Text forms of durations, numbers and tables."""

from collections.abc import Sequence

UNITS = (("days", 86_400), ("hours", 3_600), ("min", 60))


def duration(seconds: float) -> str:
    """ "1h02m", "3m05s" or "12s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def rough_duration(seconds: float) -> str:
    """A duration with two digits in the largest unit that fits: "3.2 days"."""
    name, unit = next(((name, unit) for name, unit in UNITS if seconds >= unit), ("s", 1))
    return f"{seconds / unit:.2g} {name}"


def number(value: float) -> str:
    """A value with five significant digits; no metric is more accurate."""
    return f"{value:.5g}"


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells of a table [rows][columns], padded so that each column has one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, its first row being the header."""
    padded = aligned(rows)
    lines = ["| " + " | ".join(cells) + " |" for cells in padded]
    return [lines[0], "|" + "|".join("-" * (len(cell) + 2) for cell in padded[0]) + "|", *lines[1:]]
