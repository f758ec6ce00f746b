"""The sequential test: how often it is wrong, and how soon it is right."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serinus.evidence.sequential import (
    AGAIN,
    ALTERNATIVES,
    MOST,
    alternatives,
    bet,
    invest,
    log_evidence,
    start,
    together,
    upper_bound,
)

WHOLE = invest(start(), 1.0)
Block = Callable[[random.Random], tuple[int, int]]


def first_alarm(block: Block, p0: float, alpha: float, blocks: int, rng: random.Random) -> int | None:
    """The number of blocks after which the test raises its alarm when it is looked at after each of them."""
    capital = WHOLE
    for n in range(1, blocks + 1):
        bad, requests = block(rng)
        capital = bet(capital, bad, requests, p0)
        # Evidence only grows at a failure.
        if bad and log_evidence(capital) >= math.log(1 / alpha):
            return n
    return None


def independent(rate: float, requests: int) -> Block:
    return lambda rng: (sum(rng.random() < rate for _ in range(requests)), requests)


def whole(rate: float, requests: int) -> Block:
    """Blocks that fail as a whole."""
    return lambda rng: (requests if rng.random() < rate else 0, requests)


def half(rate: float, requests: int) -> Block:
    """Blocks of which half fails at once."""
    return lambda rng: (requests // 2 if rng.random() < 2 * rate else 0, requests)


@pytest.mark.parametrize("kind", [independent, whole, half])
@pytest.mark.parametrize(("p0", "requests"), [(0.001, 20), (0.01, 20), (0.1, 4), (0.01, 1)])
def test_false_alarms_stay_under_alpha_however_often_one_looks(
    kind: Callable[[float, int], Block], p0: float, requests: int
) -> None:
    rng = random.Random(7)
    runs, alpha = 200, 0.05
    if requests == 1 and kind is half:
        kind = whole
    alarms = sum(first_alarm(kind(p0, requests), p0, alpha, 300, rng) is not None for _ in range(runs))
    # 99.9 % upper quantile of Binomial(200, 0.05) is 21.
    assert alarms <= 21


@pytest.mark.parametrize(("rate", "p0"), [(0.05, 0.001), (0.1, 0.01), (0.2, 0.001)])
def test_detection_is_near_the_information_bound(rate: float, p0: float) -> None:
    rng = random.Random(11)
    alpha, requests = 0.01, 5
    divergence = rate * math.log(rate / p0) + (1 - rate) * math.log((1 - rate) / (1 - p0))
    bound = math.log(1 / alpha) / divergence
    delays = sorted(first_alarm(independent(rate, requests), p0, alpha, 1000, rng) or 1000 for _ in range(101))
    assert delays[50] * requests <= 2 * bound + 2 * requests


@given(st.integers(1, 5000), st.sampled_from([1e-6, 0.0001, 0.001, 0.01, 0.3, 0.9]))
def test_expected_factor_is_at_most_one_for_the_worst_block(requests: int, p0: float) -> None:
    """The supermartingale property at the distribution it is made for: all requests of a block, or none."""
    none, every = bet(WHOLE, 0, requests, p0), bet(WHOLE, requests, requests, p0)
    for before, quiet, loud in zip(WHOLE, none, every, strict=True):
        assert (1 - p0) * math.exp(quiet - before) + p0 * math.exp(loud - before) <= 1 + 1e-9


@given(st.data(), st.integers(1, 500), st.sampled_from([0.0001, 0.001, 0.01, 0.3]))
def test_the_factor_is_never_above_a_straight_line(data: st.DataObject, requests: int, p0: float) -> None:
    """The line is 1 at p0, so the expected factor is at most 1 for every distribution with that mean."""
    bad = data.draw(st.integers(0, requests))
    none, some = bet(WHOLE, 0, requests, p0), bet(WHOLE, bad, requests, p0)
    for before, low, now in zip(WHOLE, none, some, strict=True):
        quiet = math.exp(low - before)
        assert math.exp(now - before) <= quiet + (1 - quiet) * bad / requests / p0 + 1e-5
        assert math.exp(now - before) <= MOST + 1e-9


def test_one_request_at_a_time_is_the_likelihood_ratio() -> None:
    p0 = 0.1
    bets = zip(WHOLE, bet(WHOLE, 1, 1, p0), alternatives(p0), together(), strict=True)
    for before, after, rate, number in bets:
        if number == 1:
            assert math.exp(after - before) == pytest.approx(rate / p0, rel=1e-4)


@given(st.integers(0, 100), st.integers(1, 100), st.sampled_from([0.001, 0.01, 0.3]))
def test_after_a_bad_block_the_next_counts_for_less_and_never_for_more(bad: int, requests: int, p0: float) -> None:
    bad = min(bad, requests)
    first, again = bet(WHOLE, bad, requests, p0), bet(WHOLE, bad, requests, p0, AGAIN)
    for before, free, held in zip(WHOLE, first, again, strict=True):
        assert held == min(free, held)
        assert math.exp(held - before) <= AGAIN + 1e-9


def test_one_block_never_condemns() -> None:
    assert log_evidence(bet(WHOLE, 1000, 1000, 0.01)) < math.log(1 / 0.01)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20), st.floats(0, 1))
@example([], 5e-324)
def test_what_is_held_back_is_never_lost_or_doubled(blocks: list[tuple[int, int]], share: float) -> None:
    capital = invest(start(), 1 - share)
    assert log_evidence(capital, share) == pytest.approx(0.0, abs=1e-9)
    for bad, good in blocks:
        capital = bet(capital, bad, bad + good, 0.05)
    assert log_evidence(capital, share) >= math.log(share) if share > 0 else True
    assert log_evidence(invest(capital, share)) == pytest.approx(log_evidence(capital, share), abs=1e-9)


def test_a_candidate_that_turns_bad_late_is_caught() -> None:
    """Ten quiet minutes at ten requests a second, then every tenth request fails."""
    ticks, p0 = 300, 0.001
    capital, held_back = invest(start(), 0.75), 0.25
    for _ in range(ticks):
        capital = bet(invest(capital, 0.25 / ticks), 0, 20, p0)
        held_back -= 0.25 / ticks
    late = 0
    while log_evidence(capital) < math.log(400):
        capital = bet(capital, 2, 20, p0)
        late += 1
    assert late <= 8


@pytest.mark.parametrize(("bad", "requests", "p0"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, 0.0), (1, 5, 1.0)])
def test_nonsense_is_refused(bad: int, requests: int, p0: float) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        bet(WHOLE, bad, requests, p0)


@pytest.mark.parametrize("p0", [1e-6, 0.001, 0.5, 0.94])
def test_alternatives_rise_from_p0(p0: float) -> None:
    rates = alternatives(p0)
    assert len(rates) == ALTERNATIVES
    assert p0 < rates[0]
    assert list(rates[:8]) == sorted(rates[:8])
    assert max(rates) == pytest.approx(0.95)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_upper_bound_is_above_the_observed_rate(failures: int, requests: int) -> None:
    failures = min(failures, requests)
    assert failures / requests - 1e-12 <= upper_bound(failures, requests) <= 1.0
