"""Token buckets: what they promise holds for any sequence of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.ingress.ratelimit import Bucket, Buckets, Rate, header_lines, parse_rate

_RATES = st.builds(Rate, st.floats(0.01, 1000), st.integers(1, 500))
_GAPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 5)), max_size=80)


@given(_RATES, _GAPS)
def test_no_window_sees_more_than_the_burst_and_the_rate(rate: Rate, gaps: list[float]) -> None:
    now, bucket = 100.0, Bucket(rate, 100.0)
    admitted: list[float] = []
    for gap in gaps:
        now += gap
        if bucket.take(now).allowed:
            admitted.append(now)
    for first, start in enumerate(admitted):
        for count, end in enumerate(admitted[first:], 1):
            assert count <= rate.burst + rate.per_second * (end - start) + 1e-3


@given(_RATES, _GAPS)
def test_who_waits_as_long_as_told_is_let_in(rate: Rate, gaps: list[float]) -> None:
    now, bucket = 0.0, Bucket(rate, 0.0)
    for gap in gaps:
        now += gap
        standing = bucket.take(now)
        assert standing.allowed == (standing.retry_after == 0.0)
        assert 0 <= standing.remaining <= rate.burst
        assert standing.reset >= -1e-6
        if not standing.allowed:
            now += standing.retry_after
            assert bucket.take(now).allowed


@given(_RATES, st.lists(st.tuples(st.floats(0, 5), st.integers(1, 100)), max_size=60))
def test_rows_are_paid_for_in_the_end(rate: Rate, asked: list[tuple[float, int]]) -> None:
    now, bucket, rows = 0.0, Bucket(rate, 0.0), 0
    for gap, cost in asked:
        now += gap
        if bucket.take(now).allowed:
            bucket.charge(cost - 1)
            rows += cost
    assert rows <= rate.burst + rate.per_second * now + 100 + 1e-3


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(Rate(1.0, 1), 10.0)
    assert bucket.take(10.0).allowed
    assert [bucket.take(now).allowed for now in (5.0, 6.0, 10.5, 11.0)] == [False, False, False, True]


@given(st.lists(st.integers(0, 20), max_size=100))
def test_the_table_is_bounded_and_forgets_the_oldest(clients: list[int]) -> None:
    table, rate = Buckets(5), Rate(1.0, 3)
    for client in clients:
        table.of(client, rate, 0.0)
        assert len(table) <= 5
    for client in list(dict.fromkeys(reversed(clients)))[:5]:
        known = table.of(client, rate, 0.0)
        assert table.of(client, rate, 0.0) is known


def test_a_new_rate_is_a_new_bucket() -> None:
    table = Buckets(5)
    old = table.of("a", Rate(1.0, 1), 0.0)
    assert table.of("a", Rate(2.0, 1), 0.0) is not old


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", Rate(100.0, 100)), (" 10/m  burst 50 ", Rate(10 / 60, 50)), ("0.5/s", Rate(0.5, 1)),
     ("24/h", Rate(24 / 3600, 24))],
)  # fmt: skip
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "100/x", "100/s burst 0", "100/s burst", "inf/s"])
def test_other_texts_are_told_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="such as 100/s burst 200"):
        parse_rate(text)


def test_header_lines_follow_the_draft() -> None:
    bucket = Bucket(Rate(10.0, 2), 0.0)
    first = header_lines(bucket.rate, bucket.take(0.0))
    assert first == b'ratelimit-policy: "requests";q=2;w=1\r\nratelimit: "requests";r=1;t=1\r\n'
    bucket.take(0.0)
    assert header_lines(bucket.rate, bucket.take(0.0)).endswith(b"r=0;t=1\r\nretry-after: 1\r\n")
