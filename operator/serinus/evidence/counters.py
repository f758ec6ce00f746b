"""Raw counters of many pods -> requests per revision since a decision, through restarts, gaps and lost pods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from serinus.api.status import Counts

Owner = tuple[str, str]
"""Namespace and name of a ModelDeployment."""
Series = tuple[str, str, str, str]
"""Namespace, ModelDeployment, revision, instance."""
FIELDS = ("requests", "errors", "slow")


@dataclass(frozen=True)
class Snapshot:
    """The answers of one tick, all asked for the same moment."""

    time: float
    """Unix seconds."""
    counters: Mapping[str, Mapping[Series, float]]
    """Raw counter values by field of Counts."""
    rates: Mapping[str, Mapping[tuple[str, str, str], float]] = field(default_factory=dict)
    """Values by field of Rates, then by namespace, ModelDeployment and revision."""


class Ledger:
    """Adds up counter increases per revision. A counter that falls was reset: its whole value is new.

    A series that is there when the ledger sees its first samples starts at its present value; one that appears later
    starts at zero, because its pod is new. Memory is bounded by forgetting series unseen for `forget_after` seconds.
    """

    def __init__(self, forget_after: float = 3600.0) -> None:
        self._forget_after = forget_after
        self._last: dict[tuple[str, Series], tuple[float, float]] = {}
        self._totals: dict[tuple[Owner, str], dict[str, float]] = {}
        self._started = False

    def add(self, snapshot: Snapshot) -> None:
        """Takes the increases since the previous snapshot into the totals."""
        fresh = not self._started
        for name in FIELDS:
            for series, value in snapshot.counters.get(name, {}).items():
                if not math.isfinite(value) or value < 0:
                    continue
                self._started = True
                key = (name, series)
                known = self._last.get(key)
                if known is None:
                    increase = 0.0 if fresh else value
                else:
                    increase = value - known[0] if value >= known[0] else value
                self._last[key] = (value, snapshot.time)
                total = self._totals.setdefault(((series[0], series[1]), series[2]), dict.fromkeys(FIELDS, 0.0))
                total[name] += increase
        self._forget(snapshot.time)

    def totals(self, owner: Owner) -> dict[str, Counts]:
        """Requests by revision since the ledger began. Only differences mean anything."""
        return {
            revision: Counts(
                requests=round(total["requests"]), errors=round(total["errors"]), slow=round(total["slow"])
            )
            for (whose, revision), total in self._totals.items()
            if whose == owner
        }

    def _forget(self, now: float) -> None:
        gone = [key for key, (_, seen) in self._last.items() if now - seen > self._forget_after]
        for key in gone:
            del self._last[key]
        if gone:
            alive = {((series[0], series[1]), series[2]) for _, series in self._last}
            for total in [key for key in self._totals if key not in alive]:
                del self._totals[total]


def increase(now: Mapping[str, Counts], before: Mapping[str, Counts]) -> dict[str, Counts]:
    """What came since `before`, by revision; a revision unknown before counts in full."""
    zero = Counts()
    return {
        revision: Counts(
            requests=max(0, total.requests - before.get(revision, zero).requests),
            errors=max(0, total.errors - before.get(revision, zero).errors),
            slow=max(0, total.slow - before.get(revision, zero).slow),
        )
        for revision, total in now.items()
    }
