"""Rolling: users follow ready pods; no traffic and no Prometheus are needed."""

from __future__ import annotations

from typing import Any

from serinus.api.status import Outcome
from serinus.release.observed import Failure
from unit.release.world import World, settled, spec, with_live

ROLLING: dict[str, Any] = {"release": {"strategy": "Rolling", "rollbackWindow": "0"}}


def started(**changes: Any) -> World:
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    return world


def test_it_needs_neither_traffic_nor_prometheus() -> None:
    world = started(**ROLLING)
    world.prometheus_down, world.rate = True, 0.0
    live = world.plan.stable
    assert live is not None
    while not settled(world):
        world.tick()
        if world.live() == "v1":
            assert world.ready[live] >= 2, "the live version keeps its pods until it has no users"
    seen = [w for w, after in zip(world.weights_seen, [*world.weights_seen[1:], -1], strict=True) if w != after]
    assert world.live() == "v2"
    assert seen == [0, 25, 50, 75, 100, 0]


def test_failing_pods_roll_back() -> None:
    world = started(**ROLLING)
    world.run(lambda w: w.status.release and w.status.release.weight == 50)
    world.failures[world.target().name] = Failure("CrashLoop", "two restarts")
    world.run(settled)
    last = world.status.last_release
    assert world.live() == "v1"
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.ROLLED_BACK, "CrashLoop")


def test_a_clear_verdict_rolls_back_where_there_is_one() -> None:
    world = started(**ROLLING)
    world.error_rate[world.target().name] = 0.5
    world.run(settled)
    assert world.live() == "v1"


def test_pods_that_never_come_end_it() -> None:
    world = started(**ROLLING)
    world.unready.add(world.target().name)
    world.run(settled)
    assert world.live() == "v1"
    assert world.status.last_release is not None
    assert world.status.last_release.reason == "ProgressDeadlineExceeded"


def test_without_a_route_it_switches_when_all_pods_are_ready() -> None:
    changes = {**ROLLING, "route": None}
    world = started(**changes)
    world.run(settled)
    assert world.live() == "v2"
    assert world.plan.stable == world.target().name
