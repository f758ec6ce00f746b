"""Raw counters of many pods -> requests per revision since a decision, through restarts, gaps and lost pods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from serinus.api.shown import Counts
from serinus.evidence.mirrored import ShadowSnapshot

K = TypeVar("K")
Owner = tuple[str, str]
"""Namespace and name of a ModelDeployment."""
Series = tuple[str, str, str, str]
"""Namespace, ModelDeployment, revision, instance."""
Pod = tuple[str, str]
"""Revision and instance, within one ModelDeployment."""
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
    own: Mapping[str, Mapping[tuple[str, str, str], float] | str] = field(default_factory=dict)
    """Answers to users' own PromQL by query: values likewise, or why there are none."""
    shadow: ShadowSnapshot = field(default_factory=ShadowSnapshot)
    """What joiners told."""


class Ledger:
    """Adds up counter increases per revision. A counter that falls was reset: its whole value is new.

    A series that is there when the ledger sees its first samples starts at its present value; one that appears later
    starts at zero, because its pod is new. Memory is bounded by forgetting series unseen for `forget_after` seconds.
    """

    def __init__(self, forget_after: float = 3600.0) -> None:
        self._forget_after = forget_after
        self._last: dict[tuple[str, Series], tuple[float, float]] = {}
        self._totals: dict[Owner, dict[Pod, dict[str, float]]] = {}
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
                pods = self._totals.setdefault((series[0], series[1]), {})
                pods.setdefault((series[2], series[3]), dict.fromkeys(FIELDS, 0.0))[name] += increase
        self._forget(snapshot.time)

    def pods(self, owner: Owner) -> dict[Pod, Counts]:
        """Requests by revision and pod since the ledger began. Only differences mean anything."""
        return {
            pod: Counts(requests=round(total["requests"]), errors=round(total["errors"]), slow=round(total["slow"]))
            for pod, total in self._totals.get(owner, {}).items()
        }

    def totals(self, owner: Owner) -> dict[str, Counts]:
        """The same by revision."""
        return by_revision(self.pods(owner))

    def _forget(self, now: float) -> None:
        gone = [key for key, (_, seen) in self._last.items() if now - seen > self._forget_after]
        if not gone:
            return
        for key in gone:
            del self._last[key]
        alive = {series for _, series in self._last}
        for _, (namespace, deployment, revision, instance) in gone:
            if (namespace, deployment, revision, instance) not in alive:
                pods = self._totals.get((namespace, deployment), {})
                pods.pop((revision, instance), None)
                if not pods:
                    self._totals.pop((namespace, deployment), None)


def increase(now: Mapping[K, Counts], before: Mapping[K, Counts]) -> dict[K, Counts]:
    """What came since `before`; whoever is unknown before counts in full."""
    zero = Counts()
    return {
        who: Counts(
            requests=max(0, total.requests - before.get(who, zero).requests),
            errors=max(0, total.errors - before.get(who, zero).errors),
            slow=max(0, total.slow - before.get(who, zero).slow),
        )
        for who, total in now.items()
    }


def by_revision(pods: Mapping[Pod, Counts]) -> dict[str, Counts]:
    """Counts of pods added up."""
    totals: dict[str, Counts] = {}
    for (revision, _), more in pods.items():
        known = totals.get(revision, Counts())
        totals[revision] = Counts(
            requests=known.requests + more.requests, errors=known.errors + more.errors, slow=known.slow + more.slow
        )
    return totals
