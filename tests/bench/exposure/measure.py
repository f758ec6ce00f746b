"""From what users and the route saw to figures. Pure: tested without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fraud.records import Record

GONE = "gone"


@dataclass(frozen=True)
class Seen:
    """The candidate's percentage in the route from a moment on."""

    at: float
    weight: int


@dataclass(frozen=True)
class Figures:
    """One trial. Times in seconds; None where there is nothing to tell."""

    key: str
    contender: str
    version: str
    outcome: str
    """RolledBack, Promoted or Unfinished."""
    reason: str
    detect: float | None
    """From the first request that the candidate was given to the route that takes its traffic away."""
    rollback: float | None
    """From that route to the last request that the candidate answered or spoiled."""
    exposed: int
    """Requests that the candidate answered."""
    bad: int
    """Users' requests that failed or took longer than the limit while the candidate had traffic, and after."""
    requests: int
    """All users' requests in that time."""
    base_bad: int
    """The same in the time before the release, as a measure of the machine: of `base_requests`."""
    base_requests: int
    seconds: float
    """From applying the version to the end of the release."""
    load: float
    """Load average of the machine at the end."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def is_bad(record: Record, limit_ms: float) -> bool:
    """A request that its user would complain about."""
    return record.failed or record.latency_ms > limit_ms


def measured(
    key: str,
    contender: str,
    version: str,
    outcome: str,
    reason: str,
    *,
    serves: str,
    records: Sequence[Record],
    weights: Sequence[Seen],
    began: float,
    ended: float,
    limit_ms: float,
    load: float,
) -> Figures:
    """Sums up a trial.

    Args:
        serves: what the candidate's answers call themselves.
        weights: the candidate's percentage in the route, each change, in order.
        began, ended: when the version was applied, and when its release was over.
    """
    own = [r for r in records if r.version == serves and r.at >= began]
    given = next((seen.at for seen in weights if seen.weight > 0 and seen.at >= began), None)
    taken = None
    if given is not None and outcome == "RolledBack":
        taken = next((seen.at for seen in weights if seen.weight == 0 and seen.at > given), None)
    first = min([r.at for r in own if given is None or r.at >= given - 1], default=given)
    last = max((r.at + r.latency_ms / 1000 for r in own), default=None)
    during = [r for r in records if first is not None and first <= r.at <= ended]
    before = [r for r in records if r.at < began]
    return Figures(
        key=key,
        contender=contender,
        version=version,
        outcome=outcome,
        reason=reason,
        detect=None if taken is None or first is None else max(0.0, taken - first),
        rollback=None if taken is None or last is None else max(0.0, last - taken),
        exposed=len(own),
        bad=sum(is_bad(r, limit_ms) for r in during),
        requests=len(during),
        base_bad=sum(is_bad(r, limit_ms) for r in before),
        base_requests=len(before),
        seconds=ended - began,
        load=load,
    )
