"""Releases from beginning to end, with examples."""

from __future__ import annotations

import pytest

from serinus.api.status import Outcome, Phase
from serinus.release.observed import Failure
from serinus.release.revisions import Revision
from unit.release.world import NAME, World, settled, spec, with_live


def reasons(world: World) -> list[str]:
    return [note.reason for note in world.notes]


def condition(world: World, kind: str) -> str | None:
    return next((c.status for c in world.status.conditions if c.type == kind), None)


def test_first_version_goes_live_without_steps() -> None:
    world = World(spec("v1"))
    world.tick()
    world.run(settled)
    assert world.live() == "v1"
    assert world.status.phase is Phase.LIVE
    assert world.route == {world.target().name: 100}
    assert reasons(world) == ["ReleaseStarted", "CandidateReady", "Promoted"]
    world.tick()
    assert condition(world, "Ready") == "True"
    assert condition(world, "Reconciling") is None


def test_no_traffic_before_the_first_version_is_ready() -> None:
    world = World(spec("v1"))
    world.unready.add(world.target().name)
    for _ in range(20):
        world.tick()
        assert world.route == {}
    assert condition(world, "Ready") == "False"


def test_good_candidate_is_promoted_through_its_steps() -> None:
    world = with_live()
    old = world.status.live
    world.apply(spec("v2"))
    world.tick()
    world.run(settled)
    assert world.live() == "v2"
    seen = [weight for i, weight in enumerate(world.weights_seen) if i == 0 or weight != world.weights_seen[i - 1]]
    assert seen == [0, 5, 50, 100, 0]
    assert world.status.previous is not None
    assert old is not None
    assert world.status.previous.revision == old.revision
    assert world.status.last_release is not None
    assert world.status.last_release.outcome is Outcome.PROMOTED
    assert world.status.last_release.requests > 1000


def test_promoting_keeps_the_previous_revision_warm_for_its_window() -> None:
    world = with_live()
    old = world.target().name
    world.apply(spec("v2"))
    world.tick()
    world.run(settled)
    assert world.ready[old] >= 2
    world.serve(601)
    world.tick()
    world.tick()
    assert world.status.previous is None
    assert old not in world.ready


@pytest.mark.parametrize(("kind", "reason"), [("error_rate", "ErrorRateTooHigh"), ("slow_rate", "LatencyTooHigh")])
def test_bad_candidate_is_rolled_back_by_one_route_write(kind: str, reason: str) -> None:
    world = with_live()
    live = world.target().name
    world.apply(spec("v2"))
    bad = world.target().name
    getattr(world, kind)[bad] = 0.1
    world.tick()
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.ROLLING_BACK)
    assert world.route[live] == 100
    assert world.route[bad] == 0
    assert world.ready[bad] >= 1, "pods stay until the traffic has left"
    world.run(settled)
    assert world.live() == "v1"
    assert bad not in world.ready
    assert world.status.phase is Phase.ROLLED_BACK
    last = world.status.last_release
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.ROLLED_BACK, reason)
    assert last.requests < 400
    assert condition(world, "Stalled") == "True"
    assert condition(world, "Ready") == "True"


def test_failed_revision_is_not_tried_again_until_asked() -> None:
    world = with_live()
    world.apply(spec("v2"))
    bad = world.target().name
    world.failures[bad] = Failure("ModelLoadFailed", "no")
    world.tick()
    world.run(settled)
    for _ in range(20):
        world.tick()
    assert world.status.release is None
    world.failures.clear()
    world.asked["retry"] = "please"
    world.tick()
    assert world.status.release is not None
    world.run(settled)
    assert world.live() == "v2"


def test_candidate_that_never_starts_gets_no_request() -> None:
    world = with_live()
    world.apply(spec("v2"))
    bad = world.target().name
    world.failures[bad] = Failure("DigestMismatch", "expected this, got that")
    while not (world.status.last_release and world.status.last_release.version == "v2"):
        world.tick()
        assert world.route.get(bad, 0) == 0
    assert world.status.phase is Phase.FAILED
    assert world.status.last_release.outcome is Outcome.FAILED
    assert world.status.last_release.requests == 0
    assert "DigestMismatch" in world.notes[-1].message


def test_deadline_ends_a_release_whose_pods_never_get_ready() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.unready.add(world.target().name)
    world.run(settled)
    assert world.status.last_release is not None
    assert world.status.last_release.reason == "ProgressDeadlineExceeded"


@pytest.mark.parametrize("fault", ["prometheus_down", "gateway_down"])
def test_outage_holds_and_then_goes_on(fault: str) -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    setattr(world, fault, True)
    for _ in range(60):
        world.tick()
        assert world.status.release is not None
        assert world.status.release.weight == 5
    if fault == "prometheus_down":
        assert world.status.release is not None
        assert world.status.release.reason == "EvidenceMissing"
        assert reasons(world).count("EvidenceMissing") == 1
        assert condition(world, "EvidenceMissing") == "True"
    setattr(world, fault, False)
    world.run(settled)
    assert world.live() == "v2"
    assert condition(world, "EvidenceMissing") is None


def test_silence_is_not_success() -> None:
    world = with_live()
    world.rate = 0
    world.apply(spec("v2"))
    for _ in range(200):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.weight == 5
    assert world.status.release.reason == "NoRequests"


def test_network_that_hits_both_blames_neither() -> None:
    world = with_live()
    live = world.target().name
    world.apply(spec("v2"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    world.error_rate = {live: 0.05, world.target().name: 0.05}
    world.run(settled)
    assert world.live() == "v2"


def test_new_spec_in_mid_release_takes_the_traffic_away_first() -> None:
    world = with_live()
    world.apply(spec("v2"))
    second = world.target().name
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 50)
    world.apply(spec("v3"))
    world.tick()
    assert world.route[second] == 0
    assert world.target().name not in world.ready
    world.run(lambda w: settled(w) and w.live() == "v3")
    assert second not in world.status.failed_revisions


def test_going_back_to_the_live_version_ends_the_release() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    world.apply(spec("v1"))
    world.run(settled)
    assert world.live() == "v1"
    assert world.status.phase is Phase.LIVE
    assert condition(world, "Stalled") is None


def test_previous_revision_comes_back_without_steps_while_it_is_warm() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.tick()
    world.run(settled)
    world.weights_seen.clear()
    world.apply(spec("v1"))
    world.tick()
    assert world.route[world.target().name] == 100
    world.run(settled)
    assert world.live() == "v1"
    assert set(world.weights_seen) <= {0, 100}


def test_candidate_that_loses_its_pods_is_rolled_back() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 50)
    world.unready.add(world.target().name)
    world.run(settled)
    assert world.live() == "v1"
    assert world.status.last_release is not None
    assert world.status.last_release.reason == "CandidateUnavailable"


def test_weight_waits_for_pods() -> None:
    world = with_live(scaling={"min": 2, "max": 20})
    live = world.target().name
    world.ready[live] = 10
    world.apply(spec("v2", scaling={"min": 2, "max": 20}))
    candidate = world.target().name
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 50)
    assert world.ready[candidate] >= 5
    world.run(settled)
    assert world.live() == "v2"
    assert world.ready[candidate] >= 10


def test_without_a_route_traffic_switches_once_when_ready() -> None:
    bare = {"route": None, "release": {"rollbackWindow": "10m"}}
    world = with_live("v1", **bare)
    world.apply(spec("v2", **bare))
    world.tick()
    world.run(settled)
    assert world.live() == "v2"
    assert world.plan.stable == world.target().name


def test_blue_green_switches_once() -> None:
    changes = {"release": {"strategy": "BlueGreen", "rollbackWindow": "10m"}}
    world = with_live("v1", **changes)
    world.apply(spec("v2", **changes))
    world.tick()
    world.run(settled)
    assert world.live() == "v2"
    assert set(world.weights_seen) == {0, 100}


def test_settled_world_changes_nothing() -> None:
    world = with_live()
    world.tick()
    before = world.status
    for _ in range(50):
        world.tick()
    assert world.status == before


def test_lost_snapshot_keeps_the_live_objects() -> None:
    world = with_live()
    live = world.target().name
    world.apply(spec("v2"))
    world.tick()
    world.snapshots.pop(live)
    decision = world.decide()
    assert live in decision.plan.keep


def test_revision_name_ignores_written_out_defaults() -> None:
    short = spec("v1")
    long = spec("v1", runtime={"name": "onnx", "queue": {"maxLength": 512}})
    assert Revision.target(NAME, short).name == Revision.target(NAME, long).name
    assert Revision.target(NAME, spec("v1", runtime={"threads": 2})).name != Revision.target(NAME, short).name


def test_going_back_to_a_previous_revision_whose_pods_have_gone_ends() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.run(settled)
    world.apply(spec("v1"))
    world.unready.add(world.target().name)
    world.run(settled, limit=400)
    last = world.status.last_release
    assert last is not None
    assert (world.live(), last.reason) == ("v2", "ProgressDeadlineExceeded")


def test_a_step_that_never_gets_its_pods_is_rolled_back() -> None:
    world = with_live(scaling={"min": 10})
    world.apply(spec("v2", scaling={"min": 10}))
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.CANARY)
    name = world.target().name
    for _ in range(600):
        world.tick()
        if world.status.release is None:
            break
        world.ready[name] = 1
    last = world.status.last_release
    assert last is not None
    assert (world.live(), last.outcome, last.reason) == ("v1", Outcome.ROLLED_BACK, "ProgressDeadlineExceeded")
