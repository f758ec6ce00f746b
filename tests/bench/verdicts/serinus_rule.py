"""Serinus's rule on the invented traffic: from the first request of a step to the roll-back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bench.verdicts.rows import Row
from bench.verdicts.streams import BATCH, TICK, Pods, pods_for
from bench.verdicts.vector import Live, Tests
from serinus.evidence.verdict import share_of_alpha

ALPHA = 0.01
STAGES = 4
"""Three steps, and what follows the promotion."""
HOLD = 300.0
"""Seconds of a step; detection is looked for in one that lasts longer."""
LIVE_PER_CANDIDATE = (19.0, 3.0, 1.0)
"""Requests of the live revision per request of the candidate at 5, 25 and 50 %."""


def release(row: Row, runs: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds until the roll-back of a whole release through three steps; infinity where it is promoted."""
    when, live = np.full(runs, np.inf), Live.of(runs)
    for stage in range(STAGES - 1):
        found = step(row, runs, rng, stage, HOLD, live)
        live = live.next_step(runs)
        when = np.where(np.isinf(when) & np.isfinite(found), found + stage * HOLD, when)
    return when


def step(
    row: Row, runs: int, rng: np.random.Generator, stage: int, hold: float, live: Live | None = None
) -> NDArray[np.float64]:
    """Seconds until one step condemns its candidate; infinity where it passes."""
    asked = 4 if row.margin is not None else 2
    threshold = asked / (ALPHA * share_of_alpha(stage, STAGES))
    when, alive = np.full(runs, np.inf), np.arange(runs)
    pods = Pods(row.rate, pods_for(row.rate), row.clumps, rng)
    live_rate = row.rate * LIVE_PER_CANDIDATE[stage]
    tests, live = Tests(runs), live or Live.of(runs)
    for tick in range(math.ceil(hold / TICK)):
        at = (tick + 1) * TICK
        swing = row.swing(tick * TICK + stage * hold)
        tests.invest(at / hold)
        bound: float | NDArray[np.float64] = row.limit
        if row.live is not None:
            live.add(*_live(row, live_rate * swing * TICK, row.live * swing, len(alive), rng))
            bound = live.allowed(row.margin or row.limit, row.margin is not None)
        for pod in range(pods.pods):
            bad, requests = pods.tick(pod, alive, row.share * swing, swing)
            tests.bet(bad, requests, bound)
        condemned = tests.evidence() >= threshold
        if condemned.any():
            when[alive[condemned]] = at
            alive = alive[~condemned]
            tests.keep(~condemned)
            live.keep(~condemned)
            if not len(alive):
                break
    return when


def _live(
    row: Row, requests: float, share: float, runs: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    number = rng.poisson(requests, runs)
    if row.clumps == "none":
        return rng.binomial(number, share), number
    of_a_pod = requests / pods_for(requests / TICK)
    # A batch, or what one pod serves in a second.
    together = max(1, round(min(BATCH, of_a_pod) if row.clumps == "batch" else of_a_pod / TICK))
    return np.minimum(number, together * rng.poisson(number * share / together)), number
