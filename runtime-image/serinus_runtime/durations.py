"""Durations as people write them in a spec: `200ms`, `5s`, `2w`."""

from __future__ import annotations

import re

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(us|ms|s|m|h|d|w)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds in `text`: one or more numbers, each with a unit (`3ms`, `1.5s`, `1h30m`), or a bare `0`.

    Raises ValueError, with a sentence for the user, for anything else.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(stripped):
        part = _PART.match(stripped, at)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not stripped or at < len(stripped):
        raise ValueError(
            f"{text!r} is not a duration: write a number and a unit (us, ms, s, m, h, d, w), such as 200ms"
        )
    return round(total, 9)
