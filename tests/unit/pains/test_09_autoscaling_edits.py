"""Elsewhere an edit of the autoscaling does not reach the live version before the next release."""

from __future__ import annotations

from unit.pains.scenes import child, objects, of_kind, promoted, under_way
from unit.release.world import spec, with_live


def test_an_edit_takes_effect_in_place_and_starts_no_release() -> None:
    world = with_live(scaling={"min": 2, "max": 4})
    live = world.status.live
    assert live is not None
    world.apply(spec("v1", scaling={"min": 3, "max": 40, "metrics": [{"type": "QueueDepth", "target": 7}]}))
    world.tick()
    assert world.status.release is None
    autoscaler = of_kind(objects(world.plan, world.spec), "HorizontalPodAutoscaler")[child(live.revision)]
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (3, 40)
    assert autoscaler["spec"]["metrics"][0]["pods"]["metric"]["name"] == "serinus_queue_depth"


def test_in_mid_release_it_reaches_both() -> None:
    world = under_way(scaling={"min": 2, "max": 4})
    world.apply(spec("v2", scaling={"min": 2, "max": 40}))
    world.tick()
    assert world.status.release is not None
    assert world.status.release.weight == 5, "an edit of the scaling is no new release"
    autoscalers = of_kind(objects(world.plan, world.spec), "HorizontalPodAutoscaler")
    assert {autoscaler["spec"]["maxReplicas"] for autoscaler in autoscalers.values()} == {40}


def test_it_reaches_the_warm_predecessor_too() -> None:
    world = promoted(scaling={"min": 2, "max": 4})
    world.apply(spec("v2", scaling={"min": 2, "max": 40}))
    world.tick()
    autoscalers = of_kind(objects(world.plan, world.spec), "HorizontalPodAutoscaler")
    assert [autoscaler["spec"]["maxReplicas"] for autoscaler in autoscalers.values()] == [40, 40]
