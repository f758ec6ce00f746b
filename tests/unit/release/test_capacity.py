"""Capacity is there before weight moves to it, also where users come back to the live revision or to the warm one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.status import Phase
from serinus.release.capacity import floor_for
from serinus.release.observed import Decision, Failure
from unit.release.world import World, settled, spec, with_live

SCALING = {"min": 2, "max": 20}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"release": {"strategy": "Rolling", "rollbackWindow": "2m"}},
    {"release": {"strategy": "BlueGreen", "steps": [{"preview": {}, "hold": "10s"}], "rollbackWindow": "2m"}},
    {
        "release": {
            "sticky": {"cookie": {"name": "serinus"}},
            "steps": [{"weight": weight, "hold": "10s", "minRequests": 50} for weight in (10, 50)],
            "rollbackWindow": "2m",
        }
    },
)
EVENTS = ("errors", "abort", "another spec", "the old spec", "rollback", "crash", "promote")


@dataclasses.dataclass
class Scaled(World):
    """A world whose autoscaler takes away every pod that no floor and no weight asks for, and that looks at each plan.

    Attributes:
        needed: pods for all users together.
    """

    needed: int = 2
    returned: list[str] = dataclasses.field(default_factory=list)
    """How weight came to a revision that had been live: in a roll-back, or after a wait."""

    def decide(self, *, store: bool = True) -> Decision:
        before, applied = self.status, dict(self.route)
        observed = self.observed()
        decision = super().decide(store=store)
        after = decision.status
        proved = {ref.revision for ref in (before.live, before.previous) if ref}
        for name, weight in decision.plan.weights.items():
            if weight <= applied.get(name, 0):
                continue
            state = observed.state(name)
            release, live = after.release, after.live
            if release is not None and release.phase is Phase.ROLLING_BACK and live is not None:
                # The one exception: a roll-back is one route write, before anything else, and waits for no pod. So
                # that of the revision it goes back to must have been kept: what served everybody, if it was left
                # with nobody, and the smallest that is allowed where it still had a share.
                assert name == live.revision, "weight to a candidate that is being rolled back"
                warm = before.previous is not None and before.previous.revision == name
                least = before.previous.replicas if warm and before.previous and before.previous.replicas else 2
                assert state.desired >= least, "rolled back to a revision whose pods were taken away"
                self.returned.append("rolled back to the warm one" if warm else "rolled back")
                continue
            live_pods = observed.state(before.live.revision if before.live else None).desired
            wanted = max(1, floor_for(weight, self.spec.scaling, live_pods))
            assert state.ready >= wanted, f"{weight}% to {state.ready} ready pods of {wanted}"
            if name in proved:
                self.returned.append("waited")
        return decision

    def obey(self, decision: Decision) -> None:
        super().obey(decision)
        for item in decision.plan.revisions:
            share = decision.plan.weights.get(item.revision.name, 0)
            self.ready[item.revision.name] = max(item.floor, math.ceil(self.needed * share / 100))


def scaled(changes: dict[str, Any], needed: int) -> Scaled:
    """v1 is live with all the pods that its users need."""
    calm = with_live(scaling=SCALING, **changes)
    world = Scaled(**{each.name: getattr(calm, each.name) for each in dataclasses.fields(World)}, needed=needed)
    world.tick()
    return world


def happens(world: Scaled, event: str, changes: dict[str, Any]) -> None:
    """`event`, whatever the release is doing."""
    candidate = world.target().name
    match event:
        case "errors":
            world.error_rate[candidate] = 0.5
        case "crash":
            world.failures[candidate] = Failure("CrashLoop", "broken", at=world.now)
        case "another spec" | "the old spec":
            world.apply(spec("v3" if event == "another spec" else "v1", scaling=SCALING, **changes))
        case "rollback":
            world.asked["rollback"] = "v1"
        case _:
            world.asked[event] = "now"


@given(
    changes=st.sampled_from(CHANGES),
    needed=st.integers(2, 12),
    moment=st.integers(0, 60),
    event=st.sampled_from(EVENTS),
    away=st.sampled_from(["nobody", "v1", "v2"]),
    ticks=st.integers(1, 6),
)
@settings(max_examples=200, deadline=None)
def test_capacity_is_there_before_weight_moves_to_it(
    changes: dict[str, Any], needed: int, moment: int, event: str, away: str, ticks: int
) -> None:
    """One event at any moment of a release, while pods of either version are away for a while."""
    world = scaled(changes, needed)
    names = {"v1": world.target().name}
    world.apply(spec("v2", scaling=SCALING, **changes))
    names["v2"] = world.target().name
    for _ in range(moment):
        world.tick()
    if away in names:
        world.unready.add(names[away])
    happens(world, event, changes)
    for _ in range(ticks):
        world.tick()
    world.unready.clear()
    world.failures.clear()
    world.run(settled)


@pytest.mark.parametrize(
    ("event", "ticks", "how"),
    [("errors", 20, "rolled back"), ("errors", 45, "rolled back to the warm one"), ("rollback", 45, "waited")],
)
def test_every_way_back_is_looked_at(event: str, ticks: int, how: str) -> None:
    """The property above would hold of worlds, too, in which nobody ever comes back."""
    world = scaled({}, 8)
    world.apply(spec("v2", scaling=SCALING))
    for _ in range(ticks):
        world.tick()
    happens(world, event, {})
    world.run(lambda w: settled(w) and w.live() == "v1")
    assert world.returned == [how]
