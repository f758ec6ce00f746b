"""The test of an experiment: exact expectations where they can be added up, and runs where they cannot."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.evidence.samplesize import sample_size
from serinus.evidence.twosample import Block, bet, centre, log_evidence, start

SHARES = st.floats(0.02, 0.98)


def expectation(n: int, m: int, p: float, q: float, share: float, effect: float) -> float:
    """Expected factor of one block, by adding up every outcome."""

    def chance(successes: int, trials: int, rate: float) -> float:
        return comb(trials, successes) * rate**successes * (1 - rate) ** (trials - successes)

    return sum(
        chance(y, n, p) * chance(x, m, q) * math.exp(log_evidence(bet(start(), Block(n, y, m, x), share, effect)))
        for y in range(n + 1)
        for x in range(m + 1)
    )


@given(n=st.integers(0, 6), m=st.integers(0, 6), p=SHARES, q=SHARES, share=SHARES, effect=st.floats(0.001, 0.5))
def test_no_factor_is_expected_to_gain_where_the_candidate_is_not_better(
    n: int, m: int, p: float, q: float, share: float, effect: float
) -> None:
    assert expectation(n, m, max(p, q), min(p, q), share, effect) <= 1 + 1e-9
    assert expectation(n, m, min(p, q), max(p, q), share, -effect) <= 1 + 1e-9


@given(size=st.integers(1, 4), p=SHARES, share=SHARES, effect=st.floats(0.001, 0.5))
def test_nor_where_trials_come_in_clumps_of_the_declared_size(size: int, p: float, share: float, effect: float) -> None:
    total = 0.0
    for y in (0, size):
        for x in (0, size):
            odds = (p if y else 1 - p) * (p if x else 1 - p)
            capital = bet(start(), Block(size, y, size, x), share, effect, design=size)
            total += odds * math.exp(log_evidence(capital))
    assert total <= 1 + 1e-9


def looks(seed: int, live: float, candidate: float, each: int, most: int) -> Iterator[tuple[float, float, int]]:
    """Evidence for better and for worse after each look."""
    draw = random.Random(seed)
    better = worse = start()
    trials = successes = 0
    for look in range(1, most + 1):
        y, x = (sum(draw.random() < rate for _ in range(each)) for rate in (live, candidate))
        share = centre(0.1, trials, successes)
        block = Block(each, y, each, x)
        better, worse = bet(better, block, share, 0.03), bet(worse, block, share, -0.03)
        trials, successes = trials + 2 * each, successes + x + y
        yield log_evidence(better), log_evidence(worse), look * each


def test_a_real_difference_is_found_and_none_is_not_invented() -> None:
    threshold = math.log(2 / 0.05)
    size, _ = sample_size(0.1, 0.03)
    runs = 200
    found = sum(any(b >= threshold for b, _, n in looks(seed, 0.1, 0.13, 25, 2 * size // 25)) for seed in range(runs))
    invented = sum(
        any(max(b, w) >= threshold for b, w, _ in looks(seed, 0.1, 0.1, 25, 2 * size // 25)) for seed in range(runs)
    )
    assert found >= 0.8 * runs
    # 5 % are allowed; 200 runs show more than 20 of them with a chance below one in a thousand.
    assert invented <= 20


def test_a_block_without_one_side_tells_nothing() -> None:
    assert bet(start(), Block(50, 10, 0, 0), 0.1, 0.02) == pytest.approx(start(), abs=2e-6)
    assert bet(start(), Block(0, 0, 0, 0), 0.1, 0.02) == start()


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and trials"):
        Block(1, 2, 1, 0)
