"""Elsewhere a release waits for ever for a GPU that the live version holds."""

from __future__ import annotations

import dataclasses

from serinus.api.status import Outcome
from serinus.release.observed import Observed
from unit.pains.scenes import child, objects, of_kind
from unit.release.world import World, settled, spec, with_live

GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


class FullNode(World):
    """No node has room for the candidate."""

    def observed(self) -> Observed:
        seen = super().observed()
        name = self.target().name
        if self.status.live and name != self.status.live.revision and name in seen.revisions:
            words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            since = self.status.release.phase_since if self.status.release else self.now
            full = dataclasses.replace(
                seen.revisions[name], ready=0, unschedulable_since=since, unschedulable_message=words
            )
            return dataclasses.replace(seen, revisions={**seen.revisions, name: full})
        return seen


def full(world: World) -> FullNode:
    return FullNode(**{each.name: getattr(world, each.name) for each in dataclasses.fields(World)})


def test_a_candidate_without_a_gpu_ends_with_the_schedulers_words_and_the_live_one_serves_on() -> None:
    world = full(with_live(runtime=GPU))
    live = world.status.live
    assert live is not None
    world.apply(spec("v2", runtime=GPU))
    world.tick()
    for _ in range(1000):
        if settled(world):
            break
        world.tick(5.0)
        assert world.route == {live.revision: 100} or world.route.get(live.revision) == 100
        assert world.ready[live.revision] >= 2
    last = world.status.last_release
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.FAILED, "Unschedulable")
    assert "nvidia.com/gpu" in last.message
    world.tick()
    assert world.target().name not in world.ready, "the failed candidate goes on asking for the GPU"


def test_replacing_a_pod_of_the_same_revision_makes_room_first() -> None:
    world = with_live(runtime=GPU)
    live = world.status.live
    assert live is not None
    deployment = of_kind(objects(world.plan, world.spec), "Deployment")[child(live.revision)]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert "nvidia.com/gpu" not in str(deployment["spec"]["template"]["spec"]["initContainers"][0]["resources"])
