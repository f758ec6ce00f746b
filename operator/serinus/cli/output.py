"""Tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml

from serinus.cli.picture import CliError

FORMATS = ("table", "json", "yaml")


def dump(value: object, form: str) -> str:
    """`value` as JSON or YAML text."""
    if form == "json":
        return json.dumps(value, indent=2, default=str)
    return yaml.safe_dump(value, sort_keys=False).rstrip()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them: the first row is the header, three spaces between."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def age(since: datetime | None, now: datetime) -> str:
    """A time span as kubectl shows it: 45s, 12m, 3h, 41d."""
    if since is None:
        return "-"
    seconds = max(0, int((now - since).total_seconds()))
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"


def write(text: str, path: str) -> None:
    """Writes a file and says where it lies; `-` prints the text.

    Raises:
        CliError: the file cannot be written.
    """
    if path == "-":
        print(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from None
    print(path)
