"""Traffic over time: invented profiles, or recorded in a CSV file."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

Rate = Callable[[float], float]
"""Requests per second of all users, by seconds since the release began."""
_DAY = 86_400.0


class TrafficError(Exception):
    """A recording cannot be used; says which line, and what to write."""


class Profile(StrEnum):
    CONSTANT = "constant"
    DAILY = "daily"
    BURST = "burst"


def invented(profile: Profile, rate: float) -> Rate:
    """Traffic with an average of `rate` requests per second.

    daily: a wave over 24 hours between a fifth and nine fifths of the average, lowest at the start. burst: for one
    minute in ten, five times as much as in the others.
    """
    if profile is Profile.DAILY:
        return lambda at: rate * (1 - 0.8 * math.cos(2 * math.pi * at / _DAY))
    if profile is Profile.BURST:
        return lambda at: rate * (5 if at % 600 < 60 else 1) / 1.4
    return lambda _: rate


@dataclass(frozen=True)
class Recording:
    """Rates by time; each holds until the next one, and after the last it begins anew."""

    times: tuple[float, ...]
    rates: tuple[float, ...]
    length: float

    def __call__(self, at: float) -> float:
        return self.rates[max(0, bisect_right(self.times, at % self.length) - 1)]


def recorded(lines: Iterable[str]) -> Recording:
    """A CSV file with the columns `time` (seconds, or ISO 8601) and `rate` (requests per second).

    Raises:
        TrafficError: it is something else.
    """
    rows = csv.DictReader(lines)
    if not {"time", "rate"} <= set(rows.fieldnames or ()):
        raise TrafficError("the first line must name the columns time (seconds, or ISO 8601) and rate (requests/s)")
    times: list[float] = []
    rates: list[float] = []
    for row in rows:
        try:
            at, rate = _seconds(row["time"]), float(row["rate"])
        except (TypeError, ValueError):
            raise TrafficError(f"line {rows.line_num}: {row['time']!r}, {row['rate']!r} are no time and rate") from None
        if not (0 <= rate < math.inf) or (times and at <= times[-1]):
            raise TrafficError(f"line {rows.line_num}: times must rise, and rates must be 0 or more")
        times.append(at)
        rates.append(rate)
    if not times:
        raise TrafficError("there is no line with a time and a rate")
    start = times[0]
    step = times[-1] - times[-2] if len(times) > 1 else 1.0
    return Recording(tuple(at - start for at in times), tuple(rates), times[-1] - start + step)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
