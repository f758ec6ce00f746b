"""Elsewhere status says Ready while a version is rolling out, or while the live one is down."""

from __future__ import annotations

from serinus.api.status import ModelDeploymentStatus
from serinus.release.observed import Failure
from unit.pains.scenes import under_way
from unit.release.world import World, settled, spec, with_live


def conditions(status: ModelDeploymentStatus) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


def test_while_a_release_runs_it_is_reconciling_and_no_longer_than_that() -> None:
    world = with_live()
    assert "Reconciling" not in conditions(world.status)
    world.apply(spec("v2"))
    ran = 0
    for _ in range(400):
        world.tick()
        assert world.status.observed_generation == world.generation, "a generation that nobody looked at"
        assert ("Reconciling" in conditions(world.status)) == (world.status.release is not None)
        ran += world.status.release is not None
        if settled(world):
            break
    assert ran > 10
    assert world.live() == "v2"


def test_each_condition_is_of_the_present_generation() -> None:
    world = under_way()
    world.apply(spec("v3"))
    world.tick()
    assert {condition.observed_generation for condition in world.status.conditions} == {world.generation}


def test_live_pods_that_are_gone_are_not_ready_even_in_mid_release() -> None:
    world = under_way()
    live = world.status.live
    assert live is not None
    assert conditions(world.status)["Ready"] == "True"
    world.unready.add(live.revision)
    world.tick()
    assert conditions(world.status)["Ready"] == "False"


def test_a_failed_release_says_stalled_although_the_live_version_is_ready() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.failures[world.target().name] = Failure("ModelLoadFailed", "no operator")
    world.run(settled)
    world.tick()
    found = conditions(world.status)
    assert (found["Ready"], found["Stalled"]) == ("True", "True")
    assert world.live() == "v1"


def test_nothing_is_ready_before_something_is_live() -> None:
    world = World(spec("v1"))
    world.unready.add(world.target().name)
    for _ in range(5):
        world.tick()
        assert conditions(world.status)["Ready"] == "False"
