"""How commands show what they found: a table for people, JSON for programs."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence


class Format(enum.Enum):
    """What `-o` may be."""

    TABLE = "table"
    JSON = "json"

    def __str__(self) -> str:
        return self.value


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns side by side, numbers to the right."""
    every = [[str(cell) for cell in row] for row in rows]
    shown = [list(head), *every] if any(head) else every
    widths = [max((len(row[at]) for row in shown), default=0) for at in range(len(head))]
    right = [bool(every) and all(_number(row[at]) for row in every) for at in range(len(head))]
    lines = []
    for row in shown:
        cells = [
            cell.rjust(width) if side else cell.ljust(width)
            for cell, width, side in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def bytes_text(size: float) -> str:
    """`size` bytes with a unit."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).removesuffix("x").lstrip("-").isdigit()
