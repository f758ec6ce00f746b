"""Windows on the wall clock, through every change of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serinus.api.windows import Day, Window
from serinus.release.windows import is_open, next_opening, shown

BERLIN = {"start": "09:00", "end": "16:00", "days": ["Mon", "Fri"], "timeZone": "Europe/Berlin"}


def window(**fields: Any) -> Window:
    return Window.model_validate(fields)


def at(text: str, zone: str = "Europe/Berlin", fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("fields", "moment", "wanted"),
    [
        (BERLIN, "2026-11-20T09:00", True),
        (BERLIN, "2026-11-20T15:59", True),
        (BERLIN, "2026-11-20T16:00", False),
        (BERLIN, "2026-11-20T08:59", False),
        (BERLIN, "2026-11-21T10:00", False),
        # Across midnight: the day is that of the start.
        ({**BERLIN, "start": "22:00", "end": "04:00"}, "2026-11-20T23:00", True),
        ({**BERLIN, "start": "22:00", "end": "04:00"}, "2026-11-21T03:59", True),
        ({**BERLIN, "start": "22:00", "end": "04:00"}, "2026-11-20T03:00", False),
        # The same hour of the clock in summer and winter.
        (BERLIN, "2026-07-17T09:30", True),
    ],
)
def test_open_or_not(fields: dict[str, Any], moment: str, wanted: bool) -> None:
    assert is_open([window(**fields)], at(moment)) is wanted


def test_no_window_is_always_open() -> None:
    assert is_open([], at("2026-11-20T03:00"))
    assert next_opening([], at("2026-11-20T03:00")) is None


def test_the_night_in_which_clocks_are_put_forward() -> None:
    """02:30 does not exist on 2026-03-29: the window opens when the clock jumps from 02:00 to 03:00."""
    night = window(start="02:30", end="05:00", timeZone="Europe/Berlin")
    opening = next_opening([night], at("2026-03-29T01:00"))
    assert opening == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert shown(opening, [night]) == "Sun 2026-03-29 03:00 Europe/Berlin"


def test_the_night_in_which_they_are_put_back() -> None:
    """02:30 comes twice on 2026-10-25."""
    night = window(start="01:00", end="02:30", timeZone="Europe/Berlin")
    assert is_open([night], at("2026-10-25T02:10", fold=0))
    assert is_open([night], at("2026-10-25T02:10", fold=1))
    assert next_opening([night], at("2026-10-25T02:40", fold=0)) == at("2026-10-25T02:00", fold=1)


def test_the_earliest_of_several() -> None:
    both = [window(**BERLIN), window(start="20:00", end="21:00", timeZone="Asia/Tokyo")]
    assert next_opening(both, at("2026-11-21T08:00")) == at("2026-11-21T20:00", "Asia/Tokyo")


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns"]
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
]
clocks = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
windows = st.builds(
    lambda days, start, end, zone: (days, start, end, zone),
    st.lists(st.sampled_from(list(Day)), min_size=1, max_size=7, unique=True),
    clocks,
    clocks,
    st.sampled_from(ZONES),
).filter(lambda each: each[1] != each[2])


@settings(deadline=None, max_examples=150)
@given(windows, st.sampled_from(CHANGES), st.integers(-3 * 1440, 3 * 1440))
@example((list(Day), "02:30", "02:45", "Europe/Berlin"), CHANGES[0], -120)
@example((list(Day), "02:10", "02:20", "Australia/Lord_Howe"), CHANGES[5], -60)
def test_the_next_opening_is_the_first_minute_that_is_open(
    parts: tuple[list[Day], str, str, str], change: datetime, minutes: int
) -> None:
    days, start, end, zone = parts
    known = [window(days=days, start=start, end=end, timeZone=zone)]
    now = change + timedelta(minutes=minutes)
    opening = next_opening(known, now)
    if is_open(known, now):
        assert opening is None
        return
    assert opening is not None
    assert is_open(known, opening)
    assert opening.second == 0
    # Every minute before it is closed; where it is days away, every minute of the last six hours and each quarter hour.
    quarter = max(now, opening - timedelta(hours=6))
    moment = now
    while moment < opening:
        assert not is_open(known, moment), moment
        moment += timedelta(minutes=1 if moment >= quarter else 15)


@settings(deadline=None, max_examples=100)
@given(windows, st.sampled_from(CHANGES), st.integers(-7 * 1440, 7 * 1440))
def test_open_says_what_the_wall_clock_says(
    parts: tuple[list[Day], str, str, str], change: datetime, minutes: int
) -> None:
    days, start, end, zone = parts
    now = change + timedelta(minutes=minutes)
    local = now.astimezone(ZoneInfo(zone))
    clock, today, yesterday = f"{local:%H:%M}", f"{local:%a}", f"{local - timedelta(days=1):%a}"
    if start < end:
        wanted = start <= clock < end and today in days
    else:
        wanted = (clock >= start and today in days) or (clock < end and yesterday in days)
    assert is_open([window(days=days, start=start, end=end, timeZone=zone)], now) is wanted


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start": "9:00", "end": "16:00"}, "write hours and minutes"),
        ({"start": "09:00", "end": "24:00"}, "write hours and minutes"),
        ({"start": "09:00", "end": "09:00"}, "start and end must differ"),
        ({"start": "09:00", "end": "16:00", "timeZone": "Europe/Nowhere"}, "time zone Europe/Nowhere is not known"),
        ({"start": "09:00", "end": "16:00", "timeZone": "../etc/passwd"}, "write a time zone of the IANA database"),
    ],
)
def test_what_is_no_window(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        window(**fields)
