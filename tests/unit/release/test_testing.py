"""The smoke test as a step: before any user, resumable, and never counted as users' requests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.shown import Counts
from serinus.api.smoke import Compared, SmokeState
from serinus.api.status import Outcome, Phase
from serinus.release.draft import Draft
from serinus.release.errands import Errand, Result
from serinus.release.smoke import SmokeReport, SmokeTask
from unit.release.world import World, settled, spec, with_live

GOOD = SmokeReport("generated", 20, p50=0.002, p95=0.005, parity=Compared(samples=20))


def smoked(version: str = "v2", smoke: dict[str, Any] | None = None, **release: Any) -> Any:
    """A specification with a smoke test before short steps."""
    base = spec().release.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return spec(version, release={**base, "smokeTest": smoke or {}, **release})


def answering(world: World, report: SmokeReport | None, problem: str = "", *, counted: bool = True) -> None:
    """The smoke test finds `report`; Prometheus counts its requests, unless told otherwise."""

    def answer(errand: Errand) -> Result:
        assert isinstance(errand.task, SmokeTask)
        if report is not None and counted:
            known = world.unstored.get(errand.task.revision, Counts())
            world.unstored[errand.task.revision] = Counts(
                requests=known.requests + report.requests, errors=known.errors
            )
        return Result(report, problem)

    world.answer = answer


def phases(world: World, limit: int = 200) -> list[Phase]:
    """The phases of the release until it is settled."""
    seen: list[Phase] = []
    for _ in range(limit):
        world.tick()
        if not seen or seen[-1] is not world.status.phase:
            seen.append(world.status.phase)
        if settled(world):
            return seen
    raise AssertionError(f"not settled: {world.status.model_dump_json(indent=1)}")


def test_a_good_candidate_is_tested_first() -> None:
    world = with_live()
    answering(world, GOOD)
    world.apply(smoked())
    assert phases(world) == [Phase.STARTING, Phase.TESTING, Phase.CANARY, Phase.PROMOTING, Phase.LIVE]
    record = world.status.last_release
    assert record is not None
    assert record.smoke_test == (
        "20 requests (generated), 0 failed, p50 2ms, p95 5ms, 20 of 20 answers as the live revision's"
    )
    assert len(world.started) == 1


@pytest.mark.parametrize(
    ("report", "smoke", "said"),
    [
        (SmokeReport("generated", 20, errors=1, error="500: boom"), {}, "1 of 20 requests failed: 500: boom"),
        (SmokeReport("spec", 20, p50=0.1, p95=0.3), {"maxP95": "250ms"}, "p95 is 300ms, allowed is 250ms"),
        (
            SmokeReport("spec", 20, parity=Compared(samples=20, disagreeing=2), differences=("sample 1: y[0]",)),
            {"maxDisagreement": "5%"},
            "2 of 20 answers (10%) differ from the live revision's, allowed is 5%: sample 1: y[0]",
        ),
        (
            SmokeReport("spec", 20, parity=Compared(note="the live revision: 400: no such input")),
            {"maxDisagreement": "5%"},
            "nothing could be compared with the live revision: the live revision: 400: no such input",
        ),
        (
            SmokeReport("spec", 20, expected=Compared(samples=3, disagreeing=1)),
            {},
            "1 of 3 answers are not as expected",
        ),
        (SmokeReport("none", 0, unsuitable="write samples"), {}, "write samples"),
    ],
)
def test_a_bad_candidate_reaches_nobody(report: SmokeReport, smoke: dict[str, Any], said: str) -> None:
    world = with_live()
    live = world.target().name
    answering(world, report)
    world.apply(smoked(smoke=smoke))
    bad = world.target().name
    assert phases(world) == [Phase.STARTING, Phase.TESTING, Phase.FAILED]
    assert set(world.weights_seen) == {0}
    assert world.route == {live: 100}
    assert bad not in world.ready
    record = world.status.last_release
    assert record is not None
    assert (record.outcome, record.reason, record.message) == (Outcome.FAILED, "SmokeTestFailed", said)
    assert record.requests == 0
    assert [note.reason for note in world.notes] == [
        "ReleaseStarted", "CandidateReady", "SmokeTestFailed", "ReleaseFailed",
    ]  # fmt: skip


def test_parity_without_a_limit_is_only_reported() -> None:
    world = with_live()
    answering(world, SmokeReport("generated", 20, parity=Compared(samples=20, disagreeing=20)))
    world.apply(smoked())
    assert phases(world)[-1] is Phase.LIVE
    assert "0 of 20 answers as the live revision's" in world.notes[2].message


def test_the_first_version_is_tested_too_and_compared_with_nobody() -> None:
    world = World(smoked("v1"))
    answering(world, SmokeReport("generated", 20))
    assert phases(world) == [Phase.STARTING, Phase.TESTING, Phase.PROMOTING, Phase.LIVE]


@pytest.mark.parametrize("changes", [{"release": {"strategy": "BlueGreen"}}, {"release": {}, "route": None}])
def test_blue_green_and_no_route_are_tested(changes: dict[str, Any]) -> None:
    world = with_live(**changes)
    answering(world, GOOD)
    world.apply(spec("v2", **{**changes, "release": {**changes["release"], "smokeTest": {}}}))
    assert Phase.TESTING in phases(world)


def test_pods_that_cannot_be_reached_are_tried_until_the_time_is_up() -> None:
    world = with_live()
    answering(world, None, "no route to host")
    world.apply(smoked(smoke={"timeout": "1m"}))
    began = world.now
    assert phases(world)[-1] is Phase.FAILED
    assert 60 <= (world.now - began).total_seconds() <= 90
    record = world.status.last_release
    assert record is not None
    assert record.message == "no result after 1m (smokeTest.timeout): no route to host"
    # With growing pauses: 2, 4, 8, 16, 30 seconds.
    assert 4 <= len(world.started) <= 7
    assert len(set(world.started)) == len(world.started)


def test_a_killed_operator_makes_the_same_attempt_again() -> None:
    world = with_live()
    world.answer = lambda errand: None
    world.apply(smoked())
    world.run(lambda w: w.status.phase is Phase.TESTING)
    world.tick()
    world.results.clear()
    world.tick()
    assert len(set(world.started)) == 1
    assert len(world.started) > 1


def test_its_requests_are_waited_for_and_are_no_users() -> None:
    """Prometheus counts them late: the first step must not take them for users'."""
    world = with_live()
    answering(world, SmokeReport("generated", 50), counted=False)
    world.apply(smoked())
    candidate = world.target().name
    world.run(lambda w: bool(w.status.release and w.status.release.smoke_test))
    world.run(lambda w: bool(w.status.release and w.status.release.reason == "SmokeTestPassed"), limit=5)
    world.tick()
    assert world.status.phase is Phase.TESTING
    world.unstored[candidate] = Counts(requests=50, slow=50)
    world.tick()
    assert world.status.phase is Phase.CANARY
    release = world.status.release
    assert release is not None
    assert release.served == 0
    assert release.candidate == Counts()
    assert release.smoke_test is not None
    assert release.smoke_test.counted == 50


def test_without_prometheus_it_does_not_wait_for_ever() -> None:
    world = with_live()
    answering(world, GOOD, counted=False)
    world.apply(smoked())
    world.run(lambda w: bool(w.status.release and w.status.release.smoke_test))
    world.prometheus_down = True
    world.run(lambda w: w.status.phase is Phase.CANARY, limit=20)


def test_promoted_by_hand_skips_it() -> None:
    world = with_live()
    world.answer = lambda errand: None
    world.apply(smoked())
    world.run(lambda w: w.status.phase is Phase.TESTING)
    world.asked["promote"] = "now"
    world.run(settled)
    assert world.live() == "v2"


def test_a_new_spec_in_mid_test_starts_again() -> None:
    world = with_live()
    world.answer = lambda errand: None
    world.apply(smoked("v2"))
    world.run(lambda w: w.status.phase is Phase.TESTING)
    answering(world, GOOD)
    world.apply(smoked("v3"))
    world.run(settled)
    assert world.live() == "v3"
    assert [record.version for record in world.status.history[:2]] == ["v3", "v2"]


def test_an_approval_is_waited_for() -> None:
    world = with_live()
    answering(world, GOOD)
    steps = [{"smokeTest": {}, "approval": True}, {"weight": 50, "hold": "2s", "minRequests": 10}]
    world.apply(smoked(smokeTest=None, steps=steps))
    world.run(lambda w: bool(w.status.release and w.status.release.reason == "WaitingForApproval"))
    assert world.route.get(world.target().name, 0) == 0
    world.asked["approve"] = "yes"
    world.run(settled)
    assert world.live() == "v2"


@settings(deadline=None, max_examples=60)
@given(
    outcomes=st.lists(st.sampled_from(["later", "problem", "good", "bad"]), max_size=12),
    lost=st.lists(st.integers(0, 40), max_size=6),
)
def test_whatever_comes_no_weight_before_it_passed(outcomes: list[str], lost: list[int]) -> None:
    """Results that come, fail, come late or are lost with the operator: weight only after a pass, and an end."""
    world = with_live()
    left = iter(outcomes)

    def answer(errand: Errand) -> Result | None:
        outcome = next(left, "good")
        if outcome == "later":
            return None
        if outcome == "problem":
            return Result(problem="nobody listens")
        return Result(GOOD if outcome == "good" else SmokeReport("generated", 20, errors=20, error="500"))

    world.answer = answer
    world.apply(smoked(smoke={"timeout": "1m"}))
    candidate = world.target().name
    for tick in range(300):
        if tick in lost:
            world.results.clear()
        world.tick()
        release = world.status.release
        found = release.smoke_test.state if release and release.smoke_test else None
        if world.status.phase in (Phase.STARTING, Phase.TESTING):
            assert world.route.get(candidate, 0) == 0
        if release and release.phase in (Phase.CANARY, Phase.PROMOTING):
            assert found is SmokeState.PASSED
        if settled(world):
            break
    else:
        raise AssertionError("no end")
    assert world.live() == ("v1" if world.status.phase is Phase.FAILED else "v2")


def test_it_takes_nothing_of_the_chance_to_find_a_broken_candidate() -> None:
    """Two fifths of alpha belong to the first step with users, whatever comes before it; no more is spent in all."""
    world = with_live()
    world.apply(smoked(steps=[{"weight": 5}, {"weight": 25}, {"weight": 50}]))
    draft = Draft(world.given())
    assert [draft.alpha(stage) for stage in (1, 2, 3, 4)] == pytest.approx([0.004, 0.002, 0.002, 0.002])
