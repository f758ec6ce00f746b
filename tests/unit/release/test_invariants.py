"""What every single decision must keep, in any world; and that any past, told again, ends the same."""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from serinus.api.shown import Recommendation
from serinus.api.smoke import SmokeState
from serinus.api.status import ModelDeploymentStatus, Outcome, Phase, ReleaseStatus
from serinus.api.steps import PassOn
from serinus.release.capacity import floor_for
from serinus.release.machine import decide
from serinus.release.observed import Decision, Input, Rates
from serinus.release.steps import STEP_PHASES
from serinus.release.sticky import ByCookie
from unit.release.test_properties import VERSIONS, Releases
from unit.release.world import World, releasing, spec, stored, with_live

FLAGS = [
    {"name": version, "match": [{"cookie": {"name": version}}], "version": version}
    for version in ("candidate", "previous", "v1", "v3")
]
CHANGES = (
    {},
    {"route": {"parentRefs": [{"name": "public"}], "flags": FLAGS}},
    releasing(worseThanLive={"errorRate": "1%"}, inconclusive={"after": "1m", "then": "RollBack"}),
    releasing(metrics=[{"name": "tail", "figure": "P99", "max": 0.2, "interval": "4s"}]),
    {"release": {"strategy": "Rolling", "rollbackWindow": "1m"}},
    {"release": {"strategy": "BlueGreen", "steps": [{"preview": {}, "hold": "10s"}], "rollbackWindow": "1m"}},
    {
        "release": {
            "sticky": {"cookie": {"name": "serinus"}},
            "steps": [
                {"weight": 5, "hold": "20s", "minRequests": 50},
                {
                    "experiment": {
                        "metric": {"successes": "orders", "trials": "visitors", "interval": "2s"},
                        "baseline": "10%",
                        "minimumEffect": "2%",
                        "maxDuration": "1m",
                        "onSuccess": "Promote",
                    }
                },
            ],
        }
    },
)


class Checked(World):
    """A world that looks at each decision before it is stored."""

    def decide(self, *, store: bool = True) -> Decision:
        given = self.given()
        decision = super().decide(store=store)
        check(given, decision)
        if store:
            self.__dict__.setdefault("past", []).append(given)
        return decision


def check(given: Input, decision: Decision) -> None:
    """One decision against what must never happen."""
    before, after = given.status, decision.status
    was, now = before.release, after.release
    if now is not None and now.weight > (was.weight if was and was.revision == now.revision else 0):
        traffic_only_to_the_ready(given, now)
    if was is not None and was.phase in STEP_PHASES and now is not None and now.phase is Phase.PROMOTING:
        passed_on_evidence(given, was, now)
    sticky_users_are_as_many_as_the_weight_says(decision)
    if before.live is not None and after.live is not None and before.live.revision != after.live.revision:
        live_changes_for_a_reason(given, decision)
    if after.live is not None:
        planned = {item.revision.name: item.floor for item in decision.plan.revisions}
        floor = planned.get(after.live.revision)
        assert floor is None or floor >= given.spec.scaling.min, "capacity of the live revision"
        assert floor is not None or after.live.revision in decision.plan.keep, "a live revision without pods"
    pinned_only_to_the_fit(given, decision)
    weights = decision.plan.weights
    if now is not None and weights and after.live is not None and after.live.revision != now.revision:
        assert weights.get(now.revision, 0) == now.weight
        assert weights[after.live.revision] == 100 - now.weight


def sticky_users_are_as_many_as_the_weight_says(decision: Decision) -> None:
    split, release = decision.plan.sticky, decision.status.release
    if split is None:
        return
    assert release is not None
    assert release.phase is not Phase.ROLLING_BACK, "sticky users stay with a candidate that is being rolled back"
    assert isinstance(split, ByCookie)
    shares = {name: sum(g.share for g in split.groups if g.revision == name) for name in decision.plan.weights}
    assert shares == decision.plan.weights


def pinned_only_to_the_fit(given: Input, decision: Decision) -> None:
    after = decision.status
    planned = {item.revision.name for item in decision.plan.revisions} | decision.plan.keep
    for pin in decision.plan.pins:
        state = given.observed.state(pin.revision)
        assert state.ready > 0, "users pinned to a revision without pods"
        assert state.failure is None, "users pinned to a revision that fails"
        assert pin.revision in planned, "users pinned to a revision that is going to lose its pods"
        if after.live is None or pin.revision != after.live.revision:
            assert pin.revision not in after.failed_revisions, "users pinned to a revision that failed"
        release = after.release
        if release is not None and release.phase is Phase.ROLLING_BACK:
            assert pin.revision != release.revision, "users pinned to a candidate that is being rolled back"


def traffic_only_to_the_ready(given: Input, now: ReleaseStatus) -> None:
    state = given.observed.state(now.revision)
    assert state.failure is None, "traffic to a candidate that failed"
    live = given.observed.state(given.status.live.revision if given.status.live else None)
    assert state.ready >= max(1, floor_for(now.weight, given.spec.scaling, live.desired)), "traffic before capacity"
    assert now.revision not in given.status.failed_revisions or given.asked, "traffic to a revision that failed before"


def passed_on_evidence(given: Input, was: ReleaseStatus, now: ReleaseStatus) -> None:
    if now.skips_steps:
        return
    steps = given.spec.release.plan_steps()
    if steps[now.step].experiment is not None:
        assert now.experiment is not None
        assert now.experiment.recommendation is Recommendation.PROMOTE, "promoted without an answer"
        return
    if steps[now.step].preview is not None or steps[now.step].pass_on is PassOn.READINESS:
        return
    if steps[now.step].smoke_test is not None:
        # Its evidence is the answers that it got; Prometheus has none of it.
        assert now.smoke_test is not None
        assert now.smoke_test.state is SmokeState.PASSED, "promoted without the smoke test"
        assert now.smoke_test.finished_at is not None, "promoted before the smoke test ended"
        return
    assert given.evidence.available, "passed while Prometheus was away"
    if (shadow := steps[now.step].shadow) is not None:
        assert now.shadow is not None
        assert now.shadow.pairs >= shadow.min_pairs, "promoted on too few pairs"
        return
    assert now.step == len(steps) - 1, "passed before the last step"
    assert now.candidate.requests >= steps[now.step].min_requests, "passed on too few requests"
    assert was.serving_since is not None, "passed before the gateway served the weight"
    assert (given.now - was.serving_since).total_seconds() >= steps[now.step].hold.seconds


def live_changes_for_a_reason(given: Input, decision: Decision) -> None:
    after, was = decision.status, given.status.release
    last, live = after.last_release, after.live
    assert live is not None
    fresh = last is not None and last != given.status.last_release
    if fresh and last is not None and last.outcome is Outcome.PROMOTED and last.revision == live.revision:
        assert was is not None
        assert was.weight == 100 or given.spec.route is None, "live before it had all traffic"
        return
    now, previous = after.release, given.status.previous
    assert now is not None
    assert previous is not None
    assert now.phase is Phase.ROLLING_BACK, "the live revision changed otherwise"
    assert live.revision == previous.revision
    assert given.observed.state(previous.revision).ready > 0, "traffic back to a revision without pods"


class Kept(Releases):
    """The same worlds, with each decision looked at, under several analyses."""

    changes: dict[str, object] = {}

    @initialize(fresh=st.booleans(), changes=st.sampled_from(CHANGES))
    def begin(self, fresh: bool, changes: dict[str, object]) -> None:  # type: ignore[override]
        self.changes = changes
        world = World(spec("v1", **changes)) if fresh else with_live(**changes)
        self.world = Checked(**{each.name: getattr(world, each.name) for each in dataclasses.fields(World)})

    @rule(version=st.sampled_from(VERSIONS))
    def apply(self, version: str) -> None:
        self.world.apply(spec(version, **self.changes))

    @rule(p99=st.sampled_from([0.1, 0.3, None]))
    def measured(self, p99: float | None) -> None:
        names = [World(spec(version)).target().name for version in VERSIONS]
        self.world.rates = dict.fromkeys(names, Rates(p99=p99))

    @rule(trials=st.integers(0, 500), better=st.booleans(), missing=st.booleans())
    def bought(self, trials: int, better: bool, missing: bool) -> None:
        """A business metric grows, or is reset, or is away."""
        names = [World(spec(version)).target().name for version in VERSIONS]
        visitors = {name: float(trials) for name in names}
        orders = {name: float(trials // (3 if better and place % 2 else 10)) for place, name in enumerate(names)}
        self.world.own = {"visitors": "away" if missing else visitors, "orders": orders}

    @precondition(lambda self: self.world.status.release is not None)
    @rule()
    def every_path_ends(self) -> None:
        self.measured(0.1)
        self.bought(10, better=False, missing=False)
        super().every_path_ends()

    def teardown(self) -> None:
        past: list[Input] = getattr(self.world, "past", [])[-400:]
        for start in {0, len(past) // 2}:
            status: ModelDeploymentStatus | None = None
            for given in past[start:]:
                if status is not None:
                    assert status == given.status, "the same past led to another status"
                status = stored(decide(dataclasses.replace(given, status=status or given.status)).status)
            assert status is None or status == self.world.status


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
