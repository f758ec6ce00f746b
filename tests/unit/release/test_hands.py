"""What people ask for by annotation."""

from __future__ import annotations

from datetime import timedelta

import pytest

from serinus.api.status import Outcome, Phase
from unit.release.world import World, settled, spec, with_live


def canary(world: World) -> bool:
    return world.status.release is not None and world.status.release.phase is Phase.CANARY


def reasons(world: World) -> list[str]:
    return [note.reason for note in world.notes]


def under_way(version: str = "v2") -> World:
    world = with_live()
    world.apply(spec(version))
    world.run(canary)
    return world


def test_promote_skips_the_steps_that_are_left() -> None:
    world = under_way()
    world.asked["promote"] = "now"
    world.run(settled)
    assert world.live() == "v2"
    assert set(world.weights_seen) <= {0, 5, 100}
    assert reasons(world).count("PromotionAsked") == 1


def test_promote_does_not_promote_what_is_plainly_broken() -> None:
    world = under_way()
    world.error_rate[world.target().name] = 0.5
    world.serve(5)
    world.asked["promote"] = "now"
    world.run(settled)
    assert world.live() == "v1"


def test_promote_before_pods_are_ready_waits_for_them() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.unready.add(world.target().name)
    world.tick()
    world.asked["promote"] = "now"
    for _ in range(5):
        world.tick()
        assert world.route.get(world.target().name, 0) == 0
    world.unready.clear()
    world.run(settled)
    assert world.live() == "v2"
    assert 5 not in world.weights_seen


def test_abort_takes_every_request_back_and_is_not_tried_again() -> None:
    world = under_way()
    world.asked["abort"] = "1"
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (world.live(), last.outcome, last.reason) == ("v1", Outcome.ROLLED_BACK, "Aborted")
    for _ in range(5):
        world.tick()
    assert world.status.release is None


def test_abort_before_the_first_request_ends_the_release() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.unready.add(world.target().name)
    world.tick()
    world.asked["abort"] = "1"
    world.tick()
    assert world.status.last_release is not None
    assert world.status.last_release.reason == "Aborted"
    assert world.weights_seen == [0] * len(world.weights_seen)


def test_a_value_is_acted_on_once() -> None:
    world = under_way()
    world.asked["abort"] = "1"
    world.run(settled)
    world.apply(spec("v3"))
    world.run(settled)
    assert world.live() == "v3", "the old abort is not aimed at the new release"


def test_annotations_of_a_new_object_are_history() -> None:
    world = World(spec("v1"), asked={"abort": "1", "rollback": "v0", "promote": "x"})
    world.tick()
    world.run(settled)
    assert world.live() == "v1"
    assert not {"NothingToAbort", "RollbackTargetUnknown"} & set(reasons(world))


def test_pause_holds_the_weight_and_going_on_is_told() -> None:
    world = under_way()
    world.asked["pause"] = "true"
    for _ in range(60):
        world.tick()
    assert world.status.release is not None
    assert (world.status.release.weight, world.status.release.reason) == (5, "Paused")
    assert reasons(world).count("Paused") == 1
    del world.asked["pause"]
    world.run(settled)
    assert world.live() == "v2"


def test_pause_does_not_protect_a_failing_candidate() -> None:
    world = under_way()
    world.asked["pause"] = "true"
    world.tick()
    world.error_rate[world.target().name] = 0.5
    world.run(settled)
    assert world.live() == "v1"


def test_pause_before_the_first_request() -> None:
    world = with_live()
    world.asked["pause"] = "true"
    world.apply(spec("v2"))
    for _ in range(20):
        world.tick()
    assert set(world.weights_seen) == {0}
    assert reasons(world).count("CandidateReady") == 1


def test_approval_is_waited_for_once_all_else_speaks_for_it() -> None:
    plan = {"steps": [{"weight": 5, "hold": "4s", "minRequests": 1, "approval": True}, {"weight": 50, "hold": "4s"}]}
    world = with_live(release=plan)
    world.apply(spec("v2", release=plan))
    world.run(lambda w: w.status.release is not None and w.status.release.reason == "WaitingForApproval")
    for _ in range(20):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.weight == 5
    world.asked["approve"] = "alice"
    world.run(settled)
    assert world.live() == "v2"
    assert reasons(world).count("Approved") == 1


def test_rollback_to_the_warm_revision_is_one_step() -> None:
    world = under_way()
    world.run(settled)
    world.weights_seen.clear()
    world.asked["rollback"] = "previous"
    world.run(lambda w: w.live() == "v1")
    assert set(world.weights_seen) <= {0, 100}
    assert world.status.phase is Phase.ROLLED_BACK
    (stalled,) = [each for each in world.status.conditions if each.type == "Stalled"]
    assert stalled.reason == "RolledBackByHand"
    for _ in range(20):
        world.tick()
    assert world.live() == "v1", "what the spec asks for does not come back by itself"


def test_a_new_spec_ends_a_roll_back_by_hand() -> None:
    world = under_way()
    world.run(settled)
    world.asked["rollback"] = "v1"
    world.run(lambda w: w.live() == "v1")
    world.apply(spec("v3"))
    world.run(settled)
    assert world.live() == "v3"
    assert world.status.override is None


def test_retry_brings_back_what_the_spec_asks_for() -> None:
    world = under_way()
    world.run(settled)
    world.asked["rollback"] = "v1"
    world.run(lambda w: w.live() == "v1" and w.status.release is None)
    world.asked["retry"] = "1"
    world.run(lambda w: w.live() == "v2")


def test_rollback_in_mid_release_goes_by_weight_zero() -> None:
    world = under_way("v2")
    world.run(settled)
    world.apply(spec("v3"))
    world.run(canary)
    world.weights_seen.clear()
    world.asked["rollback"] = "v1"
    world.run(lambda w: w.live() == "v1" and w.status.release is None)
    assert 0 in world.weights_seen


def test_an_older_revision_gets_a_release_of_its_own() -> None:
    world = with_live(release={"steps": [{"weight": 5, "hold": "4s", "minRequests": 1}], "rollbackWindow": "0"})
    for version in ("v2", "v3"):
        plan = {"steps": [{"weight": 5, "hold": "4s", "minRequests": 1}], "rollbackWindow": "0"}
        world.apply(spec(version, release=plan))
        world.run(settled)
    world.weights_seen.clear()
    world.asked["rollback"] = "v1"
    world.run(lambda w: w.live() == "v1")
    assert 5 in world.weights_seen, "nobody knows how it does today: it is judged like any other"


@pytest.mark.parametrize("wanted", ["v99", "", "previous"])
def test_an_unknown_revision_is_told(wanted: str) -> None:
    world = with_live()
    world.asked["rollback"] = f"{wanted}#1"
    world.tick()
    assert reasons(world) == ["RollbackTargetUnknown"]
    assert "v1" in world.notes[0].message
    assert world.live() == "v1"


def test_retry_during_a_roll_back_is_meant_for_afterwards() -> None:
    world = under_way()
    world.error_rate[world.target().name] = 0.5
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.ROLLING_BACK)
    world.asked["retry"] = "1"
    world.error_rate.clear()
    world.tick()
    assert world.status.release is not None
    assert world.status.release.phase is Phase.ROLLING_BACK
    world.run(lambda w: settled(w) and w.live() == "v2")
    assert world.status.failed_revisions == []


def test_going_back_beyond_the_window_is_no_reason_to_look_all_the_time() -> None:
    """The window of the previous revision ends while the gateway is away."""
    world = under_way()
    world.run(settled)
    assert world.status.previous is not None
    assert world.status.previous.until is not None
    world.now = world.status.previous.until - timedelta(seconds=3)
    world.asked["rollback"] = "previous"
    world.gateway_down = True
    for _ in range(10):
        decision = world.tick()
    assert world.status.release is not None
    assert world.status.previous is not None, "it is what is being gone back to"
    assert decision.requeue_after == 2.0


def test_what_waits_for_a_window_cannot_be_promoted_and_says_what_can_be_done() -> None:
    world = with_live()
    world.frozen = "an incident"
    world.apply(spec("v2"))
    world.tick()
    world.asked["promote"] = "1"
    world.tick()
    (note,) = [note for note in world.notes if note.reason == "NothingToPromote"]
    assert note.message == "version v2 has not started: releases are frozen: an incident; promote it once it has"
