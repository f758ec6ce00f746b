"""Any list of steps, of all kinds, edited while it runs: the same must hold for every list as for the usual one.

Each decision is looked at (`test_invariants`); here lists are composed at random, errands pass, fail or hang, people
edit the list in mid-release, and what is asked of a step's own kind is looked at as well. A kind of step that is new
belongs into STEPS.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from serinus.api.smoke import SmokeState
from serinus.api.status import Phase
from serinus.api.steps import StepKind
from serinus.release.errands import Errand, Result
from serinus.release.observed import Decision, Input, Observed
from serinus.release.smoke import SmokeReport
from serinus.release.steps import PHASE_OF, STEP_PHASES
from unit.release import test_invariants as invariants
from unit.release.test_properties import VERSIONS
from unit.release.world import World, settled, spec, with_live

Step = dict[str, Any]
STEPS: dict[str, list[Step]] = {
    "smokeTest": [{"smokeTest": {"requests": 5, "timeout": "30s"}}, {"smokeTest": {}, "approval": True}],
    "shadow": [{"shadow": {"percent": 20, "duration": "6s", "minPairs": 20}}],
    "preview": [{"preview": {}, "hold": "4s"}],
    "weight": [],  # made below: weights rise
    "experiment": [],  # made below: last, at a share of its own
}
"""Steps of each kind that lists are made of."""
SUCCESSES, TRIALS = "sum by (model_namespace, model_deployment, revision) (orders)", "visitors"
EXPERIMENT = {
    "metric": {"successes": SUCCESSES, "trials": TRIALS, "interval": "2s"},
    "share": 60,
    "baseline": "10%",
    "minimumEffect": "20%",
    "maxDuration": "10m",
    "onSuccess": "Promote",
}
GOOD = Result(SmokeReport("generated", 5))
BAD = Result(SmokeReport("generated", 5, errors=5, error="500"))
FAULTS = ("nothing", "prometheus", "gateway", "pods", "few", "silence", "errands")
UNREACHED = Result(None, "no pod answers")


def weights(*shares: int, approval: bool = False) -> list[Step]:
    return [{"weight": w, "hold": "10s", "minRequests": 20, "approval": approval} for w in shares]


@st.composite
def lists(draw: st.DrawFn) -> list[Step]:
    """A list of steps: what needs no user first, then weights that rise."""
    before = [draw(st.sampled_from(STEPS[kind])) for kind in STEPS if STEPS[kind] and draw(st.booleans())]
    shares = sorted(draw(st.sets(st.sampled_from([1, 10, 50, 100]), max_size=3)))
    after: list[Step] = [{"experiment": EXPERIMENT}] if draw(st.booleans()) else []
    if after:
        shares = [share for share in shares if share < int(str(EXPERIMENT["share"]))]
    return [*before, *weights(*shares, approval=draw(st.booleans())), *after] or weights(5)


def release(steps: list[Step]) -> dict[str, Any]:
    return {
        "scaling": {"min": 2, "max": 12},
        "release": {"steps": steps, "rollbackWindow": "5m", "progressDeadline": "3m"},
    }


def test_every_kind_of_step_is_here() -> None:
    assert set(STEPS) == set(PHASE_OF) == set(StepKind)


class Watched(invariants.Checked):
    """Looks at each decision as `Checked` does, and at what a list of many kinds adds. Pods may come slowly."""

    most: int = 1000
    """No revision but the live one has more pods that are ready."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.visitors: dict[str, float] = {}
        self.orders: dict[str, float] = {}

    def serve(self, seconds: float) -> None:
        """Users of the live version buy once in ten visits, those of others every other time."""
        live = self.status.live.revision if self.status.live else None
        super().serve(seconds)
        for name, weight in self.route.items():
            come = self.rate * seconds * weight / 100
            self.visitors[name] = self.visitors.get(name, 0.0) + come
            self.orders[name] = self.orders.get(name, 0.0) + come * (0.1 if name == live else 0.5)
        self.own = {TRIALS: dict(self.visitors), SUCCESSES: dict(self.orders)}

    def observed(self) -> Observed:
        seen = super().observed()
        live = self.status.live.revision if self.status.live else None
        states = {
            name: state if name == live else dataclasses.replace(state, ready=min(state.ready, self.most))
            for name, state in seen.revisions.items()
        }
        return dataclasses.replace(seen, revisions=states)

    def decide(self, *, store: bool = True) -> Decision:
        given = self.given()
        decision = super().decide(store=store)
        check(given, decision)
        return decision


def check(given: Input, decision: Decision) -> None:
    was, now = given.status.release, decision.status.release
    if now is None:
        return
    same = was is not None and was.revision == now.revision and was.started_at == now.started_at
    before = was.weight if was is not None and same else 0
    steps = given.spec.release.plan_steps()
    if now.weight > before:
        asked = 100 if now.phase is Phase.PROMOTING else steps[min(now.step, len(steps) - 1)].share
        assert now.weight == asked, "a weight that no step asks for"
        assert now.phase in (Phase.CANARY, Phase.EXPERIMENTING, Phase.PROMOTING), f"users in phase {now.phase}"
    if now.weight and not now.skips_steps and given.status.live is not None:
        tested = [n for n, step in enumerate(steps) if step.smoke_test is not None and n < now.step]
        if tested and was is not None and same and was.phase is Phase.TESTING:
            assert now.smoke_test is not None
            assert now.smoke_test.state is SmokeState.PASSED, "users before the smoke test passed"
    if was is not None and same:
        moved_on(given, decision)


def moved_on(given: Input, decision: Decision) -> None:
    """A step that is left behind was left for a reason that is in this very input."""
    was, now = given.status.release, decision.status.release
    assert was is not None
    assert now is not None
    steps = given.spec.release.plan_steps()
    if was.phase is not Phase.CANARY or now.phase is Phase.ROLLING_BACK or now.skips_steps or was.step >= len(steps):
        return
    left = steps[was.step]
    passed = now.phase is Phase.PROMOTING or now.step > was.step
    if left.kind is StepKind.WEIGHT and passed and given.spec.route is not None:
        assert was.weight == left.share, "left before its weight was reached"
        assert given.evidence.available, "left while nothing was known"
        assert was.serving_since is not None, "left before the gateway served it"
        assert (given.now - was.serving_since).total_seconds() >= left.hold.seconds, "left before its time"
        assert not left.approval or now.approved is not None or was.approved is not None, "left without approval"


class Composed(invariants.Kept):
    """All rules of `Kept`, over lists of steps of every kind."""

    @initialize(steps=lists())
    def begin(self, steps: list[Step]) -> None:  # type: ignore[override]
        self.changes = release(steps)
        world = with_live(**release(weights(50)))
        self.world: Watched = Watched(**{each.name: getattr(world, each.name) for each in dataclasses.fields(World)})
        self.outcome: Result | None = GOOD
        self.world.answer = lambda _errand: self.outcome

    @rule(ticks=st.integers(2, 15))
    def go_on(self, ticks: int) -> None:
        """Rules of single ticks seldom come far into a list."""
        for _ in range(ticks):
            self.world.tick()

    @rule(most=st.sampled_from([0, 1, 2, 1000]))
    def pods_come_slowly(self, most: int) -> None:
        self.world.most = most

    @precondition(lambda self: self.world.status.live is not None)
    @rule(pods=st.integers(2, 12))
    def load_grows(self, pods: int) -> None:
        """The autoscaler gives the live revision more pods."""
        live = self.world.status.live
        assert live is not None
        self.world.ready[live.revision] = max(pods, self.world.ready.get(live.revision, 0))

    @rule(steps=lists())
    def edit_the_list(self, steps: list[Step]) -> None:
        """Another list for the version that is under way: no new revision."""
        self.changes = release(steps)
        self.world.apply(self.world.spec.model_copy(update={"release": spec(**self.changes).release}))

    @rule(outcome=st.sampled_from([GOOD, BAD, UNREACHED, None]))
    def errands_end(self, outcome: Result | None) -> None:
        self.outcome = outcome

    @precondition(lambda self: self.world.status.release is not None)
    @rule()
    def every_path_ends(self) -> None:
        world = self.world
        world.prometheus_down = world.gateway_down = False
        world.rate, world.most, self.outcome = 200.0, 1000, GOOD
        world.asked.pop("pause", None)
        for number in range(1500):
            if settled(world):
                return
            world.asked["approve"] = f"everything {number}"
            world.tick()
        raise AssertionError(f"does not end: {world.status.model_dump_json(indent=1)}")

    @rule(version=st.sampled_from(VERSIONS))
    def apply(self, version: str) -> None:
        self.world.apply(spec(version, **self.changes))

    def check_step(self, was: object) -> None:
        """Looked at decision by decision: the list may have been edited since the weight was set."""


TestComposed = Composed.TestCase
TestComposed.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@given(
    steps=lists(),
    fault=st.sampled_from(FAULTS),
    moment=st.integers(0, 70),
    ticks=st.integers(1, 12),
    promoted_by_hand=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_one_fault_at_any_moment_of_any_list(
    steps: list[Step], fault: str, moment: int, ticks: int, promoted_by_hand: bool
) -> None:
    """Chance alone seldom comes far into a list: here everything is calm but for one fault, which passes."""
    calm = with_live(**release(weights(50)))
    world = Watched(**{each.name: getattr(calm, each.name) for each in dataclasses.fields(World)})
    world.answer = lambda _errand: None if fault == "errands" and world.most == 999 else GOOD
    if promoted_by_hand:
        world.asked["promote"] = "before"
    live = world.status.live
    assert live is not None
    world.apply(spec("v2", **release(steps)))
    for number in range(moment):
        world.asked["approve"] = str(number)
        world.tick(1.0)
    candidate = world.target().name
    world.prometheus_down, world.gateway_down = fault == "prometheus", fault == "gateway"
    world.rate = 0.0 if fault == "silence" else world.rate
    if fault == "few":
        world.most, world.ready[live.revision] = 2, 12
    if fault == "errands":
        world.most = 999
    if fault == "pods":
        world.unready.add(candidate)
    for _ in range(ticks):
        world.tick()
    world.prometheus_down = world.gateway_down = False
    world.rate, world.most = 200.0, 1000
    world.unready.clear()
    for number in range(400):
        if settled(world):
            break
        world.asked["approve"] = f"again {number}"
        world.tick()
    assert settled(world), world.status.model_dump_json(indent=1)
    assert world.live() == "v2" or fault == "pods", "a good version that an outage of others has ended"


@pytest.mark.parametrize("outcome", [BAD, UNREACHED, None])
def test_no_user_ever_meets_a_candidate_whose_errand_does_not_pass(outcome: Result | None) -> None:
    def answer(_: Errand) -> Result | None:
        return outcome

    world = with_live(**release(weights(50)))
    world.answer = answer
    world.apply(spec("v2", **release([STEPS["smokeTest"][0], *weights(10, 50)])))
    world.run(settled)
    assert world.live() == "v1"
    assert set(world.weights_seen) == {0}


def test_phases_of_steps_have_code() -> None:
    from serinus.release.phases import PHASES

    assert PHASES.keys() >= STEP_PHASES
