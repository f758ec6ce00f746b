"""Elsewhere the stable version shrinks when the route is written, before any proxy has heard of it."""

from __future__ import annotations

import pytest

from serinus.api.status import Phase
from unit.pains.scenes import under_way
from unit.release.world import World, spec, with_live


def floor(world: World, revision: str) -> int:
    return next(item.floor for item in world.plan.revisions if item.revision.name == revision)


@pytest.mark.parametrize("ticks", [1, 20, 200])
def test_with_all_weight_written_and_the_gateway_silent_the_old_version_keeps_its_pods(ticks: int) -> None:
    world = under_way(scaling={"min": 4})
    old, release = world.status.live, world.status.release
    assert old is not None
    assert release is not None
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.PROMOTING)
    world.gateway_down = True
    for _ in range(ticks):
        world.tick()
    assert world.status.release is not None, "ended although the gateway never confirmed"
    assert world.live() == "v1"
    assert floor(world, old.revision) == 4


def test_after_the_promotion_it_keeps_the_replicas_it_had() -> None:
    world = with_live(scaling={"min": 2, "max": 20})
    old = world.status.live
    assert old is not None
    world.ready[old.revision] = 9
    world.apply(spec("v2", scaling={"min": 2, "max": 20}))
    world.run(lambda w: w.live() == "v2")
    world.tick()
    assert floor(world, old.revision) >= 9


def test_a_roll_back_waits_for_the_gateway_before_the_candidates_pods_go() -> None:
    world = under_way()
    release = world.status.release
    assert release is not None
    world.gateway_down = True
    world.asked["abort"] = "1"
    for _ in range(100):
        world.tick()
        assert release.revision in world.ready, "pods removed while proxies may still send to them"
    world.gateway_down = False
    world.run(lambda w: w.status.release is None)
    world.tick()
    assert release.revision not in world.ready
