"""Verdicts: fail needs evidence, pass needs exposure, silence is neither."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.api.analysis import WorseThanLive
from serinus.api.shown import Capital, Counts, Recent
from serinus.api.spec import Slo
from serinus.api.units import Duration, Percent
from serinus.evidence.verdict import (
    Finding,
    SequentialJudge,
    Verdict,
    fade,
    questions,
    share_of_alpha,
)

SLO = Slo(p99=Duration("50ms"), error_rate=Percent("0.1%"))
WORSE = WorseThanLive(error_rate=Percent("1%"), slow_requests=Percent("0.2%"))


def times(counts: Counts, number: int) -> Counts:
    return Counts(requests=number * counts.requests, errors=number * counts.errors, slow=number * counts.slow)


def pods_of(live: Counts, pods: int = 20) -> list[Counts]:
    """`live` as so many pods answered it."""
    return [Counts(**{name: (total + pod) // pods for name, total in live.model_dump().items()}) for pod in range(pods)]


def verdict(
    block: Counts,
    live: Counts,
    looks: int = 1,
    slo: Slo = SLO,
    worse: WorseThanLive | None = None,
    min_requests: int = 100,
) -> Verdict:
    """After so many looks of two pods with `block` each, while the live revision's pods answered `live` together."""
    judge = SequentialJudge(questions(slo, worse), 0.005)
    tests: dict[str, Capital] = {}
    recent = Recent()
    for look in range(1, looks + 1):
        recent = fade(recent, live)
        tests = judge.observe(
            tests, (block, block), times(live, look), recent, look / looks, fresh=live, beside=pods_of(live)
        )
    return judge.judge(tests, times(block, 2 * looks), times(live, looks), recent, min_requests)


@pytest.mark.parametrize(
    ("block", "live", "looks", "finding", "reason"),
    [
        (Counts(), Counts(requests=1000), 1, Finding.NOT_YET, "NoRequests"),
        (Counts(requests=49), Counts(requests=1000), 1, Finding.NOT_YET, "TooFewRequests"),
        (Counts(requests=50), Counts(requests=1000), 1, Finding.PASS, "WithinSLO"),
        (Counts(requests=1000, errors=1), Counts(requests=1000), 10, Finding.PASS, "WithinSLO"),
        (Counts(requests=20, errors=5), Counts(requests=1000), 1, Finding.FAIL, "ErrorRateTooHigh"),
        (Counts(requests=60, slow=8), Counts(requests=1000), 3, Finding.FAIL, "LatencyTooHigh"),
        (Counts(requests=10_000, slow=90), Counts(requests=10_000), 10, Finding.PASS, "WithinSLO"),
        (Counts(requests=200, errors=10), Counts(requests=4000, errors=200), 10, Finding.PASS, "WithinSLO"),
        (Counts(requests=200, errors=60), Counts(requests=4000, errors=200), 10, Finding.FAIL, "ErrorRateTooHigh"),
        (Counts(requests=3, errors=5), Counts(), 2, Finding.FAIL, "ErrorRateTooHigh"),
    ],
)
def test_table(block: Counts, live: Counts, looks: int, finding: Finding, reason: str) -> None:
    found = verdict(block, live, looks)
    assert (found.finding, found.reason) == (finding, reason)


@pytest.mark.parametrize(
    ("block", "live", "reason"),
    [
        (Counts(requests=100, errors=4), Counts(requests=1000, errors=5), "MoreErrorsThanLive"),
        (Counts(requests=500, slow=4), Counts(requests=5000, slow=2), "SlowerThanLive"),
        (Counts(requests=100, errors=4), Counts(requests=1000, errors=40), "WithinSLO"),
        (Counts(requests=1000, errors=12), Counts(requests=1000, errors=5), "WithinSLO"),
    ],
)
def test_worse_than_live_fails_inside_the_slo_only_where_asked_for(block: Counts, live: Counts, reason: str) -> None:
    lax = Slo(p99=Duration("50ms"), error_rate=Percent("40%"))
    asked = verdict(block, live, 100, lax, WORSE)
    assert asked.reason == reason
    unasked = verdict(block, live, 100, lax)
    assert unasked.finding is Finding.PASS


def test_message_says_what_was_seen_and_what_was_allowed() -> None:
    found = verdict(Counts(requests=60, slow=8), Counts(requests=1000), 3)
    assert found.message.startswith("48 of 360 requests took longer than 50ms (13.33%); allowed are 1% by the SLO")


def test_message_says_how_much_worse_than_live_is_allowed() -> None:
    lax = Slo(p99=Duration("50ms"), error_rate=Percent("40%"))
    found = verdict(Counts(requests=100, errors=4), Counts(requests=1000, errors=5), 100, lax, WORSE)
    assert "allowed are 1% more than the live revision's 0.5%" in found.message


@pytest.mark.parametrize("limit", ["0.0001%", "50%"])
def test_extreme_limits_do_not_break_the_arithmetic(limit: str) -> None:
    slo = Slo(error_rate=Percent(limit))
    assert verdict(Counts(requests=500), Counts(), 3, slo).finding is Finding.PASS


def test_a_sudden_incident_that_hits_both_is_not_held_against_the_candidate() -> None:
    """Ten good minutes, then a network that fails every twentieth request of both."""
    judge = SequentialJudge(questions(SLO), 0.005)
    tests: dict[str, Capital] = {}
    candidate, live, recent = Counts(), Counts(), Recent()
    for look in range(360):
        bad = look >= 300
        block = Counts(requests=10, errors=1 if bad and look % 2 else 0)
        fresh = Counts(requests=380, errors=19 if bad else 0)
        live = Counts(requests=live.requests + fresh.requests, errors=live.errors + fresh.errors)
        recent = fade(recent, fresh)
        tests = judge.observe(tests, (block, block), live, recent, look / 360)
        candidate = Counts(requests=candidate.requests + 20, errors=candidate.errors + 2 * block.errors)
        found = judge.judge(tests, candidate, live, recent, 100)
        assert found.finding is not Finding.FAIL, f"after {look} looks: {found.message}"


FIRST = SequentialJudge(questions(SLO), 0.004)
"""The first of several stages."""


def finding(looks: list[tuple[Counts, ...]]) -> Finding:
    """After these looks at the same pods, early in a step."""
    tests: dict[str, Capital] = {}
    known = tuple(Counts() for _ in looks[0])
    for number, blocks in enumerate(looks, 1):
        tests = FIRST.observe(tests, blocks, Counts(), Recent(), number / 150, known)
        known = blocks
    return FIRST.judge(tests, Counts(requests=20), Counts(), Recent(), 1).finding


@pytest.mark.parametrize("field", ["errors", "slow"])
def test_two_pods_that_fail_altogether_condemn_in_one_look(field: str) -> None:
    block = Counts(requests=10).model_copy(update={field: 10})
    assert finding([(block, block)]) is Finding.FAIL
    assert finding([(block, Counts(requests=10))]) is Finding.PASS
    assert finding([(block,)]) is Finding.PASS


@pytest.mark.parametrize("first", [1, 3, 5, 7, 9])
def test_trouble_of_one_pod_that_straddles_two_looks_does_not_condemn(first: int) -> None:
    quiet = Counts(requests=10)
    straddles = [(Counts(requests=10, errors=n), quiet) for n in (first, 10 - first)]
    assert finding([(quiet, quiet), *straddles]) is Finding.PASS


def test_a_look_without_a_known_one_before_counts_in_full() -> None:
    """As after a restart: what the pods did meanwhile was never counted."""
    block = Counts(requests=20, errors=5)
    fresh = FIRST.observe({}, (block,), Counts(), Recent(), 0.1)
    assert fresh == FIRST.observe({}, (block,), Counts(), Recent(), 0.1, (Counts(requests=20),))
    assert fresh != FIRST.observe({}, (block,), Counts(), Recent(), 0.1, (block,))


@pytest.mark.parametrize("pods", [2, 3, 10])
@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("each", [10, 100])
def test_an_incident_of_two_looks_that_hits_all_pods_of_both_is_not_held_against_the_candidate(
    pods: int, share: float, each: int
) -> None:
    tests: dict[str, Capital] = {}
    live, recent, before = Counts(), Recent(), (Counts(),) * pods
    for look in range(40):
        hit = share if look in (30, 31) else 0.0
        blocks = (Counts(requests=each, errors=round(hit * each)),) * pods
        fresh = Counts(requests=19 * pods * each, errors=round(19 * pods * each * hit))
        live = Counts(requests=live.requests + fresh.requests, errors=live.errors + fresh.errors)
        recent = fade(recent, fresh)
        tests = FIRST.observe(tests, blocks, live, recent, look / 150, before, fresh=fresh)
        before = blocks
        assert FIRST.judge(tests, Counts(requests=100), live, recent, 1).finding is Finding.PASS, look


@given(st.integers(1, 25))
def test_shares_of_alpha_add_up(stages: int) -> None:
    shares = [share_of_alpha(stage, stages) for stage in range(stages)]
    assert math.fsum(shares) == pytest.approx(1.0)
    assert min(shares) > 0
