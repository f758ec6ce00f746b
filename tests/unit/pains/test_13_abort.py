"""Elsewhere an aborted release runs again, an idle abort zeroes stable, a rebuilt cluster serves the unproved."""

from __future__ import annotations

import pytest

from serinus.api.status import ModelDeploymentStatus, Outcome
from unit.pains.scenes import under_way
from unit.release.world import World, settled, spec, with_live


def test_an_aborted_release_does_not_run_again_by_itself() -> None:
    world = under_way()
    world.asked["abort"] = "1"
    world.run(settled)
    candidate = world.target().name
    for _ in range(300):
        world.tick(30.0)
        assert world.status.release is None
        assert world.route.get(candidate, 0) == 0
    # An edit that makes no new revision is no reason to try again.
    world.apply(spec("v2", slo={"p99": "80ms"}))
    for _ in range(20):
        world.tick()
        assert world.status.release is None
    world.asked["retry"] = "1"
    world.run(lambda w: w.status.release is not None)


@pytest.mark.parametrize("times", [1, 3])
def test_an_abort_when_nothing_runs_changes_nothing(times: int) -> None:
    world = with_live()
    before = (dict(world.route), dict(world.ready), world.status.live)
    for number in range(times):
        world.asked["abort"] = str(number)
        for _ in range(5):
            world.tick()
    assert (dict(world.route), dict(world.ready), world.status.live) == before
    assert "NothingToAbort" in [note.reason for note in world.notes]


def test_during_an_abort_the_live_version_has_every_request_at_once() -> None:
    world = under_way(weight=50)
    live = world.status.live
    assert live is not None
    world.asked["abort"] = "1"
    world.tick()
    assert world.route[live.revision] == 100
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.ROLLED_BACK, "Aborted")


def test_a_status_that_survives_keeps_the_unproved_version_away_in_a_rebuilt_cluster() -> None:
    """Only the object with its status is there: no pods, no routes, no snapshots of revisions."""
    world = under_way()
    world.asked["abort"] = "1"
    world.run(settled)
    rebuilt = World(world.spec, world.status, world.now, world.generation, rate=0.0)
    for _ in range(50):
        rebuilt.tick()
        assert rebuilt.route.get(rebuilt.target().name, 0) == 0, "the aborted version serves"


def test_without_a_status_the_declared_version_starts_anew_and_waits_until_it_is_ready() -> None:
    world = under_way()
    rebuilt = World(world.spec, ModelDeploymentStatus(), world.now)
    rebuilt.unready.add(rebuilt.target().name)
    for _ in range(20):
        rebuilt.tick()
        assert not rebuilt.route
    rebuilt.unready.clear()
    rebuilt.run(settled)
    assert rebuilt.live() == "v2"
