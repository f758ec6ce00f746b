"""A cluster, a gateway, a Prometheus and users, as far as a release sees them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from serinus.api.spec import ModelDeploymentSpec
from serinus.evidence.book import Book
from serinus.evidence.counters import FIELDS, Series, Snapshot
from serinus.release.observed import Evidence, Failure, Observed, Plan, Rates, RevisionState, RouteState
from serinus.release.revisions import Revision
from serinus.simulation.draws import binomial, poisson
from serinus.simulation.scenario import Clumps, Scenario, Version

BATCH = 32
_WINDOW = 60.0
"""Seconds over which rates are shown."""
_OWNER = ("simulated", "simulated")
Tally = list[int]
"""Requests, errors, slow ones: `FIELDS`."""


@dataclass
class _Deployment:
    since: float
    pods: int
    ready_at: float


@dataclass
class World:
    """Obeys plans after a delay and answers with counts. Times are seconds since the beginning."""

    spec: ModelDeploymentSpec
    scenario: Scenario
    live: Revision
    candidate: Revision
    rng: Random
    now: float = 0.0
    first_request: float | None = None
    """When the candidate got its first one."""
    exposed: int = 0
    """Users' requests that the candidate answered."""
    failed: int = 0
    """Those of them that failed or were slow."""
    total: int = 0
    """Users' requests."""
    _route: Mapping[str, int] = field(default_factory=dict)
    _served: Mapping[str, int] = field(default_factory=dict)
    _served_from: float = 0.0
    _deployments: dict[str, _Deployment] = field(default_factory=dict)
    _book: Book = field(default_factory=Book)
    """The operator's own: what is new since the last decision."""
    _counters: dict[tuple[str, int], Tally] = field(default_factory=dict)
    """By revision and pod, as the pods show them."""
    _scraped: dict[str, dict[Series, float]] = field(default_factory=lambda: {name: {} for name in FIELDS})
    """As Prometheus has them."""
    _next_scrape: float = 0.0
    _bursting: dict[tuple[str, int], float] = field(default_factory=dict)
    _lately: deque[tuple[float, str, int, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._deployments[self.live.name] = _Deployment(-math.inf, self.spec.scaling.min, -math.inf)
        self._route = self._served = {self.live.name: 100}
        self._scrape()

    def obey(self, plan: Plan) -> None:
        """Brings the cluster to the plan."""
        wanted = {item.revision.name: item.floor for item in plan.revisions}
        for name, pods in wanted.items():
            known = self._deployments.get(name)
            if known is None:
                self._deployments[name] = _Deployment(self.now, pods, self.now + self.scenario.start)
            elif known.pods < pods:
                known.pods, known.ready_at = pods, self.now + self.scenario.start
        for gone in set(self._deployments) - set(wanted):
            del self._deployments[gone]
        if dict(plan.weights) != dict(self._route):
            self._route, self._served_from = dict(plan.weights), self.now + self.scenario.gateway

    def observed(self) -> Observed:
        """What Kubernetes and the gateway show."""
        states = {}
        for name, found in self._deployments.items():
            failure = self._failure(found) if name == self.candidate.name else None
            ready = 0 if failure or self.now < found.ready_at else found.pods
            states[name] = RevisionState(found.pods, ready, failure)
        accepted = self.now >= self._served_from
        snapshots = {each.name: each for each in (self.live, self.candidate)}
        return Observed(states, snapshots, RouteState(dict(self._route), accepted))

    def evidence(self) -> Evidence:
        """What was scraped since the last decision."""
        if any(start <= self.now < end for start, end in self.scenario.outages):
            return Evidence(False, "Prometheus cannot be reached")
        self._book.take(Snapshot(self.now, self._scraped))
        found, mark = self._book.read(_OWNER)
        self._book.settle(_OWNER, mark)
        return replace(found, rates=self._rates())

    def serve(self, seconds: float) -> None:
        """Users send requests; the clock moves."""
        if self.now >= self._served_from:
            self._served = self._route
        whole, rate = sum(self._served.values()), self.scenario.rate(self.now)
        for name, weight in self._served.items():
            if weight and whole:
                self._answer(name, rate * weight / whole, seconds)
        self.now += seconds
        if self.now >= self._next_scrape:
            self._next_scrape = self.now + self.scenario.scrape
            self._scrape()

    def _scrape(self) -> None:
        for name, found in self._deployments.items():
            for pod in range(found.pods if self.now >= found.ready_at else 0):
                self._counters.setdefault((name, pod), [0, 0, 0])
        for place, counter in enumerate(FIELDS):
            self._scraped[counter] = {
                (*_OWNER, name, f"{pod:04}"): float(tally[place]) for (name, pod), tally in self._counters.items()
            }

    def _failure(self, found: _Deployment) -> Failure | None:
        reason = self.scenario.failure
        if reason is None or self.now < found.since + self.scenario.failure_after:
            return None
        return Failure(reason, "simulated")

    def _version(self, name: str) -> Version:
        if name != self.candidate.name:
            return self.scenario.live
        turned = self.first_request is not None and self.now >= self.first_request + self.scenario.bad_after
        return self.scenario.candidate if turned else self.scenario.live

    def _answer(self, name: str, rate: float, seconds: float) -> None:
        mine = name == self.candidate.name
        if mine and self.first_request is None:
            self.first_request = self.now
        version = self._version(name)
        found = self._deployments.get(name)
        pods = found.pods if found else 1
        all_requests = all_bad = all_errors = 0
        for pod in range(pods):
            requests = poisson(rate * seconds / pods, self.rng)
            errors = self._bad((name, pod), requests, version.errors, seconds)
            slow = self._bad((name, -1 - pod), requests, version.slow, seconds)
            self._counters[name, pod] = _add(self._counters.get((name, pod), [0, 0, 0]), [requests, errors, slow])
            all_requests += requests
            all_errors += errors
            all_bad += max(errors, slow)
        self.total += all_requests
        if mine:
            self.exposed += all_requests
            self.failed += all_bad
        self._lately.append((self.now, name, all_requests, all_errors))
        while self._lately[0][0] < self.now - _WINDOW:
            self._lately.popleft()

    def _bad(self, place: tuple[str, int], requests: int, share: float, seconds: float) -> int:
        if share <= 0 or requests == 0 or self.scenario.clumps is Clumps.NONE:
            return binomial(requests, share, self.rng)
        if self.scenario.clumps is Clumps.BATCH:
            together = min(BATCH, requests)
            return min(requests, together * poisson(requests * share / together, self.rng))
        left = self._bursting.pop(place, 0.0)
        if self.rng.random() < share * seconds:
            left += 1.0
        inside = min(seconds, left)
        if left > inside:
            self._bursting[place] = left - inside
        return binomial(requests, inside / seconds, self.rng)

    def _rates(self) -> dict[str, Rates]:
        found: dict[str, Tally] = {}
        for _, name, requests, errors in self._lately:
            found[name] = _add(found.get(name, [0, 0, 0]), [requests, errors, 0])
        return {
            name: Rates(error_rate=errors / requests if requests else None, requests_per_second=requests / _WINDOW)
            for name, (requests, errors, _) in found.items()
        }


def _add(total: Tally, more: Tally) -> Tally:
    return [a + b for a, b in zip(total, more, strict=True)]
