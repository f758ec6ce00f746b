"""Sticky users: who belongs to the candidate at a weight, so that nobody changes sides but by a step.

Users are divided once, at the weights that the release will pass: with steps 5, 25 and 50 there are the first five
percent, the next twenty, the next twenty-five, and the rest. A step moves whole groups from the live revision to the
candidate; a roll-back moves all of them back in one route write, for the cookie names the group, not the revision that
serves it. A cookie that names the revision cannot do that: users on the live revision would have to be drawn again at
each step, and with a cookie on one side only they are drawn again at each request, until all have left it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from serinus.api.steps import Step
from serinus.api.sticky import MAX_SHARES, Digits, Sticky


@dataclass(frozen=True)
class Group:
    """Users who always go together."""

    value: str
    """What their cookie says."""
    share: int
    """Percent of all users."""
    revision: str
    """Who serves them now."""


@dataclass(frozen=True)
class ByCookie:
    """Users by the cookie that they were given with their first answer."""

    name: str
    seconds: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class ByHeader:
    """Users by the last two digits of a header."""

    name: str
    base: int
    """10 or 16."""
    chosen: frozenset[int]
    """Values of the two digits that go to the candidate."""
    candidate: str
    live: str


Split = ByCookie | ByHeader


def split(sticky: Sticky, steps: Sequence[Step], weight: int, candidate: str, live: str) -> Split | None:
    """Who goes where while the candidate has `weight` percent; None where all users go to one side."""
    if not 0 < weight < 100:
        return None
    if sticky.header is not None:
        base = 16 if sticky.header.digits is Digits.HEX else 10
        return ByHeader(sticky.header.name, base, _chosen(base * base, weight, candidate), candidate, live)
    if sticky.cookie is None:
        return None
    ends = sorted({weight, *_ends(steps)})
    groups = tuple(
        Group(f"{candidate}.{start}-{end}", end - start, candidate if end <= weight else live)
        for start, end in zip([0, *ends], ends, strict=False)
    )
    return ByCookie(sticky.cookie.name, round(sticky.cookie.ttl.seconds), groups)


def shares(steps: Sequence[Step]) -> tuple[int, ...]:
    """Percent of all users by group."""
    ends = _ends(steps)
    return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))


def _ends(steps: Sequence[Step]) -> list[int]:
    weights = sorted({step.share for step in steps if 0 < step.share < 100})
    return [*weights[:MAX_SHARES], 100]


def _chosen(values: int, weight: int, candidate: str) -> frozenset[int]:
    """At most `weight` percent of the values, more with more weight, from another start in each release."""
    start = int.from_bytes(hashlib.sha256(candidate.encode()).digest()[:8])
    return frozenset((start + place) % values for place in range(values * weight // 100))
