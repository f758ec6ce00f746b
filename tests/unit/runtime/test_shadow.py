"""A shadow's joiner without a network: pairs in any order, what agrees, samples that are fair, PSI and KS."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from serinus_runtime.shadow import twosample
from serinus_runtime.shadow.agreement import Outcome, compare
from serinus_runtime.shadow.chosen import BottomK
from serinus_runtime.shadow.pairing import REASONS, Pairing, Side
from serinus_runtime.shadow.records import ALL, Record, place
from serinus_runtime.shadow.tally import WORST, Tally

FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)
EVENTS = st.lists(st.tuples(st.sampled_from(Side), st.integers(0, 30), st.floats(0, 20)), max_size=200)


def record(key: object, score: float = 0.5, label: str = "allow", code: int = 200, **more: object) -> Record:
    """An answer with a score and a label."""
    fields = {"labels": {"decision": [label]}, "numbers": {"p": [score]}, "scores": [score], "size": 100, **more}
    return Record(f"r{key}", code, 5.0, 1, "h", **fields)  # type: ignore[arg-type]


@settings(deadline=None)
@given(EVENTS, st.integers(1, 40))
def test_each_record_is_half_of_a_pair_or_counted_once(events: list[tuple[Side, int, float]], most: int) -> None:
    pairing, now, pairs = Pairing(window=10.0, records=most), 0.0, []
    for side, key, later in events:
        now += later
        pairing.expire(now)
        if (pair := pairing.add(side, record(key, label=side.value), now)) is not None:
            pairs.append(pair)
        assert len(pairing) <= most
        assert pairing.held == 100 * len(pairing)
    assert all(live.id == candidate.id for live, candidate in pairs)
    assert all(live.labels != candidate.labels for live, candidate in pairs), "a side was joined with itself"
    assert all(live.labels["decision"] == ["live"] for live, _ in pairs)
    pairing.expire(now + 10.1)
    assert len(pairing) == 0
    assert len(events) == 2 * pairing.pairs + sum(pairing.unpaired.values())
    assert pairing.pairs == len(pairs)


@settings(deadline=None)
@given(st.permutations([(side, key) for side in Side for key in range(12)]))
def test_any_order_makes_the_same_pairs(order: list[tuple[Side, int]]) -> None:
    pairing = Pairing()
    pairs = {pair[0].id for side, key in order if (pair := pairing.add(side, record(key), 0.0)) is not None}
    assert pairs == {f"r{key}" for key in range(12)}
    assert sum(pairing.unpaired.values()) == 0


def test_reasons_for_having_no_partner() -> None:
    pairing = Pairing(window=10.0, records=2)
    pairing.add(Side.LIVE, record(1), 0.0)
    pairing.add(Side.LIVE, record(1), 0.0)
    pairing.add(Side.CANDIDATE, record(2), 1.0)
    pairing.add(Side.LIVE, record(3), 1.0)
    assert pairing.unpaired == {**dict.fromkeys(REASONS, 0), "duplicate": 1, "evicted": 1}
    pairing.expire(10.9)
    assert pairing.unpaired["candidate_only"] == 0
    pairing.expire(11.0)
    pairing.lost(7)
    assert pairing.unpaired == {"live_only": 1, "candidate_only": 1, "duplicate": 1, "evicted": 1, "lost": 7}


def test_a_retry_after_the_pair_is_a_duplicate_and_not_half_a_pair() -> None:
    pairing = Pairing(window=10.0)
    pairing.add(Side.LIVE, record(1), 0.0)
    assert pairing.add(Side.CANDIDATE, record(1), 0.1) is not None
    assert pairing.add(Side.LIVE, record(1), 0.2) is None
    assert (len(pairing), pairing.unpaired["duplicate"]) == (0, 1)


def test_memory_is_bounded_in_bytes_too() -> None:
    pairing = Pairing(size=1000)
    for key in range(100):
        pairing.add(Side.LIVE, record(key, size=400), 0.0)
    assert pairing.held <= 1000
    assert pairing.unpaired["evicted"] == 98


@pytest.mark.parametrize(
    ("live", "candidate", "tolerance", "outcome"),
    [
        (record(1, 0.7), record(1, 0.9), None, Outcome.AGREED),
        (record(1, 0.7), record(1, 0.9), 0.1, Outcome.DISAGREED),
        (record(1, 0.7), record(1, 0.79), 0.1, Outcome.AGREED),
        (record(1, label="allow"), record(1, label="block"), None, Outcome.DISAGREED),
        (record(1, labels={}), record(1, 0.505, labels={}), None, Outcome.AGREED),
        (record(1, labels={}), record(1, 0.52, labels={}), None, Outcome.DISAGREED),
        (record(1, math.nan, labels={}), record(1, math.nan, labels={}), None, Outcome.AGREED),
        (record(1, math.nan, labels={}), record(1, 0.5, labels={}), None, Outcome.DISAGREED),
        (record(1, labels={}), record(1, labels={}, numbers={"p": [0.5, 0.5]}), None, Outcome.DISAGREED),
        (record(1, labels={}), record(1, labels={}, numbers={"q": [0.5]}), None, Outcome.INCOMPARABLE),
        (record(1), record(1, code=500), None, Outcome.CANDIDATE_FAILED),
        (record(1), record(1, code=400), None, Outcome.CANDIDATE_FAILED),
        (record(1, code=503), record(1), None, Outcome.LIVE_FAILED),
        (record(1, code=503), record(1, code=500), None, Outcome.BOTH_FAILED),
        (record(1, code=400), record(1, code=400), None, Outcome.AGREED),
        (record(1, code=429), record(1, code=429), None, Outcome.BOTH_FAILED),
    ],
)
def test_what_agrees(live: Record, candidate: Record, tolerance: float | None, outcome: Outcome) -> None:
    assert compare(live, candidate, tolerance).outcome is outcome


def test_a_flip_names_the_labels() -> None:
    found = compare(record(1, 0.5, "allow"), record(1, 0.8, "block"))
    assert found.flips == {"decision": ("allow", "block")}
    assert found.distance == pytest.approx(0.3)


@settings(deadline=None)
@given(FLOATS, FLOATS)
def test_ks_is_scipys(one: list[float], other: list[float]) -> None:
    grid = np.concatenate((one, other))
    apart = stats.ecdf(one).cdf.evaluate(grid) - stats.ecdf(other).cdf.evaluate(grid)
    expected = np.max(np.abs(apart))
    assert twosample.ks(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-12)


def test_psi_tells_a_shift_and_not_the_size_of_the_sample() -> None:
    random = np.random.default_rng(1)
    reference, same = random.normal(size=4000), random.normal(size=150)
    assert twosample.psi_numbers(same, reference) < 0.1
    assert twosample.psi_numbers(reference + 1.0, reference) > 0.5
    assert twosample.psi_numbers(reference, reference) == 0.0
    assert twosample.psi_values(["a"] * 500 + ["b"] * 500, ["a"] * 900 + ["b"] * 100) == pytest.approx(0.88, abs=0.02)
    assert twosample.psi_values(["a"] * 100, ["a"] * 100) == 0.0
    assert twosample.psi_numbers(np.full(200, np.nan), np.full(200, np.nan)) == 0.0


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), unique=True), st.integers(1, 20), st.randoms())
def test_the_sample_is_the_same_in_any_order(keys: list[int], count: int, random: object) -> None:
    def kept(order: list[int]) -> list[int]:
        chosen: BottomK[int] = BottomK(count)
        for key in order:
            chosen.add(key // 3, str(key), key)
            chosen.add(key // 3, str(key), key)
        assert len(chosen) == min(count, len(order))
        assert chosen.below == ALL or len(chosen) == count
        return list(chosen)

    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert kept(keys) == kept(shuffled)


def test_a_sample_of_none_wants_nothing() -> None:
    nothing: BottomK[int] = BottomK(0)
    nothing.add(0, "a", 1)
    assert (nothing.below, len(nothing)) == (0, 0)


def test_the_worst_are_failures_then_flips_then_distance() -> None:
    tally = Tally()
    for key in range(100):
        tally.add(record(key), record(key))
        tally.add(record(f"f{key}", 0.5), record(f"f{key}", 0.5 + key / 1000, "block"))
    tally.add(record("x"), record("x", code=500))
    worst = tally.worst
    assert len(worst) == WORST
    assert [worst[0].id, worst[1].id, worst[-1].id] == ["rx", "rf99", "rf81"]
    assert worst[1].live == {"decision": ["allow"], "p": [0.5]}
    assert tally.flips == {"decision": 100}
    assert tally.turns == {"decision: allow -> block": 100}
    assert tally.outcomes == {Outcome.AGREED: 100, Outcome.DISAGREED: 100, Outcome.CANDIDATE_FAILED: 1}


def test_swapped_columns_are_found_by_their_names() -> None:
    random = np.random.default_rng(2)
    tally = Tally()
    tally.columns("live", ("amount", "age", "only_live"))
    tally.columns("candidate", ("age", "amount"))
    for key in range(400):
        amount, age = random.lognormal(3, 1), random.uniform(0, 9)
        row = [[amount, age, None]]
        tally.add(record(key, inputs=row), record(key, inputs=row))
    figures = tally.figures()
    assert {feature.name for feature in figures.inputs} == {"amount", "age"}
    assert all(feature.psi > 1 and feature.ks is not None and feature.ks > 0.5 for feature in figures.inputs)
    assert (figures.psi, figures.ks) == (0.0, 0.0)


def test_figures_say_nothing_of_few_pairs_and_then_the_ratio_of_times() -> None:
    tally = Tally()
    for key in range(99):
        tally.add(record(key), record(key))
    assert tally.figures().psi is None
    assert tally.figures().latency_ratio is None
    for key in range(99, 600):
        theirs = record(key)
        theirs.ms = 10.0
        tally.add(record(key), theirs)
    assert tally.figures().latency_ratio == pytest.approx(2.0)


def test_altered_requests_are_counted() -> None:
    tally = Tally()
    tally.add(record(1), record(1))
    other = record(2)
    other.hash = "other"
    tally.add(record(2), other)
    assert tally.altered == 1


def test_all_pods_choose_the_same_requests() -> None:
    assert place("a-b-c") == place("a-b-c")
    assert len({place(str(number)) for number in range(1000)}) > 990
