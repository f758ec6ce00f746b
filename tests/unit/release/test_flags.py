"""Flags: who is pinned where, before, during and after a release."""

from __future__ import annotations

from typing import Any

from serinus.api.status import Phase
from serinus.release.observed import Failure, Plan
from unit.release.world import World, settled, spec, with_live


def flag(version: str) -> dict[str, Any]:
    return {
        "name": version.lower(),
        "match": [{"headers": [{"name": "X-Group", "value": version}]}],
        "version": version,
    }


def flags(*versions: str) -> dict[str, Any]:
    return {"route": {"parentRefs": [{"name": "public"}], "flags": [flag(version) for version in versions]}}


def pins(plan: Plan) -> list[str]:
    return [pin.revision for pin in plan.pins]


def test_a_pin_to_the_candidate_lasts_from_its_first_ready_pod_to_the_end_of_its_release() -> None:
    world = with_live(**flags("candidate", "live"))
    live = world.target().name
    assert pins(world.plan) == [live], "there is no candidate: its users are served as everybody else"
    world.apply(spec("v2", **flags("candidate", "live")))
    candidate = world.target().name
    world.unready.add(candidate)
    world.tick()
    world.tick()
    assert world.status.release is not None
    assert world.status.release.phase is Phase.STARTING
    assert pins(world.plan) == [live]
    world.unready.clear()
    world.run(lambda w: w.status.release and w.status.release.phase is Phase.CANARY)
    assert pins(world.plan) == [candidate, live]
    world.run(settled)
    assert pins(world.plan) == [candidate], "the candidate is the live version now"
    assert world.live() == "v2"


def test_nobody_stays_pinned_to_a_candidate_that_is_rolled_back() -> None:
    world = with_live(**flags("candidate"))
    world.apply(spec("v2", **flags("candidate")))
    candidate = world.target().name
    world.error_rate[candidate] = 0.5
    world.run(lambda w: w.status.release and w.status.release.phase is Phase.ROLLING_BACK)
    assert pins(world.plan) == [], "the same route write that takes the weight takes the pin"
    world.run(settled)
    assert pins(world.plan) == []


def test_a_version_that_only_a_flag_asks_for_keeps_pods() -> None:
    world = with_live("v1")
    old = world.target().name
    for version in ("v2", "v3"):
        world.apply(spec(version))
        world.run(settled)
    world.now = world.now.replace(year=world.now.year + 1)
    world.tick()
    assert old not in world.ready
    world.apply(spec("v3", **flags("v1")))
    world.tick()
    assert pins(world.plan) == [], "not before it is ready"
    assert world.status.flags[0].reason == "WaitingForPods"
    world.tick()
    assert pins(world.plan) == [old]
    assert world.status.flags[0].revision == old
    assert {item.revision.name: item.floor for item in world.plan.revisions}[old] == 1
    assert set(world.plan.weights) == {world.target().name}, "it has no weight"
    world.failures[old] = Failure("CrashLoop", "two restarts")
    world.tick()
    assert pins(world.plan) == []
    assert world.status.release is None, "that is no reason to release anything"


def test_a_pin_to_an_unknown_or_failed_version_is_said_and_leads_nowhere() -> None:
    world = with_live(**flags("v7"))
    world.tick()
    assert pins(world.plan) == []
    (condition,) = [c for c in world.status.conditions if c.type == "FlagsUnresolved"]
    assert condition.reason == "UnknownVersion"
    assert condition.message == (
        "flag v7: no kept version is called v7; there are v1; its users are served as everybody else"
    )
    world.apply(spec("v7", **flags("v7")))
    world.failures[world.target().name] = Failure("CrashLoop", "two restarts")
    world.run(settled)
    assert world.status.failed_revisions
    world.failures.clear()
    world.tick()
    assert pins(world.plan) == []
    (condition,) = [c for c in world.status.conditions if c.type == "FlagsUnresolved"]
    assert condition.reason == "VersionFailed"


def test_pins_need_no_release_and_cost_nothing_where_there_are_none() -> None:
    world: World = with_live()
    assert world.plan.pins == ()
    assert world.status.flags == []
    assert not [c for c in world.status.conditions if c.type == "FlagsUnresolved"]
