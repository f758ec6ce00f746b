"""A pod that has died once, long ago, and serves since: nothing that speaks against its version today."""

from __future__ import annotations

from datetime import timedelta

import pytest

from serinus.api.status import Outcome
from serinus.release.observed import Failure
from unit.release.world import World, settled, spec, with_live

FLAG = {"route": {"parentRefs": [{"name": "public"}], "flags": [
    {"name": "beta", "match": [{"cookie": {"name": "beta"}}], "version": "v1"},
]}}  # fmt: skip


def promoted(**changes: object) -> tuple[World, str, str]:
    """v2 has just become live; v1, whose pods were killed a day ago and serve since, is warm."""
    world = with_live(**changes)
    old = world.target().name
    world.failures[old] = Failure("OOMKilled", "it died once", world.now - timedelta(days=1))
    world.apply(spec("v2", **changes))
    world.tick()
    world.run(lambda w: settled(w) and w.live() == "v2")
    world.notes.clear()
    return world, old, world.target().name


@pytest.mark.parametrize("how", ["by hand", "by git"])
def test_a_version_that_served_well_is_gone_back_to(how: str) -> None:
    world, old, _ = promoted()
    if how == "by hand":
        world.asked["rollback"] = "previous"
    else:
        world.apply(spec("v1"))
    world.tick()
    world.run(settled)
    assert world.live() == "v1"
    assert old not in world.status.failed_revisions


def test_one_that_dies_while_it_comes_back_is_not() -> None:
    world, old, _ = promoted()
    world.asked["rollback"] = "previous"
    world.tick()
    world.failures[old] = Failure("OOMKilled", "it died again", world.now)
    world.run(settled)
    assert world.live() == "v2"
    assert old in world.status.failed_revisions


def test_a_candidate_that_died_since_its_release_began_is_found_although_it_runs_again() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.tick()
    world.failures[world.target().name] = Failure("OOMKilled", "it died", world.now)
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (last.version, last.outcome, last.reason) == ("v2", Outcome.FAILED, "OOMKilled")


def test_a_promoted_version_that_died_since_its_release_began_goes_back() -> None:
    """Whatever a clock of a node says of the second in which it was promoted."""
    world, _, new = promoted()
    world.failures[new] = Failure("CrashLoop", "it died", world.now - timedelta(seconds=5))
    world.run(lambda w: w.live() == "v1", limit=5)


def test_what_died_before_the_watch_is_no_reason_to_go_back_again() -> None:
    """v1 is live again by hand; that it was killed a day ago is no news."""
    world, _, _ = promoted()
    world.asked["rollback"] = "previous"
    world.tick()
    world.run(settled)
    assert world.status.previous is not None
    for _ in range(60):
        world.tick()
    assert world.live() == "v1"
    assert world.status.release is None


def test_a_flag_leads_to_pods_that_serve_again() -> None:
    world, old, _ = promoted(**FLAG)
    world.tick()
    assert [(each.revision, each.reason) for each in world.status.flags] == [(old, None)]
    world.failures[old] = Failure("CrashLoop", "it dies")
    world.tick()
    assert [(each.revision, each.reason) for each in world.status.flags] == [(None, "CrashLoop")]
