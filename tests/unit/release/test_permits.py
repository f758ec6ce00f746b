"""Windows and the freeze switch hold releases, and never a roll-back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.status import Outcome, Phase
from serinus.release.freeze import Freeze
from unit.release.world import START, World, settled, spec, with_live

CLOSED = [{"start": "09:00", "end": "10:00", "timeZone": "Europe/Berlin"}]
"""START is Saturday 01:00 in Berlin."""
OPENS = datetime(2026, 11, 21, 8, tzinfo=UTC)


def windowed(version: str, windows: list[dict[str, Any]]) -> Any:
    release = spec().release.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return spec(version, release={**release, "windows": windows})


def condition(world: World, kind: str) -> tuple[str, str] | None:
    return next(((each.reason, each.message) for each in world.status.conditions if each.type == kind), None)


def test_a_release_waits_for_its_window_and_says_when_it_opens() -> None:
    world = with_live()
    world.apply(windowed("v2", CLOSED))
    decision = world.tick()
    assert world.status.phase is Phase.WAITING
    assert world.status.release is None
    assert condition(world, "Reconciling") == (
        "OutsideWindow",
        "version v2 waits: outside the release windows; the next one opens Sat 2026-11-21 09:00 Europe/Berlin",
    )
    assert condition(world, "Ready") is not None
    assert decision.requeue_after == pytest.approx((OPENS - world.now).total_seconds(), abs=3)
    before = world.status
    world.serve(600)
    world.tick()
    assert world.status == before, "nothing is written while it waits"
    assert [note.reason for note in world.notes] == ["OutsideWindow"]
    world.now = OPENS
    world.run(lambda w: w.live() == "v2")
    assert world.status.held is None


def test_a_window_that_closes_holds_the_weight_until_the_next() -> None:
    world = with_live()
    world.now = OPENS + timedelta(minutes=59, seconds=30)
    world.apply(windowed("v2", CLOSED))
    world.run(lambda w: bool(w.status.release and w.status.release.reason == "OutsideWindow"))
    release = world.status.release
    assert release is not None
    assert world.now >= OPENS + timedelta(hours=1)
    assert 0 < release.weight < 100
    held = release.weight
    for _ in range(50):
        world.tick()
        assert world.status.release is not None
        assert world.status.release.weight == held
    world.now = OPENS + timedelta(days=1)
    world.run(lambda w: w.live() == "v2")


@pytest.mark.parametrize("how", ["window", "freeze"])
def test_a_held_candidate_that_turns_bad_goes_back_at_once(how: str) -> None:
    world = with_live()
    world.now = OPENS + timedelta(minutes=59, seconds=30)
    world.apply(windowed("v2", CLOSED if how == "window" else []))
    if how == "freeze":
        world.run(lambda w: bool(w.status.release and w.status.release.weight))
        world.frozen = "Black Friday"
    wanted = "OutsideWindow" if how == "window" else "Frozen"
    world.run(lambda w: bool(w.status.release and w.status.release.reason == wanted))
    world.error_rate[world.target().name] = 0.2
    world.run(settled)
    assert world.live() == "v1"
    assert world.status.last_release is not None
    assert world.status.last_release.outcome is Outcome.ROLLED_BACK


def test_frozen_nothing_starts_until_it_thaws() -> None:
    world = with_live()
    world.frozen = "Black Friday"
    world.apply(spec("v2"))
    for _ in range(20):
        world.tick()
    assert world.status.phase is Phase.WAITING
    assert condition(world, "Reconciling") == ("Frozen", "version v2 waits: releases are frozen: Black Friday")
    assert world.target().name not in world.ready
    world.frozen = None
    world.run(lambda w: w.live() == "v2")


def test_frozen_a_roll_back_by_hand_goes_through() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.run(settled)
    world.tick()
    assert world.live() == "v2"
    world.frozen = "Black Friday"
    world.asked["rollback"] = "previous"
    world.run(lambda w: w.live() == "v1" and settled(w))


def test_frozen_the_spec_may_go_back_to_the_version_that_is_still_warm() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.run(settled)
    world.frozen = "Black Friday"
    world.apply(spec("v1"))
    world.run(lambda w: w.live() == "v1" and settled(w))


def test_the_first_version_does_not_wait_for_a_window_but_for_a_thaw() -> None:
    """A cluster that is built anew must serve at any hour."""
    world = World(windowed("v1", CLOSED))
    world.run(settled)
    world.tick()
    world.run(lambda w: w.live() == "v1")
    frozen = World(spec("v1"), frozen="moving house")
    for _ in range(5):
        frozen.tick()
    assert frozen.live() is None
    assert frozen.status.phase is Phase.WAITING


def test_promoted_by_hand_does_not_wait_for_a_window() -> None:
    world = with_live()
    world.now = OPENS + timedelta(minutes=59, seconds=30)
    world.apply(windowed("v2", CLOSED))
    world.run(lambda w: bool(w.status.release and w.status.release.reason == "OutsideWindow"))
    world.asked["promote"] = "now"
    world.run(lambda w: w.live() == "v2")


@settings(deadline=None, max_examples=60)
@given(
    start=st.integers(0, 23),
    hours=st.integers(1, 5),
    now=st.integers(0, 23),
    freezes=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 40)), max_size=3),
)
def test_weight_rises_only_while_it_may(start: int, hours: int, now: int, freezes: list[tuple[int, int]]) -> None:
    """Whatever opens and freezes when: no start and no more weight outside, and an end."""
    end = (start + hours) % 24
    windows = [{"start": f"{start:02}:00", "end": f"{end:02}:00"}]
    world = with_live()
    world.now = START + timedelta(hours=now)
    world.apply(windowed("v2", windows))
    candidate, before = world.target().name, 0
    for tick in range(700):
        world.frozen = "for a test" if any(at <= tick < at + ticks for at, ticks in freezes) else None
        clock = world.now.hour
        inside = start <= clock < end if start < end else clock >= start or clock < end
        allowed = inside and world.frozen is None
        was_under_way = world.status.release is not None
        world.tick(300.0 if world.status.release is None else 20.0)
        weight = world.route.get(candidate, 0)
        if not allowed:
            assert weight <= before
            assert was_under_way or world.status.release is None
        before = weight
        if world.live() == "v2":
            return
    raise AssertionError("no end")


def test_what_a_config_map_says() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    everywhere = Freeze.of({})
    assert everywhere.holds("team", now)
    assert everywhere.told() == "no reason was given"
    some = Freeze.of({"reason": "Black Friday", "until": "2026-11-30T08:00:00+01:00", "namespaces": "shop, pay"})
    assert some.holds("pay", now)
    assert not some.holds("team", now)
    assert not some.holds("pay", datetime(2026, 11, 30, 7, tzinfo=UTC))
    assert some.told() == "Black Friday; until 2026-11-30 08:00 UTC+01:00"
    unclear = Freeze.of({"until": "Monday"})
    assert unclear.holds("team", now + timedelta(days=999))
    assert "'Monday' is no date" in unclear.told()
    assert Freeze.of({"until": "2026-11-28"}).holds("team", now)
    assert Freeze.of(None) == everywhere
