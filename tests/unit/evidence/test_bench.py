"""The bench's numpy tests decide exactly as the product does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.verdicts import bound
from bench.verdicts.rows import Row, rows
from bench.verdicts.vector import Live, Tests
from serinus.api.shown import Capital, Counts, Recent
from serinus.evidence.sequential import log_evidence
from serinus.evidence.verdict import Question, SequentialJudge, fade


@pytest.mark.parametrize("versus_live", [False, True])
@pytest.mark.parametrize("limit", [0.001, 0.01])
@pytest.mark.parametrize("live_share", [0.0, 0.02])
def test_numpy_and_product_agree(limit: float, live_share: float, versus_live: bool) -> None:
    rng = np.random.default_rng(5)
    runs, looks = 20, 60
    question = Question("x", "errors", "X", "failed", limit, versus_live)
    judge = SequentialJudge((question,), 0.01)
    states: list[dict[str, Capital]] = [{} for _ in range(runs)]
    lives, recents = [Counts()] * runs, [Recent()] * runs
    before = [[Counts(), Counts()] for _ in range(runs)]
    tests, live = Tests(runs), Live.of(runs)
    for look in range(looks):
        progress = (look + 1) / looks
        n = rng.poisson(200, runs)
        k = rng.binomial(n, live_share)
        halves = [(k // 3, n // 2), (k - k // 3, n - n // 2)]
        live.add(halves)
        blocks = []
        tests.invest(progress)
        for _ in range(2):
            m = rng.poisson(5, runs)
            blocks.append((rng.binomial(m, 0.03), m))
        if versus_live:
            tests.bet_versus(blocks, halves, live.guess(limit), limit)
        else:
            for pod, (bad, m) in enumerate(blocks):
                tests.bet(pod, bad, m, live.allowed(limit))
        for run in range(runs):
            fresh = Counts(requests=int(n[run]), errors=int(k[run]))
            lives[run] = Counts(requests=lives[run].requests + fresh.requests, errors=lives[run].errors + fresh.errors)
            pods = [Counts(requests=int(each[run]), errors=int(bad[run])) for bad, each in halves]
            recents[run] = fade(recents[run], fresh)
            mine = [Counts(requests=int(m[run]), errors=int(bad[run])) for bad, m in blocks]
            states[run] = judge.observe(states[run], mine, lives[run], recents[run], progress, before[run], fresh, pods)
            # Pods without requests keep what they did before.
            before[run] = [new if new.requests else old for new, old in zip(mine, before[run], strict=True)]
    for run, state in enumerate(states):
        known = state["x"]
        expected = log_evidence(known.invested, known.held_back)
        assert math.log(tests.evidence()[run]) == pytest.approx(expected, abs=1e-3)


def test_a_constant_limit_takes_the_short_way_to_the_same_end() -> None:
    rng = np.random.default_rng(6)
    short, long = Tests(50), Tests(50)
    for each in (short, long):
        each.invest(1.0)
    for _ in range(40):
        n = rng.poisson(3, 50)
        k = rng.binomial(n, 0.02)
        short.bet(0, k, n, 0.01)
        long.bet(0, k, n, np.full(50, 0.01))
    assert short.evidence() == pytest.approx(long.evidence())


@pytest.mark.parametrize(("q", "p"), [(0.05, 0.001), (0.2, 0.01), (1.0, 0.01)])
def test_a_block_that_fails_as_a_whole_tells_as_much_as_one_request(q: float, p: float) -> None:
    shares = np.repeat([1.0, 0.0], [round(100_000 * q), round(100_000 * (1 - q))])
    assert bound._information((shares,), p) == pytest.approx(bound.divergence(q, p), rel=1e-6)


def test_nothing_can_be_told_where_the_share_is_good() -> None:
    assert bound._information((np.repeat([0.1, 0.0], [50_000, 50_000]),), 0.05) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("row", [r for r in rows() if r.group == "bad" and r.rate == 10 and r.share > 10 * r.limit])
def test_who_knows_less_needs_longer(row: Row) -> None:
    assert bound.clump_proof(row) >= bound.seconds(row)
