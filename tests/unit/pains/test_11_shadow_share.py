"""Elsewhere a mirror is all or nothing, reaches candidates that are not ready, or does nothing and says nothing."""

from __future__ import annotations

import pytest

from serinus.api.status import Phase
from unit.pains.scenes import child, objects, of_kind
from unit.release.world import World, settled, spec, with_live


def shadowed(percent: int) -> World:
    """v1 is live; v2 is about to have a shadow of this share."""
    plan = {"steps": [{"shadow": {"percent": percent, "duration": "20s", "minPairs": 20}}, {"weight": 50}]}
    world = with_live(release=plan)
    world.apply(spec("v2", release=plan))
    return world


def in_phase(world: World, phase: Phase) -> bool:
    return world.status.release is not None and world.status.release.phase is phase


@pytest.mark.parametrize("percent", [1, 10, 100])
def test_the_share_is_what_was_asked_for_and_users_see_the_live_version_only(percent: int) -> None:
    world = shadowed(percent)
    world.run(lambda w: in_phase(w, Phase.SHADOWING))
    world.tick()
    (route,) = of_kind(objects(world.plan, world.spec), "HTTPRoute").values()
    live = world.status.live
    assert live is not None
    for rule in route["spec"]["rules"]:
        (found,) = rule["filters"]
        assert found["requestMirror"]["percent"] == percent
        assert found["requestMirror"]["backendRef"]["name"] == child(world.target().name)
        weights = {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
        assert weights.pop(child(live.revision)) == 100
        assert not any(weights.values())


def test_a_candidate_that_is_not_ready_is_not_mirrored_to() -> None:
    world = shadowed(50)
    world.unready.add(world.target().name)
    for _ in range(20):
        world.tick()
        assert world.plan.mirror is None
    world.unready.clear()
    world.run(lambda w: w.plan.mirror is not None)


def test_the_mirror_goes_with_its_step() -> None:
    world = shadowed(50)
    world.run(lambda w: in_phase(w, Phase.CANARY))
    world.tick()
    (route,) = of_kind(objects(world.plan, world.spec), "HTTPRoute").values()
    assert all("filters" not in rule for rule in route["spec"]["rules"])


def test_a_mirror_that_brings_nothing_holds_and_a_gateway_that_refuses_it_ends_the_release() -> None:
    world = shadowed(50)
    world.joiner_down = True
    world.run(lambda w: in_phase(w, Phase.SHADOWING))
    for _ in range(100):
        world.tick()
        assert in_phase(world, Phase.SHADOWING), "a shadow passed on nothing"
    world = shadowed(50)
    world.mirror_refused = True
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (last.reason, world.live()) == ("MirrorRefused", "v1")
