"""When a release may start or gain weight: inside its windows, and while nobody has frozen the cluster.

A window is open at a moment where the wall clock of its time zone stands between start and end, on one of its days. So
in the night in which clocks are put forward a window that would start in the hour that is left out opens when the
clocks jump, and in the night in which they are put back the hour that comes twice is open, or closed, twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from serinus.api.windows import Day, Window

_DAYS = tuple(Day)
_AHEAD = 9
"""Days that are looked ahead: every window opens once a week."""


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Whether one of the windows is open; always where there are none."""
    return not windows or any(_open(window, now) for window in windows)


def next_opening(windows: Sequence[Window], now: datetime) -> datetime | None:
    """The first moment after `now` at which a window that is closed now is open, to the second; None where one is open.

    None also where none opens within nine days, which no window does.
    """
    if is_open(windows, now):
        return None
    moments = sorted({moment for window in windows for moment in _candidates(window, now) if moment > now})
    return next((moment for moment in moments if is_open(windows, moment)), None)


def _open(window: Window, now: datetime) -> bool:
    local = now.astimezone(ZoneInfo(window.time_zone))
    clock, start, end = local.time(), _time(window.start), _time(window.end)
    if start < end:
        return start <= clock < end and _on(window, local.date())
    if clock >= start:
        return _on(window, local.date())
    return clock < end and _on(window, local.date() - timedelta(days=1))


def _on(window: Window, day: date) -> bool:
    return _DAYS[day.weekday()] in window.days


def _candidates(window: Window, now: datetime) -> Iterator[datetime]:
    """Moments at which the window may open: its starts, midnights, and jumps of the clock."""
    zone = ZoneInfo(window.time_zone)
    today = now.astimezone(zone).date()
    for ahead in range(-1, _AHEAD):
        day = today + timedelta(days=ahead)
        for clock in (_time(window.start), time()):
            for fold in (0, 1):
                yield datetime.combine(day, clock, zone).replace(fold=fold).astimezone(UTC)
    for hours in range(0, 24 * _AHEAD, 6):
        earlier = now + timedelta(hours=hours)
        later = earlier + timedelta(hours=6)
        if _offset(zone, earlier) != _offset(zone, later):
            yield _jump(zone, earlier, later)


def _jump(zone: ZoneInfo, earlier: datetime, later: datetime) -> datetime:
    """The first whole second with the offset of `later`."""
    low, high = int(earlier.timestamp()), int(later.timestamp()) + 1
    wanted = _offset(zone, later)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, datetime.fromtimestamp(middle, UTC)) == wanted:
            high = middle
        else:
            low = middle
    return datetime.fromtimestamp(high, UTC)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def _time(text: str) -> time:
    return time(int(text[:2]), int(text[3:]))


def shown(moment: datetime, windows: Sequence[Window]) -> str:
    """A moment for people, on the clock of the first window."""
    zone = windows[0].time_zone if windows else "UTC"
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M} {zone}"
