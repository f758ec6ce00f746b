"""A promoted version is rolled back where its pods run on unready, and not where the cluster takes them away."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.status import Outcome, Phase
from serinus.release.observed import Failure
from serinus.release.quiet import worth_storing
from serinus.release.readiness import OUTAGE, REASON
from unit.release.world import World, settled, spec, stored, with_live

DEADLINE = 120.0
CHANGES = {
    "release": {
        "steps": [{"weight": 5, "hold": "20s", "minRequests": 50}],
        "rollbackWindow": "1h",
        "progressDeadline": "2m",
    },
}


@functools.cache
def released() -> tuple[World, str, str]:
    world = with_live(**CHANGES)
    old = world.target().name
    world.apply(spec("v2", **CHANGES))
    world.tick()
    world.run(lambda w: settled(w) and w.live() == "v2")
    world.notes.clear()
    return world, old, world.target().name


def promoted() -> tuple[World, str, str]:
    """A world in which v2 has just become live, each version with two pods; the names of v1 and v2."""
    return copy.deepcopy(released())


def lose(world: World, name: str, pods: int = 2) -> None:
    world.lost[name] = {f"pod-{number}": world.now for number in range(pods)}


def wait(world: World, seconds: float) -> None:
    end = world.now + timedelta(seconds=seconds)
    while world.now < end:
        world.tick()


@pytest.mark.parametrize("prometheus_down", [False, True])
@pytest.mark.parametrize(("pods", "limit", "said"), [(2, OUTAGE, "for 30s"), (1, DEADLINE, "for 2m")])
def test_pods_that_are_not_ready_any_more_roll_back(pods: int, limit: float, said: str, prometheus_down: bool) -> None:
    world, old, new = promoted()
    world.prometheus_down = prometheus_down
    began = world.now
    lose(world, new, pods)
    world.run(lambda w: w.status.release is not None)
    assert limit <= (world.now - began).total_seconds() <= limit + 4
    assert world.route == {old: 100, new: 0}
    note = next(each for each in world.notes if each.reason == "RollingBack")
    assert note.type == "Warning"
    assert note.message.startswith(f"{REASON} after the promotion: {2 - pods} of 2 pods are ready")
    assert said in note.message
    assert "pod-0" in note.message
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert (world.live(), last.version, last.outcome, last.reason) == ("v1", "v2", Outcome.ROLLED_BACK, REASON)
    assert world.status.phase is Phase.ROLLED_BACK
    assert new in world.status.failed_revisions, "it is not tried again by itself"


def test_it_is_looked_at_when_the_time_is_over() -> None:
    """Between looks fifteen seconds pass at rest: the decision asks for the one that matters."""
    world, _, new = promoted()
    lose(world, new)
    world.decide()
    world.now += timedelta(seconds=OUTAGE - 4)
    after = world.decide().requeue_after
    assert after is not None
    assert after <= 4
    world.now += timedelta(seconds=after)
    world.decide()
    assert world.status.release is not None


def test_status_says_since_when_for_as_long_as_it_lasts_and_no_longer() -> None:
    world, _, new = promoted()
    world.tick()
    world.rate = 0.0
    world.unstored.clear()
    before = world.status
    assert not worth_storing(before, world.decide().status), "nothing is written while all is well"
    lose(world, new, 1)
    began = world.now
    world.tick()
    assert worth_storing(before, world.status)
    assert world.status.watch is not None
    assert world.status.watch.unavailable_since == began
    for _ in range(5):
        known = world.status
        world.tick()
        assert not worth_storing(known, world.status), "nothing more is written while it lasts"
    world.lost.clear()
    world.tick()
    assert "unavailableSince" not in world.status.model_dump(mode="json", by_alias=True, exclude_none=True)["watch"]
    wait(world, 2 * DEADLINE)
    assert world.live() == "v2"


def test_a_pod_that_comes_and_goes_begins_anew() -> None:
    world, _, new = promoted()
    for _ in range(6):
        lose(world, new)
        wait(world, OUTAGE - 6)
        world.lost.clear()
        world.tick()
    assert world.live() == "v2"


def test_the_last_pod_gets_no_time_of_its_own_where_another_hangs_for_long() -> None:
    world, _, new = promoted()
    lose(world, new, 1)
    wait(world, DEADLINE / 2)
    assert world.live() == "v2"
    world.lost[new]["last"] = world.now
    world.tick()
    assert world.live() == "v1"


def test_who_has_enough_without_them_is_not_short_of_pods() -> None:
    """Four pods by the autoscaler, two of which hang: scaling.min is two."""
    world, _, new = promoted()
    world.ready[new] = 4
    lose(world, new, 2)
    wait(world, 2 * DEADLINE)
    assert world.live() == "v2"
    assert world.status.watch is not None
    assert world.status.watch.unavailable_since is None


CLUSTER = {
    "pods find no node, are evicted, or start": lambda w, old, new: w.unready.add(new),
    "one hangs and one has no node": lambda w, old, new: (w.ready.update({new: 1}), lose(w, new, 1)),
    "the image cannot be pulled": lambda w, old, new: w.failures.update({new: Failure("ImagePullBackOff", "away")}),
    "the old version hangs too": lambda w, old, new: (lose(w, old), lose(w, new)),
    "the old version has no pods": lambda w, old, new: (w.unready.add(old), lose(w, new)),
    "the old version has as many": lambda w, old, new: (w.ready.update({old: 1}), lose(w, new, 1)),
    "more pods are asked for": lambda w, old, new: w.apply(spec("v2", **CHANGES, scaling={"min": 9})),
}


@pytest.mark.parametrize("fault", CLUSTER)
def test_what_is_not_the_versions_doing_does_not_roll_back(fault: str) -> None:
    world, old, new = promoted()
    CLUSTER[fault](world, old, new)  # type: ignore[no-untyped-call]
    # Not by running: the world would bring pods that a floor asks for.
    for _ in range(round(3 * DEADLINE / 2)):
        world.decide()
        world.now += timedelta(seconds=2)
        assert world.status.release is None
    assert world.live() == "v2"


def test_a_predecessor_that_recovers_takes_over() -> None:
    world, old, new = promoted()
    lose(world, old)
    lose(world, new)
    wait(world, 2 * OUTAGE)
    assert world.live() == "v2"
    del world.lost[old]
    wait(world, 4)
    assert world.live() == "v1"


def test_an_operator_that_was_away_does_not_take_two_moments_for_a_long_time() -> None:
    world, _, new = promoted()
    lose(world, new)
    wait(world, 6)
    world.now += timedelta(minutes=20)
    lose(world, new)
    world.tick()
    assert world.live() == "v2", "nobody knows that it was not ready all the time"
    wait(world, OUTAGE + 4)
    assert world.live() == "v1"


def test_an_operator_that_was_away_goes_on_where_it_was() -> None:
    world, _, new = promoted()
    lose(world, new)
    wait(world, OUTAGE / 2)
    world.status = stored(world.status)
    world.now += timedelta(seconds=OUTAGE / 2)
    world.tick()
    assert world.live() == "v1"


def test_one_that_comes_to_a_long_outage_waits_itself() -> None:
    """It was not there when the pods stopped being ready, and the clock of a node may be wrong."""
    world, _, new = promoted()
    lose(world, new)
    world.now += timedelta(minutes=20)
    world.tick()
    assert world.live() == "v2"
    wait(world, OUTAGE + 4)
    assert world.live() == "v1"


def test_the_clock_of_a_node_that_is_ahead_delays_only() -> None:
    world, _, new = promoted()
    world.lost[new] = {f"pod-{number}": world.now + timedelta(seconds=40) for number in range(2)}
    wait(world, 40 + OUTAGE - 4)
    assert world.live() == "v2"
    wait(world, 8)
    assert world.live() == "v1"


def test_after_the_window_nobody_goes_back() -> None:
    world, _, new = promoted()
    world.now += timedelta(hours=1)
    world.tick()
    assert world.status.previous is None
    lose(world, new)
    wait(world, 2 * DEADLINE)
    assert world.live() == "v2"


@dataclass(frozen=True)
class Seen:
    """One look, for the oracle."""

    at: datetime
    ready: int
    hanging: frozenset[str]
    better: bool
    """The predecessor has more."""

    @property
    def short(self) -> bool:
        """Too few, and as many as are missing hang."""
        return self.ready < 2 <= self.ready + len(self.hanging)


PODS = st.lists(st.sampled_from(["ready", "hangs", "hangs", "away"]), min_size=2, max_size=3)
"""What each pod of a version does. Two ready ones are enough."""
HISTORY = st.lists(st.tuples(PODS, PODS, st.integers(1, 15)), min_size=1, max_size=5)


@given(history=HISTORY)
@settings(max_examples=80, deadline=None)
def test_only_a_whole_stretch_of_its_own_doing_rolls_back_and_each_such_does(
    history: list[tuple[list[str], list[str], int]],
) -> None:
    """Against a second telling that knows no clock of a pod, only what every look has seen."""
    world, old, new = promoted()
    looks: list[Seen] = []
    for live, kept, count in history:
        for name, pods in ((new, live), (old, kept)):
            known = world.lost.get(name, {})
            hanging = [f"pod-{number}" for number, state in enumerate(pods) if state == "hangs"]
            world.lost[name] = {pod: known.get(pod, world.now) for pod in hanging}
            world.ready[name] = sum(state != "away" for state in pods)
        for _ in range(count):
            ready = live.count("ready")
            looks.append(Seen(world.now, ready, frozenset(world.lost[new]), kept.count("ready") > ready))
            world.decide()
            release = world.status.release
            assert (release is not None) == expected(looks), looks[-5:]
            if release is not None:
                assert (release.reason, release.phase) == (REASON, Phase.ROLLING_BACK)
                return
            world.now += timedelta(seconds=10)


def expected(looks: list[Seen]) -> bool:
    """Whether the last look is where it must go back."""
    last = looks[-1]
    if not last.better or not last.short:
        return False
    began = last.at
    for look in reversed(looks):
        # Who hangs now and did not then was ready in between: there were enough if that made enough.
        if not look.short or last.ready + len(last.hanging - look.hanging) >= 2:
            break
        began = look.at
    return (last.at - began).total_seconds() >= (OUTAGE if last.ready == 0 else DEADLINE)
