"""The circuit breaker against a clock that the test holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.proxy.breaker import Breaker, Circuit


def _open(breaker: Breaker, now: float, failures: int) -> None:
    for _ in range(failures):
        number = breaker.admit(now)
        assert number is not None
        breaker.failed(number, now)


def test_opens_after_failures_in_a_row_and_only_then() -> None:
    breaker = Breaker(failures=3, pause=2.0)
    for _ in range(10):
        _open(breaker, 0.0, 2)
        number = breaker.admit(0.0)
        assert number is not None
        breaker.succeeded(number)
    assert breaker.state is Circuit.CLOSED
    assert breaker.retry_after(0.0) == 0.0
    _open(breaker, 0.0, 3)
    assert breaker.state is Circuit.OPEN
    assert breaker.openings == 1
    assert breaker.admit(1.99) is None
    assert breaker.retry_after(0.5) == 1.5


def test_one_probe_at_a_time_decides() -> None:
    breaker = Breaker(failures=1, pause=1.0, longest_pause=3.0, patience=60.0)
    _open(breaker, 0.0, 1)
    now = 1.0
    for pause in (2.0, 3.0, 3.0):
        number = breaker.admit(now)
        assert number is not None
        assert breaker.state is Circuit.HALF_OPEN
        assert breaker.admit(now) is None
        breaker.failed(number, now)
        assert breaker.admit(now + pause - 0.01) is None
        now += pause
    number = breaker.admit(now)
    assert number is not None
    breaker.succeeded(number)
    assert breaker.state is Circuit.CLOSED
    _open(breaker, now, 1)
    assert breaker.admit(now + 1.0) is not None, "after a success the first pause counts again"


def test_requests_from_before_say_nothing() -> None:
    breaker = Breaker(failures=2, pause=1.0)
    slow = breaker.admit(0.0)
    assert slow is not None
    _open(breaker, 0.0, 2)
    breaker.succeeded(slow)
    assert breaker.state is Circuit.OPEN
    breaker.failed(slow, 0.9)
    assert breaker.admit(1.0) is not None, "a late failure must not make the pause longer"


def test_a_probe_whose_caller_has_gone_makes_room_and_a_lost_one_does_in_time() -> None:
    breaker = Breaker(failures=1, pause=1.0, patience=10.0)
    _open(breaker, 0.0, 1)
    first = breaker.admit(1.0)
    assert first is not None
    breaker.gave_up(first)
    second = breaker.admit(1.0)
    assert second is not None
    assert breaker.admit(10.9) is None
    third = breaker.admit(11.0)
    assert third is not None
    breaker.succeeded(second)
    assert breaker.state is Circuit.HALF_OPEN, "the lost probe no longer decides"
    breaker.succeeded(third)
    assert breaker.state is Circuit.CLOSED


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.sampled_from(["ok", "fail", "gone", "lost"])), max_size=60))
def test_it_never_stays_shut(steps: list[tuple[float, str]]) -> None:
    """Whatever happens, at most one probe is out, and after the longest wait somebody is let through."""
    breaker, now = Breaker(failures=2, pause=0.5, longest_pause=4.0, patience=3.0), 0.0
    for wait, outcome in steps:
        now += wait
        number = breaker.admit(now)
        if number is None:
            assert breaker.retry_after(now) >= 0.0
            continue
        if breaker.state is Circuit.HALF_OPEN:
            assert breaker.admit(now) is None
        if outcome == "ok":
            breaker.succeeded(number)
            assert breaker.state is Circuit.CLOSED
        elif outcome == "fail":
            breaker.failed(number, now)
        elif outcome == "gone":
            breaker.gave_up(number)
    assert breaker.admit(now + 4.0) is not None
