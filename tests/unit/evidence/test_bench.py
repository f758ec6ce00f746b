"""The bench's numpy tests decide exactly as the product does."""

from __future__ import annotations

import math

import numpy as np
import pytest

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
    tests, live = Tests(runs), Live.of(runs)
    for look in range(looks):
        progress = (look + 1) / looks
        n = rng.poisson(200, runs)
        k = rng.binomial(n, live_share)
        live.add(k, n)
        bound = live.allowed(limit, versus_live)
        blocks = []
        tests.invest(progress)
        for _ in range(2):
            m = rng.poisson(5, runs)
            bad = rng.binomial(m, 0.03)
            tests.bet(bad, m, bound)
            blocks.append((bad, m))
        for run in range(runs):
            fresh = Counts(requests=int(n[run]), errors=int(k[run]))
            lives[run] = Counts(requests=lives[run].requests + fresh.requests, errors=lives[run].errors + fresh.errors)
            recents[run] = fade(recents[run], fresh)
            mine = [Counts(requests=int(m[run]), errors=int(bad[run])) for bad, m in blocks]
            states[run] = judge.observe(states[run], mine, lives[run], recents[run], progress)
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
        short.bet(k, n, 0.01)
        long.bet(k, n, np.full(50, 0.01))
    assert short.evidence() == pytest.approx(long.evidence())
