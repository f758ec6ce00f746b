"""What joiners of shadows told: counters that survive restarts, figures, all of the cluster in two queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serinus.evidence.queries import OWNER, SERIES
from serinus.release.observed import Mirrored

if TYPE_CHECKING:
    from serinus.evidence.counters import Owner, Series

COUNTS = f'sum by ({SERIES}, outcome, reason) ({{__name__=~"serinus_shadow_(pairs|unpaired)_total"}})'
"""Counters of each joiner."""
FIGURES = f'max by ({OWNER}, __name__, kind, side) ({{__name__=~"serinus_shadow_(psi|ks|latency_ratio|pods)"}})'
"""Gauges; of the inputs' columns the farthest."""
_PREFIX = "serinus_shadow_"
_FORGET_SECONDS = 3600.0
Count = tuple[str, str]
"""`pairs` or `unpaired`, and the outcome or reason."""


@dataclass(frozen=True)
class ShadowSnapshot:
    """The answers to both queries."""

    counts: Mapping[tuple[Series, Count], float] = field(default_factory=dict)
    figures: Mapping[tuple[str, str, str], Mapping[str, float]] = field(default_factory=dict)
    """By namespace, ModelDeployment and candidate: values by figure, and `pods_live`, `pods_candidate`."""


def figure(labels: Mapping[str, str]) -> str:
    """What a series of FIGURES is called."""
    name = labels.get("__name__", "").removeprefix(_PREFIX)
    if name == "pods":
        return f"pods_{labels.get('side', '')}"
    return f"input_{name}" if labels.get("kind") == "input" else name


def count(labels: Mapping[str, str]) -> Count:
    """What a series of COUNTS counts."""
    outcome = labels.get("outcome", "")
    return ("pairs", outcome) if outcome else ("unpaired", labels.get("reason", ""))


Totals = dict[str, dict[Count, float]]
"""By candidate."""


class ShadowBook:
    """Adds up what joiners counted, by ModelDeployment and candidate. A counter that falls was reset.

    A series that is there when the first samples are seen starts at its present value; one that appears later starts
    at zero, because its joiner is new.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[Series, Count], tuple[float, float]] = {}
        self._totals: dict[Owner, Totals] = {}
        self._offered: dict[Owner, Totals] = {}
        self._settled: dict[Owner, Totals] = {}
        self._figures: dict[tuple[str, str, str], Mapping[str, float]] = {}
        self._started = False

    def take(self, snapshot: ShadowSnapshot, now: float) -> None:
        """Takes a snapshot of the time `now`, in seconds."""
        for key, value in snapshot.counts.items():
            (namespace, deployment, revision, _), what = key
            known = self._last.get(key)
            grown = (value if self._started else 0.0) if known is None else value - known[0]
            if known is not None and grown < 0:
                grown = value
            self._last[key] = (value, now)
            totals = self._totals.setdefault((namespace, deployment), {}).setdefault(revision, {})
            totals[what] = totals.get(what, 0.0) + grown
        # From the first answer on, whatever appears is new: without joiners there is nothing to begin with.
        self._started = True
        self._figures = dict(snapshot.figures)
        for key in [key for key, (_, seen) in self._last.items() if now - seen > _FORGET_SECONDS]:
            del self._last[key]
        alive = {(namespace, deployment, revision) for (namespace, deployment, revision, _), _ in self._last}
        for owner, candidates in list(self._totals.items()):
            for gone in [name for name in candidates if (owner[0], owner[1], name) not in alive]:
                del candidates[gone]
            if not candidates:
                self.forget(owner)

    def read(self, owner: Owner) -> dict[str, Mirrored]:
        """What is new since the last `settle`, by candidate."""
        totals = {revision: dict(counts) for revision, counts in self._totals.get(owner, {}).items()}
        self._offered[owner] = totals
        before, found = self._settled.get(owner, {}), {}
        for revision, counts in totals.items():
            known = before.get(revision, {})
            fresh = {what: round(value) - round(known.get(what, 0.0)) for what, value in counts.items()}
            figures = self._figures.get((*owner, revision), {})
            found[revision] = Mirrored(
                {what: value for (kind, what), value in fresh.items() if kind == "pairs"},
                {what: value for (kind, what), value in fresh.items() if kind == "unpaired"},
                {name: value for name, value in figures.items() if not name.startswith("pods_")},
                {name.removeprefix("pods_"): round(value) for name, value in figures.items() if name[:5] == "pods_"},
            )
        return found

    def settle(self, owner: Owner) -> None:
        """What was read last is part of a stored decision now."""
        if owner in self._offered:
            self._settled[owner] = self._offered.pop(owner)

    def forget(self, owner: Owner) -> None:
        """Drops a ModelDeployment."""
        for kept in (self._totals, self._offered, self._settled):
            kept.pop(owner, None)
