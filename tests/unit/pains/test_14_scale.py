"""Elsewhere thousands of releases need gigabytes and a daily restart: here what is kept has a bound."""

from __future__ import annotations

import random

from serinus.release.observed import Failure
from unit.release.world import World, settled, spec, with_live


def stored_bytes(world: World) -> int:
    return len(world.status.model_dump_json(by_alias=True))


def many(world: World, first: int, last: int, dice: random.Random) -> None:
    """Releases number `first` up to `last`, good ones and bad ones; abandoned revisions are forgotten."""
    for number in range(first, last):
        world.apply(spec(f"v{number:04d}", release={"steps": [{"weight": 50, "hold": "2s", "minRequests": 1}]}))
        if dice.random() < 0.5:
            world.failures[world.target().name] = Failure("CrashLoop", "exit code 1 after 2 restarts: " + "x" * 500)
        world.run(settled)
        world.notes.clear()


def test_status_stops_growing() -> None:
    world, dice = with_live(), random.Random(5)
    many(world, 10, 60, dice)
    after_50 = stored_bytes(world)
    many(world, 60, 160, dice)
    assert stored_bytes(world) < 1.2 * after_50
    assert stored_bytes(world) < 200_000, "etcd takes 1.5 MB, watchers read it all"
    assert len(world.plan.revisions) <= 3, "revisions with pods"


def test_a_settled_object_needs_no_look_of_its_own() -> None:
    world = with_live()
    world.tick(700.0)
    decision = world.decide(store=False)
    assert decision.requeue_after is None
    assert decision.status == world.status
