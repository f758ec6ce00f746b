"""A promoted version that turns bad is rolled back for as long as its predecessor is warm."""

from __future__ import annotations

import pytest

from serinus.api.status import Outcome, Phase
from serinus.release.observed import Failure
from unit.release.world import World, settled, spec, with_live


def promoted() -> tuple[World, str, str]:
    """A world in which v2 has just become live; the names of v1 and v2."""
    world = with_live()
    old = world.target().name
    world.apply(spec("v2"))
    world.tick()
    world.run(lambda w: settled(w) and w.live() == "v2")
    world.notes.clear()
    return world, old, world.target().name


@pytest.mark.parametrize("quiet", [0, 200])
@pytest.mark.parametrize(("kind", "reason"), [("error_rate", "ErrorRateTooHigh"), ("slow_rate", "LatencyTooHigh")])
def test_turning_bad_after_the_promotion_rolls_back(kind: str, reason: str, quiet: int) -> None:
    world, old, new = promoted()
    for _ in range(quiet):
        world.tick()
    assert world.status.release is None
    getattr(world, kind)[new] = 0.1
    ticks = 0
    while world.status.release is None:
        world.tick()
        ticks += 1
        assert ticks < 15
    assert world.status.release.phase is Phase.ROLLING_BACK
    assert world.route == {old: 100, new: 0}
    assert world.ready[new] >= 1, "pods stay until the traffic has left"
    world.run(settled)
    assert world.live() == "v1"
    assert new not in world.ready
    assert world.status.phase is Phase.ROLLED_BACK
    last = world.status.last_release
    assert last is not None
    assert (last.version, last.outcome, last.reason) == ("v2", Outcome.ROLLED_BACK, reason)
    assert "the error budget burns" in last.message
    for _ in range(30):
        world.tick()
    assert world.live() == "v1", "it is not tried again by itself"


@pytest.mark.parametrize("reason", ["OOMKilled", "CrashLoop"])
@pytest.mark.parametrize("prometheus_down", [False, True])
def test_pods_that_die_after_the_promotion_roll_back(reason: str, prometheus_down: bool) -> None:
    """Nobody counts what a dead pod was asked, so counts cannot tell."""
    world, old, new = promoted()
    world.prometheus_down = prometheus_down
    world.failures[new] = Failure(reason, "it died")
    world.tick()
    assert world.route == {old: 100, new: 0}
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (world.live(), last.version, last.outcome, last.reason) == ("v1", "v2", Outcome.ROLLED_BACK, reason)


def test_a_pod_that_cannot_start_after_the_promotion_is_not_the_versions_doing() -> None:
    world, _, new = promoted()
    world.failures[new] = Failure("ImagePullBackOff", "the registry is away")
    for _ in range(30):
        world.tick()
    assert world.live() == "v2"


def test_pods_that_die_without_a_warm_predecessor_stay() -> None:
    world, old, new = promoted()
    world.unready.add(old)
    world.failures[new] = Failure("OOMKilled", "it died")
    for _ in range(30):
        world.tick()
    assert world.live() == "v2"


def test_a_good_one_is_left_alone_and_no_longer_watched_after_the_window() -> None:
    world, _, _ = promoted()
    world.run(lambda w: w.status.previous is None)
    assert world.status.watch is None
    assert world.live() == "v2"
    assert world.status.release is None


def test_without_a_warm_predecessor_nothing_is_rolled_back() -> None:
    world, old, new = promoted()
    world.unready.add(old)
    world.error_rate[new] = 1.0
    for _ in range(30):
        world.tick()
    assert world.live() == "v2"
    world.unready.clear()
    world.tick()
    world.run(settled)
    assert world.live() == "v1"


def test_prometheus_away_is_no_reason_to_go_back() -> None:
    world, _, _ = promoted()
    world.prometheus_down = True
    for _ in range(60):
        world.tick()
    assert world.live() == "v2"
    assert world.status.release is None


@pytest.mark.parametrize("trouble", ["errors", "crash", "readiness"])
def test_nobody_is_sent_to_a_version_that_somebody_rolled_back_from(trouble: str) -> None:
    """v1 serves by hand. What is wrong now may hit v2 too, and a person has said that v2 must not serve."""
    world, old, new = promoted()
    world.asked["rollback"] = "previous"
    world.tick()
    world.run(lambda w: settled(w) and w.live() == "v1")
    assert world.status.previous is not None
    assert world.status.previous.revision == new, "it is warm, for whoever wants it by hand"
    if trouble == "errors":
        world.error_rate[old] = 0.5
    elif trouble == "crash":
        world.failures[old] = Failure("OOMKilled", "it died")
    else:
        world.lost[old] = {"pod-0": world.now, "pod-1": world.now}
    for _ in range(60):
        world.tick()
        assert world.live() == "v1"
    assert world.status.release is None
    world.failures.clear()
    world.lost.clear()
    world.asked["retry"] = "1"
    world.tick()
    world.run(settled)
    assert world.live() == "v2", "by hand it can be had again"
