"""A small model of a cluster, a gateway and users, to run the state machine against without any of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from serinus.api.shown import Counts
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus
from serinus.release.errands import Errand, Result
from serinus.release.machine import decide
from serinus.release.observed import (
    Decision,
    Evidence,
    Failure,
    Input,
    Mirrored,
    Note,
    Observed,
    Plan,
    Rates,
    RevisionState,
    RouteState,
)
from serinus.release.revisions import Revision

NAME = "fraud"
START = datetime(2026, 11, 21, tzinfo=UTC)


def spec(version: str = "v1", **changes: Any) -> ModelDeploymentSpec:
    """A specification of version `version` with short steps; `changes` replaces whole top-level fields."""
    digest = "sha256:" + format(zlib.crc32(version.encode()), "08x") * 8
    base: dict[str, Any] = {
        "model": {"version": version, "uri": f"http://store/{version}/", "digest": digest},
        "scaling": {"min": 2},
        "route": {"parentRefs": [{"name": "public"}]},
        "slo": {"p99": "50ms", "errorRate": "0.1%"},
        "release": {
            "steps": [
                {"weight": 5, "hold": "20s", "minRequests": 50},
                {"weight": 50, "hold": "20s", "minRequests": 50},
            ],
            "rollbackWindow": "10m",
        },
    }
    return ModelDeploymentSpec.model_validate({**base, **changes})


@dataclass
class World:
    """Applies each plan after a delay, and answers as Kubernetes, the gateway and Prometheus would."""

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    now: datetime = START
    generation: int = 1
    plan: Plan = field(default_factory=Plan)
    snapshots: dict[str, Revision] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)
    route: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    """Revisions whose pods are away or starting."""
    lost: dict[str, dict[str, datetime]] = field(default_factory=dict)
    """By revision: pods that run on and are not ready any more, and since when."""
    gateway_down: bool = False
    prometheus_down: bool = False
    rate: float = 200.0
    pods: int = 1
    """Of each revision, that share its requests evenly."""
    error_rate: dict[str, float] = field(default_factory=dict)
    slow_rate: dict[str, float] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    own: dict[str, dict[str, float] | str] = field(default_factory=dict)
    frozen: str | None = None
    results: dict[str, Result] = field(default_factory=dict)
    answer: Callable[[Errand], Result | None] | None = None
    """What comes of an errand; None: it is still under way."""
    started: list[str] = field(default_factory=list)
    """Keys of the errands that were begun."""
    notes: list[Note] = field(default_factory=list)
    weights_seen: list[int] = field(default_factory=list)
    unstored: dict[str, Counts] = field(default_factory=dict)
    mirrors: list[int] = field(default_factory=list)
    """Percent that was mirrored at each tick."""
    mirror_refused: bool = False
    disagreement: float = 0.0
    shadow_errors: float = 0.0
    figures: dict[str, float] = field(default_factory=lambda: {"psi": 0.01, "input_psi": 0.0})
    joiner_down: bool = False
    joined: dict[str, int] = field(default_factory=dict)

    def apply(self, fresh: ModelDeploymentSpec) -> None:
        self.spec = fresh
        self.generation += 1

    def target(self) -> Revision:
        return Revision.target(NAME, self.spec)

    def observed(self) -> Observed:
        states = {
            name: RevisionState(
                desired=count,
                ready=0
                if name in self.unready or (name in self.failures and self.failures[name].at is None)
                else max(0, count - len(self.lost.get(name, {}))),
                failure=self.failures.get(name),
                unready=dict(self.lost.get(name, {})),
            )
            for name, count in self.ready.items()
        }
        mirror = self.plan.mirror
        refused = mirror is not None and self.mirror_refused
        accepted = bool(self.route) and not self.gateway_down and not refused
        mirrored = mirror.candidate if mirror else None
        route = RouteState(dict(self.route), accepted, "percent is unknown here" if refused else "", mirrored, refused)
        return Observed(states, dict(self.snapshots), route)

    def evidence(self) -> Evidence:
        if self.prometheus_down:
            return Evidence(False, "Prometheus cannot be reached")
        shadows = {}
        if (mirror := self.plan.mirror) and not self.joiner_down:
            shadows = {mirror.candidate: Mirrored(dict(self.joined), {"live_only": 9}, dict(self.figures))}
        blocks = {name: tuple(self._by_pod(counts)) for name, counts in self.unstored.items()}
        return Evidence(
            True, "", dict(self.unstored), blocks, rates=dict(self.rates), own=dict(self.own), shadows=shadows
        )

    def _by_pod(self, counts: Counts) -> Iterator[Counts]:
        for pod in range(self.pods):
            yield Counts(**{name: (total + pod) // self.pods for name, total in counts.model_dump().items()})

    def given(self) -> Input:
        """What the next decision depends on."""
        return Input(
            NAME,
            self.generation,
            self.spec,
            self.status,
            self.observed(),
            self.evidence(),
            self.now,
            dict(self.asked),
            frozen=self.frozen,
            results=dict(self.results),
        )

    def decide(self, *, store: bool = True) -> Decision:
        """One pass. Without `store` the operator is killed before it writes anything."""
        decision = decide(self.given())
        if store:
            self.status = stored(decision.status)
            self.notes.extend(decision.notes)
            self._run_errands(decision)
            if not self.prometheus_down:
                self.unstored, self.joined = {}, {}
        return decision

    def _run_errands(self, decision: Decision) -> None:
        """Does what is asked for, as the edge would: a result stays for as long as it is asked for."""
        kept = {errand.key: self.results.get(errand.key) for errand in decision.errands}
        self.results = {key: result for key, result in kept.items() if result is not None}
        for errand in decision.errands:
            if errand.key not in self.results and self.answer is not None:
                self.started.append(errand.key)
                if (result := self.answer(errand)) is not None:
                    self.results[errand.key] = result

    def obey(self, decision: Decision) -> None:
        """Brings the cluster to the plan."""
        self.plan = decision.plan
        for item in decision.plan.revisions:
            self.snapshots[item.revision.name] = item.revision
            self.ready[item.revision.name] = max(item.floor, self.ready.get(item.revision.name, 0))
        kept = {item.revision.name for item in decision.plan.revisions} | set(decision.plan.keep)
        for gone in set(self.ready) - kept:
            del self.ready[gone]
        self.route = dict(decision.plan.weights)
        release = self.status.release
        self.weights_seen.append(release.weight if release else 0)
        self.mirrors.append(self.plan.mirror.shadow.percent if self.plan.mirror else 0)

    def serve(self, seconds: float) -> None:
        """Users send requests; the clock moves."""
        total = sum(self.route.values())
        for name, weight in self.route.items():
            requests = round(self.rate * seconds * weight / total) if total else 0
            known = self.unstored.get(name, Counts())
            self.unstored[name] = Counts(
                requests=known.requests + requests,
                errors=known.errors + round(requests * self.error_rate.get(name, 0.0)),
                slow=known.slow + round(requests * self.slow_rate.get(name, 0.0)),
            )
        if (mirror := self.plan.mirror) and not self.mirror_refused and not self.joiner_down:
            pairs = round(self.rate * seconds * mirror.shadow.percent / 100)
            failed = round(pairs * self.shadow_errors)
            differ = round((pairs - failed) * self.disagreement)
            counts = {"agreed": pairs - failed - differ, "disagreed": differ, "candidate_failed": failed}
            self.joined = {name: self.joined.get(name, 0) + count for name, count in counts.items()}
            # What is mirrored reaches the candidate's own counters as well, and must be nobody's evidence there.
            known = self.unstored.get(mirror.candidate, Counts())
            self.unstored[mirror.candidate] = Counts(requests=known.requests + pairs, errors=known.errors + failed)
        self.now += timedelta(seconds=seconds)

    def tick(self, seconds: float = 2.0) -> Decision:
        """One pass, and two seconds of traffic."""
        decision = self.decide()
        self.obey(decision)
        self.serve(seconds)
        return decision

    def run(self, until: Any, limit: int = 400) -> None:
        """Ticks until `until(self)`; fails after `limit` ticks."""
        for _ in range(limit):
            if until(self):
                return
            self.tick()
        raise AssertionError(f"not reached after {limit} ticks: {self.status.model_dump_json(indent=1)}")

    def live(self) -> str | None:
        return self.status.live.version if self.status.live else None


def stored(status: ModelDeploymentStatus) -> ModelDeploymentStatus:
    """A status as it comes back from the API server."""
    return ModelDeploymentStatus.model_validate(status.model_dump(mode="json", by_alias=True))


def releasing(**analysis: Any) -> dict[str, Any]:
    """`spec.release` with short steps and this analysis."""
    release: dict[str, Any] = spec().release.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"release": {**release, "analysis": analysis}}


def settled(world: World) -> bool:
    return world.status.release is None and world.status.observed_generation == world.generation


def with_live(version: str = "v1", **changes: Any) -> World:
    """A world in which a first version is live."""
    world = World(spec(version, **changes))
    world.tick()
    world.run(settled)
    assert world.live() == version
    world.notes.clear()
    world.weights_seen.clear()
    return world
