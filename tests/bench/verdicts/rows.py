"""What is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi, sin

from bench.verdicts.streams import Clumps

ERRORS, SLOW = 0.001, 0.01
"""Limits of the SLO: errors <= 0.1 %, and p99, that is at most 1 % slow."""
DAY = 900.0
"""Seconds of a day that is compressed to the length of a release."""


def level(_: float) -> float:
    return 1.0


def day(seconds: float) -> float:
    """Between a fifth of the usual and all of it."""
    return 0.6 + 0.4 * sin(2 * pi * seconds / DAY)


STEPS = (19.0, 3.0, 1.0)
"""5, 25 and 50 %."""
FURTHER = (19.0, 1.0, 1 / 3)
"""5, 50 and 75 %: at the last step the live revision is the one with few requests."""


@dataclass(frozen=True)
class Row:
    """One candidate under one traffic."""

    group: str
    rate: float
    """Requests per second of the candidate."""
    share: float
    """Its share of bad requests."""
    limit: float
    """What the SLO allows; with `live` and `margin`, how much worse than the live revision."""
    clumps: Clumps = "none"
    live: float | None = None
    """The live revision's share, where it plays a part."""
    margin: float | None = None
    """Largest good difference, where the two are compared."""
    swing: Callable[[float], float] = level
    """Factor on traffic and shares by second."""
    good: bool = False
    """Rolling it back is a mistake."""
    live_per_candidate: tuple[float, float, float] = STEPS
    """Requests of the live revision per request of the candidate, at each step."""

    @property
    def name(self) -> str:
        what = f"{100 * self.share:g}% bad, limit {100 * self.limit:g}%"
        if self.margin is not None and self.live is not None:
            what = f"{100 * self.share:g}% bad, live {100 * self.live:g}%, margin {100 * self.margin:g}%"
        elif self.live is not None:
            what += f", live {100 * self.live:g}%"
        extra = "" if self.clumps == "none" else f", {self.clumps}"
        extra += ", to 75%" if self.live_per_candidate is FURTHER else ""
        return f"{what}{extra}{', daily shape' if self.swing is day else ''}"


ALL: tuple[Clumps, ...] = ("none", "batch", "burst")


def rows() -> Iterator[Row]:
    """All rows, good candidates first."""
    for clumps in ALL:
        for rate in (1, 10, 100, 1000):
            for limit, share in ((ERRORS, ERRORS), (SLOW, SLOW), (ERRORS, ERRORS / 5), (SLOW, SLOW / 3)):
                if share != limit and (rate == 1000 or clumps != "none"):
                    continue
                if rate == 1000 and clumps == "batch":
                    continue
                yield Row("good", rate, share, limit, clumps, good=True)
    for rate in (10, 100):
        yield Row("good", rate, SLOW, SLOW, "burst", swing=day, good=True)
        yield Row("good", rate, 0.05, ERRORS, live=0.05, good=True)
        for clumps in ALL:
            yield Row("good", rate, 0.015, 0.5, clumps, live=0.01, margin=0.005, good=True)
        yield Row("good", rate, 0.01, 0.5, "batch", live=0.01, margin=0.005, swing=day, good=True)
        for clumps in ALL:
            yield Row("good", rate, 0.011, 0.5, clumps, 0.01, 0.001, good=True, live_per_candidate=FURTHER)
        yield Row("good", rate, 0.015, 0.5, "pod", live=0.01, margin=0.005, good=True)
        yield Row("good", rate, 0.101, 0.5, "pod", live=0.1, margin=0.001, good=True)
        yield Row("good", rate, 0.105, 0.5, "batch", 0.1, 0.005, good=True, live_per_candidate=FURTHER)
        yield Row("good", rate, 0.051, 0.5, "burst", 0.05, 0.001, good=True, live_per_candidate=FURTHER)
    for limit, shares in ((ERRORS, (0.002, 0.005, 0.01, 0.05, 0.2)), (SLOW, (0.02, 0.05, 0.2, 1.0))):
        for share in shares:
            for rate in (1, 10, 100, 1000):
                yield Row("bad", rate, share, limit)
    for clumps in ALL[1:]:
        for rate in (10, 100, 1000):
            yield Row("bad, in clumps", rate, 0.05, ERRORS, clumps)
            yield Row("bad, in clumps", rate, 0.1, SLOW, clumps)
    for rate in (10, 100):
        yield Row("bad, against live", rate, 0.05, 0.5, live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.05, 0.5, "batch", live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.2, 0.5, live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.05, 0.5, live=0.01, margin=0.005, swing=day)
        yield Row("bad, against live", rate, 0.1, 0.5, live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.1, 0.5, "batch", live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.05, 0.5, "burst", live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.2, 0.5, "burst", live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.1, 0.5, "pod", live=0.01, margin=0.005)
        yield Row("bad, against live", rate, 0.3, 0.5, "pod", live=0.05, margin=0.01)
