"""How long pods may be missing, and which missing pod matters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from serinus.api.status import Outcome, Phase
from serinus.release.observed import Observed
from unit.release.world import World, releasing, settled, spec, with_live

DEADLINE = 60.0


def short(**release: Any) -> dict[str, Any]:
    changes = releasing()
    changes["release"] |= {"progressDeadline": "1m", **release}
    return changes


def wait(world: World, seconds: float) -> None:
    end = world.now + timedelta(seconds=seconds)
    while world.now < end:
        world.tick()


def paused(phase: Phase, weight: int) -> World:
    """A release of v2 that somebody has held here for longer than the deadline."""
    world = with_live(**short())
    if phase is Phase.STARTING:
        world.asked["pause"] = "true"
    world.apply(spec("v2", **short()))
    world.run(lambda w: bool(w.status.release and (w.status.release.phase, w.status.release.weight) == (phase, weight)))
    world.asked["pause"] = "true"
    wait(world, 10 * DEADLINE)
    assert world.status.release is not None
    assert world.status.release.reason == "Paused"
    return world


@pytest.mark.parametrize(("phase", "weight"), [(Phase.STARTING, 0), (Phase.CANARY, 5), (Phase.CANARY, 50)])
def test_a_pod_that_is_away_for_a_moment_does_not_end_what_was_held_for_long(phase: Phase, weight: int) -> None:
    """A node is drained. The deadline is for pods, not for the time that people take."""
    world = paused(phase, weight)
    name = world.target().name
    world.lost[name] = {"pod-0": world.now}
    del world.asked["pause"]
    wait(world, DEADLINE / 2)
    assert world.status.release is not None, world.status.last_release
    world.lost.clear()
    world.run(settled)
    assert world.live() == "v2"


@pytest.mark.parametrize(("phase", "weight"), [(Phase.STARTING, 0), (Phase.CANARY, 50)])
def test_a_pod_that_stays_away_does(phase: Phase, weight: int) -> None:
    world = paused(phase, weight)
    world.lost[world.target().name] = {"pod-0": world.now}
    del world.asked["pause"]
    began = world.now
    world.run(lambda w: bool(w.status.last_release and w.status.last_release.version == "v2"), limit=200)
    last = world.status.last_release
    assert last is not None
    assert last.reason == "ProgressDeadlineExceeded"
    assert last.outcome is (Outcome.ROLLED_BACK if weight else Outcome.FAILED)
    assert (world.now - began).total_seconds() >= DEADLINE


@dataclass
class Full(World):
    """A cluster whose nodes are full: some pods find none."""

    stuck: dict[str, datetime] = field(default_factory=dict)

    def observed(self) -> Observed:
        found = super().observed()
        states = {
            name: replace(state, unschedulable_since=self.stuck.get(name), unschedulable_message="0/3 nodes")
            for name, state in found.revisions.items()
        }
        return replace(found, revisions=states)


def full() -> Full:
    world = with_live()
    return Full(**{name: getattr(world, name) for name in World.__dataclass_fields__})


def test_a_pod_more_than_needed_that_finds_no_node_is_no_failure() -> None:
    """The autoscaler wants it; the candidate has all that its share and the next one need."""
    world = full()
    world.apply(spec("v2"))
    world.run(lambda w: bool(w.status.release and w.status.release.weight == 5))
    world.stuck[world.target().name] = world.now
    world.asked["pause"] = "true"
    wait(world, 300)
    assert world.status.release is not None, world.status.last_release
    del world.asked["pause"]
    world.run(settled)
    assert world.live() == "v2"


def test_one_that_is_needed_is() -> None:
    world = full()
    world.apply(spec("v2"))
    world.run(lambda w: bool(w.status.release and w.status.release.weight == 5))
    name = world.target().name
    world.stuck[name], world.lost[name] = world.now, {"pod-0": world.now}
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (world.live(), last.reason) == ("v1", "Unschedulable")
