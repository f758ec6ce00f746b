"""Whether two answers to the same request agree."""

from __future__ import annotations

import enum
import math
from typing import Any

import msgspec

from serinus_runtime.shadow.records import Record

TOLERANCE = 0.01
"""For models that answer with numbers only, where no tolerance is declared."""


class Outcome(enum.Enum):
    """What became of a pair."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    CANDIDATE_FAILED = "candidate_failed"
    """The live revision answered and the candidate did not."""
    LIVE_FAILED = "live_failed"
    BOTH_FAILED = "both_failed"
    INCOMPARABLE = "incomparable"
    """Both answered, but nothing in the answers can be compared."""


class Compared(msgspec.Struct):
    """A pair, looked at."""

    outcome: Outcome
    distance: float | None = None
    """Largest absolute difference of two numbers; None where there are none to compare."""
    flips: dict[str, tuple[Any, Any]] = {}
    """By output, the first label that differs: the live revision's and the candidate's."""


def compare(live: Record, candidate: Record, tolerance: float | None = None) -> Compared:
    """Labels and decisions agree when they are the same; numbers when they differ by at most `tolerance`.

    Without a tolerance numbers are told but decide only where there are no labels: two versions of a classifier never
    have the same scores, and what counts is what follows from them. Outputs that only one of them has are left out;
    outputs of different lengths differ.
    """
    answered = (live.code < 400, candidate.code < 400)
    if answered != (True, True):
        if live.code == candidate.code and 400 <= live.code < 500 and live.code != 429:
            # Both refused the same bad request, and that is the right answer to it.
            return Compared(Outcome.AGREED)
        failed = {
            (True, False): Outcome.CANDIDATE_FAILED, (False, True): Outcome.LIVE_FAILED,
            (False, False): Outcome.BOTH_FAILED,
        }  # fmt: skip
        return Compared(failed[answered])
    flips: dict[str, tuple[Any, Any]] = {}
    labelled = False
    for name, mine in live.labels.items():
        theirs = candidate.labels.get(name)
        if theirs is None:
            continue
        labelled = True
        if len(mine) != len(theirs):
            flips[name] = (f"{len(mine)} values", f"{len(theirs)} values")
        elif mine != theirs:
            flips[name] = next((a, b) for a, b in zip(mine, theirs, strict=True) if a != b)
    distance = _distance(live.numbers, candidate.numbers)
    if not labelled and distance is None:
        return Compared(Outcome.INCOMPARABLE)
    limit = tolerance if tolerance is not None or labelled else TOLERANCE
    apart = limit is not None and distance is not None and distance > limit
    return Compared(Outcome.DISAGREED if flips or apart else Outcome.AGREED, distance, flips)


def _distance(live: dict[str, list[float]], candidate: dict[str, list[float]]) -> float | None:
    most: float | None = None
    for name, mine in live.items():
        theirs = candidate.get(name)
        if theirs is None:
            continue
        apart = math.inf if len(mine) != len(theirs) else 0.0
        for a, b in zip(mine, theirs, strict=False):
            if a != b and not (a != a and b != b):
                gap = abs(a - b)
                apart = max(apart, gap if gap == gap else math.inf)
        most = apart if most is None else max(most, apart)
    return most
