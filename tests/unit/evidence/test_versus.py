"""The test against the live revision: exact expectations where they can be added up, and runs where they cannot."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.evidence.book import Book
from serinus.evidence.counters import Snapshot
from serinus.evidence.sequential import AGAIN, ALTERNATIVES, invest, log_evidence, start
from serinus.evidence.versus import MOST_SHARE, Block, bet, guess

WHOLE = invest(start(), 1.0)
MARGINS = st.sampled_from([1e-6, 0.001, 0.01, 0.1, 0.5])
SHARES = st.floats(0.0, 1.0)
Pod = tuple[int, tuple[float, ...]]
"""Requests of a pod in one look, and the chance of 0, 1, 2, ... bad ones."""


@st.composite
def pods(draw: st.DrawFn, most: int) -> list[Pod]:
    """Pods of a few requests each, that fail in any clumps."""
    found = []
    for requests in draw(st.lists(st.integers(0, 3), min_size=1, max_size=most)):
        weights = draw(st.lists(st.integers(0, 9), min_size=requests + 1, max_size=requests + 1).filter(any))
        found.append((requests, tuple(weight / sum(weights) for weight in weights)))
    return found


def mean(pod: Pod) -> float:
    requests, chances = pod
    return sum(bad * chance for bad, chance in enumerate(chances)) / requests if requests else 0.0


def expected(candidate: list[Pod], live: list[Pod], share: float, margin: float) -> list[float]:
    """Expected factor of each alternative, by adding up every outcome."""
    totals = [0.0] * ALTERNATIVES
    for outcome in product(*(range(requests + 1) for requests, _ in (*candidate, *live))):
        chance = math.prod(pod[1][bad] for pod, bad in zip((*candidate, *live), outcome, strict=True))
        blocks = [(bad, pod[0]) for pod, bad in zip((*candidate, *live), outcome, strict=True)]
        after = bet(WHOLE, blocks[: len(candidate)], blocks[len(candidate) :], share, margin)
        for place, (log, before) in enumerate(zip(after, WHOLE, strict=True)):
            totals[place] += chance * math.exp(log - before)
    return totals


@settings(deadline=None)
@given(candidate=pods(2), live=pods(3), share=SHARES, margin=MARGINS)
def test_no_factor_is_expected_to_gain_where_the_candidate_is_good(
    candidate: list[Pod], live: list[Pod], share: float, margin: float
) -> None:
    """Each of the candidate's pods is within the margin of each live one, in whatever clumps they fail."""
    best = min((mean(pod) for pod in live if pod[0]), default=0.0)
    good = [pod for pod in candidate if mean(pod) <= best + margin]
    assert all(total <= 1 + 1e-9 for total in expected(good, live, min(share, MOST_SHARE - margin), margin))


@settings(deadline=None)
@given(size=st.integers(1, 500), number=st.integers(1, 4), p=SHARES, share=SHARES, margin=MARGINS)
def test_nor_where_blocks_fail_as_a_whole_at_the_margin(
    size: int, number: int, p: float, share: float, margin: float
) -> None:
    """The largest good difference and the worst clumps, with as many pods on either side as one likes."""
    q, share = min(1.0, p + margin), min(share, MOST_SHARE - margin)
    totals = [0.0] * ALTERNATIVES
    for x, ys in product((0, 1), product((0, 1), repeat=number)):
        chance = (q if x else 1 - q) * math.prod(p if y else 1 - p for y in ys)
        after = bet(WHOLE, [(x * size, size)], [(y * size, size) for y in ys], share, margin)
        for place, (log, before) in enumerate(zip(after, WHOLE, strict=True)):
            totals[place] += chance * math.exp(log - before)
    assert all(total <= 1 + 1e-9 for total in totals)


@given(pods=st.integers(1, 20), requests=st.integers(1, 500), hit=SHARES, share=SHARES, margin=MARGINS)
def test_what_hits_all_pods_of_both_alike_is_never_held_against_the_candidate(
    pods: int, requests: int, hit: float, share: float, margin: float
) -> None:
    block = (round(hit * requests), requests)
    after = bet(WHOLE, [block] * pods, [block] * (2 * pods), min(share, MOST_SHARE - margin), margin)
    assert all(log <= before + 1e-9 for log, before in zip(after, WHOLE, strict=True))


@given(bad=st.integers(0, 49), theirs=st.integers(0, 49), other=st.integers(0, 50), share=SHARES, margin=MARGINS)
def test_another_bad_request_speaks_against_the_candidate_or_for_it_by_who_answered_it(
    bad: int, theirs: int, other: int, share: float, margin: float
) -> None:
    share = min(share, MOST_SHARE - margin)

    def after(mine: int, live: int) -> tuple[float, ...]:
        return bet(WHOLE, [(mine, 50), (other, 50)], [(live, 50), (other, 60), (0, 7)], share, margin)

    now = after(bad, theirs)
    assert all(more >= log for more, log in zip(after(bad + 1, theirs), now, strict=True))
    assert all(less <= log for less, log in zip(after(bad, theirs + 1), now, strict=True))


@given(bad=st.integers(0, 20), share=SHARES, margin=MARGINS)
def test_after_a_bad_block_a_pods_next_counts_for_less(bad: int, share: float, margin: float) -> None:
    share, live = min(share, MOST_SHARE - margin), [(0, 20)] * 400
    free, held = (bet(WHOLE, [(bad, 20)], live, share, margin, most) for most in ((), (AGAIN,)))
    assert all(less <= log for less, log in zip(held, free, strict=True))


@pytest.mark.parametrize("blocks", [([], [(1, 50)]), ([(5, 5)], []), ([(0, 0)], [(1, 50)]), ([(5, 5)], [(0, 0)])])
def test_one_side_alone_tells_nothing(blocks: tuple[list[Block], list[Block]]) -> None:
    assert bet(WHOLE, *blocks, 0.01, 0.005) == WHOLE


def test_a_live_revision_that_fails_altogether_leaves_nothing_infinite() -> None:
    capital = WHOLE
    for _ in range(300):
        capital = bet(capital, [(50, 50)], [(50, 50)] * 3, guess(50, 50, 0.01), 0.01)
    assert all(math.isfinite(log) for log in capital)
    assert log_evidence(capital) <= 0


@given(bad=st.integers(-5, 1000), requests=st.integers(-5, 1000), margin=MARGINS)
def test_a_guess_leaves_room_for_the_margin(bad: int, requests: int, margin: float) -> None:
    """Counts that fell, since a pod is gone, do no harm."""
    assert 0 <= guess(min(bad, requests), requests, margin) <= MOST_SHARE - margin


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="bad must lie between"):
        bet(WHOLE, [(3, 2)], [(0, 5)], 0.01, 0.01)


@pytest.mark.parametrize("together", [1, 20], ids=["alone", "as a whole"])
def test_a_real_difference_is_found_and_none_is_not_invented(together: int) -> None:
    """Two pods beside six, 20 requests each, with the live share as it swings between night and day."""
    dice, runs, alpha = random.Random(5), 100, 0.05

    def block(share: float) -> Block:
        return together * sum(dice.random() < share for _ in range(20 // together)), 20

    def condemned(difference: float, looks: int) -> bool:
        capital, seen = WHOLE, (0, 0)
        for look in range(looks):
            p = 0.05 + 0.04 * math.sin(look / 30)
            live = [block(p) for _ in range(6)]
            capital = bet(capital, [block(p + difference) for _ in range(2)], live, guess(*seen, 0.01), 0.01)
            if log_evidence(capital) >= math.log(1 / alpha):
                return True
            seen = (seen[0] + sum(bad for bad, _ in live), seen[1] + 120)
        return False

    assert sum(condemned(0.2, 100) for _ in range(runs)) >= 0.8 * runs
    # 99.9 % upper quantile of Binomial(100, 0.05) is 13.
    assert sum(condemned(0.01, 150) for _ in range(runs)) <= 13


def best_stake(shares: list[float], chances: list[float], p: float) -> tuple[float, float]:
    """KL_inf from these block shares to a mean of p, and the stake that reaches it; concave, so by ternary search."""

    def told(stake: float) -> float:
        terms = zip(shares, chances, strict=True)
        return sum(chance * math.log(max(1e-300, 1 + stake * (x - p))) for x, chance in terms)

    low, high = 0.0, 1 / p
    for _ in range(100):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        low, high = (one, high) if told(one) < told(two) else (low, two)
    return told(low), low


@pytest.mark.parametrize(("n", "k"), [(2, 2), (2, 19), (3, 1)])
@pytest.mark.parametrize(
    "x", [([0.0, 1.0], [0.9, 0.1]), ([0.0, 0.2, 0.5], [0.5, 0.3, 0.2]), ([0.18, 0.22], [0.5, 0.5])]
)
@pytest.mark.parametrize("y", [([0.0, 1.0], [0.98, 0.02]), ([0.0, 0.05], [0.8, 0.2])])
def test_at_the_least_favourable_pair_of_shares_the_best_stakes_have_equal_sums(
    n: int, k: int, x: tuple[list[float], list[float]], y: tuple[list[float], list[float]]
) -> None:
    """So that a test with equal stakes reaches the bound."""
    margin, good = 0.01, [1 - share for share in y[0]]

    def told(p: float) -> float:
        return n * best_stake(*x, p + margin)[0] + k * best_stake(good, y[1], 1 - p)[0]

    low, high = (sum(share * chance for share, chance in zip(*each, strict=True)) for each in (y, x))
    high -= margin
    for _ in range(60):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, two) if told(one) < told(two) else (one, high)
    mine, theirs = n * best_stake(*x, low + margin)[1], k * best_stake(good, y[1], 1 - low)[1]
    assert mine == pytest.approx(theirs, rel=1e-2)


def test_one_pod_of_the_live_revision_that_fails_altogether_does_not_make_the_test_blind() -> None:
    """The best stake is below the largest where that happens. Both revisions have two pods."""
    capital, looks = bet(WHOLE, [(20, 20)] * 2, [(50, 50), (0, 50)], 0.01, 0.01), 0
    while log_evidence(capital) < math.log(1 / 0.01):
        capital = bet(capital, [(20, 20)] * 2, [(0, 50)] * 2, 0.01, 0.01)
        looks += 1
    # Each of the looks that follow may double or triple what is left: half of a fifth.
    assert looks <= 10


LOOK = st.tuples(st.integers(0, 10), st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=5, max_size=5))
"""Tenths that are bad everywhere; of each pod, tens of requests, and whether it starts again before they come."""


@settings(deadline=None)
@given(st.lists(LOOK, min_size=1, max_size=12), MARGINS)
def test_pods_that_start_again_do_not_make_equal_revisions_differ(
    looks: list[tuple[int, list[tuple[int, bool]]]], margin: float
) -> None:
    """Two pods of the candidate and three of the live revision, from counters on. Each starts again once at most."""
    book, capital, values = Book(), WHOLE, [(10_000, 20_000)] * 5
    series = [("ns", "model", "candidate" if pod < 2 else "live", f"10.0.0.{pod}:8080") for pod in range(5)]
    seen = (0, 0)
    for at, (tenths, pods) in enumerate([(0, [(0, False)] * 5), *looks]):
        for pod, (tens, again) in enumerate(pods):
            bad, requests = (0, 0) if again and values[pod][1] >= 20_000 else values[pod]
            values[pod] = (bad + tens * tenths, requests + 10 * tens)
        counters = {
            "requests": dict(zip(series, (float(requests) for _, requests in values), strict=True)),
            "errors": dict(zip(series, (float(bad) for bad, _ in values), strict=True)),
        }
        book.take(Snapshot(float(at), counters))
        evidence, mark = book.read(("ns", "model"))
        mine, theirs = (
            [(each.errors, each.requests) for each in evidence.blocks.get(name, ())] for name in ("candidate", "live")
        )
        capital = bet(capital, mine, theirs, guess(*seen, margin), margin)
        book.settle(("ns", "model"), mark)
        seen = (seen[0] + sum(bad for bad, _ in theirs), seen[1] + sum(requests for _, requests in theirs))
        assert log_evidence(capital) <= 1e-9
