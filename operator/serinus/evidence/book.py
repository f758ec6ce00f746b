"""Evidence by ModelDeployment, handed out so that each request is counted once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from serinus.api.shown import Counts
from serinus.evidence.counters import Ledger, Owner, Pod, Snapshot, by_revision, increase
from serinus.evidence.mirrored import ShadowBook
from serinus.release.observed import Evidence, Rates

Mark = Mapping[Pod, Counts]


class Book:
    """Takes snapshots, or the news that there is none, and answers what is new since a decision was stored."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._marks: dict[Owner, Mark] = {}
        self._before: dict[Owner, Mark] = {}
        self._rates: dict[Owner, dict[str, Rates]] = {}
        self._shadows = ShadowBook()
        self._own: dict[str, Mapping[tuple[str, str, str], float] | str] = {}
        self._problem: str | None = Evidence().message
        self._scraped: dict[Owner, dict[str, int]] = {}

    def take(self, snapshot: Snapshot) -> None:
        """Takes a snapshot in."""
        self._ledger.add(snapshot)
        self._shadows.take(snapshot.shadow, snapshot.time)
        values: dict[tuple[str, str, str], dict[str, float]] = {}
        for name, by_owner in snapshot.rates.items():
            for owner, value in by_owner.items():
                values.setdefault(owner, {})[name] = value
        self._rates = {}
        for (namespace, deployment, revision), found in values.items():
            self._rates.setdefault((namespace, deployment), {})[revision] = Rates(**found)
        self._own.update(snapshot.own)
        self._scraped = scraped(snapshot)
        self._problem = None

    def keep(self, queries: Collection[str]) -> None:
        """Drops answers to users' own PromQL that nobody asks for any more."""
        self._own = {query: answer for query, answer in self._own.items() if query in queries}

    def fail(self, message: str) -> None:
        """Notes that no snapshot could be had. What was counted before stays counted."""
        self._problem = message

    def read(self, owner: Owner) -> tuple[Evidence, Mark]:
        """Evidence since the last `settle`, and a mark to settle with once the decision is stored."""
        if self._problem is not None:
            return Evidence(False, self._problem), self._marks.get(owner, {})
        pods = self._ledger.pods(owner)
        fresh = increase(pods, self._marks.get(owner, {}))
        blocks: dict[str, tuple[Counts, ...]] = {}
        before: dict[str, tuple[Counts, ...]] = {}
        known = self._before.get(owner, {})
        for pod, counts in sorted(fresh.items()):
            revision, _ = pod
            blocks.setdefault(revision, ())
            if counts.requests > 0:
                blocks[revision] += (counts,)
                before[revision] = (*before.get(revision, ()), known.get(pod, Counts()))
        shadows = self._shadows.read(owner)
        own = {query: _of(owner, answer) for query, answer in self._own.items()}
        rates, scraped = self._rates.get(owner, {}), self._scraped.get(owner, {})
        return Evidence(True, "", by_revision(fresh), blocks, rates, own, scraped, shadows, before), pods

    def settle(self, owner: Owner, mark: Mark) -> None:
        """What `mark` covers is part of a stored decision now."""
        fresh, known = increase(mark, self._marks.get(owner, {})), self._before.get(owner, {})
        looked = {pod: counts if counts.requests > 0 else known.get(pod, counts) for pod, counts in fresh.items()}
        self._before[owner] = looked
        self._marks[owner] = mark
        self._shadows.settle(owner)

    def forget(self, owner: Owner) -> None:
        """Drops a deleted ModelDeployment."""
        self._marks.pop(owner, None)
        self._before.pop(owner, None)
        self._shadows.forget(owner)


def scraped(snapshot: Snapshot) -> dict[Owner, dict[str, int]]:
    """How many pods of each revision a snapshot has numbers of: this counter is there from a pod's first scrape on."""
    found: dict[Owner, dict[str, int]] = {}
    for namespace, deployment, revision, _ in snapshot.counters.get("slow", {}):
        by_name = found.setdefault((namespace, deployment), {})
        by_name[revision] = by_name.get(revision, 0) + 1
    return found


def _of(owner: Owner, answer: Mapping[tuple[str, str, str], float] | str) -> Mapping[str, float] | str:
    if isinstance(answer, str):
        return answer
    return {revision: value for (*whose, revision), value in answer.items() if tuple(whose) == owner}
