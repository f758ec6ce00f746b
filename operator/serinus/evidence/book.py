"""Evidence by ModelDeployment, handed out so that each request is counted once."""

from __future__ import annotations

from collections.abc import Mapping

from serinus.api.status import Counts
from serinus.evidence.counters import Ledger, Owner, Snapshot, increase
from serinus.release.observed import Evidence, Rates

Mark = Mapping[str, Counts]


class Book:
    """Takes snapshots, or the news that there is none, and answers what is new since a decision was stored."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._marks: dict[Owner, Mark] = {}
        self._rates: dict[Owner, dict[str, Rates]] = {}
        self._problem: str | None = Evidence().message

    def take(self, snapshot: Snapshot) -> None:
        """Takes a snapshot in."""
        self._ledger.add(snapshot)
        values: dict[tuple[str, str, str], dict[str, float]] = {}
        for name, by_owner in snapshot.rates.items():
            for owner, value in by_owner.items():
                values.setdefault(owner, {})[name] = value
        self._rates = {}
        for (namespace, deployment, revision), found in values.items():
            self._rates.setdefault((namespace, deployment), {})[revision] = Rates(**found)
        self._problem = None

    def fail(self, message: str) -> None:
        """Notes that no snapshot could be had. What was counted before stays counted."""
        self._problem = message

    def read(self, owner: Owner) -> tuple[Evidence, Mark]:
        """Evidence since the last `settle`, and a mark to settle with once the decision is stored."""
        if self._problem is not None:
            return Evidence(False, self._problem), self._marks.get(owner, {})
        totals = self._ledger.totals(owner)
        fresh = increase(totals, self._marks.get(owner, {}))
        return Evidence(True, "", fresh, self._rates.get(owner, {})), totals

    def settle(self, owner: Owner, mark: Mark) -> None:
        """What `mark` covers is part of a stored decision now."""
        self._marks[owner] = mark

    def forget(self, owner: Owner) -> None:
        """Drops a deleted ModelDeployment."""
        self._marks.pop(owner, None)
