"""Serinus's rule on the invented traffic: from the first request of a step to the roll-back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bench.verdicts.rows import Row
from bench.verdicts.streams import TICK, Pods, pods_for
from bench.verdicts.vector import Live, Tests
from serinus.evidence.verdict import share_of_alpha

ALPHA = 0.01
STAGES = 4
"""Three steps, and what follows the promotion."""
HOLD = 300.0
"""Seconds of a step; detection is looked for in one that lasts longer."""


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
    live_rate = row.rate * row.live_per_candidate[stage]
    beside = Pods(live_rate, pods_for(live_rate), row.clumps, rng)
    tests, live = Tests(runs), live or Live.of(runs)
    for tick in range(math.ceil(hold / TICK)):
        at = (tick + 1) * TICK
        swing = row.swing(tick * TICK + stage * hold)
        tests.invest(at / hold)
        blocks = [pods.tick(pod, alive, row.share * swing, swing) for pod in range(pods.pods)]
        bound: float | NDArray[np.float64] = row.limit
        if row.live is not None:
            theirs = [beside.tick(pod, alive, row.live * swing, swing) for pod in range(beside.pods)]
            live.add(theirs)
            bound = live.allowed(row.limit)
        if row.margin is not None:
            tests.bet_versus(blocks, theirs, live.guess(row.margin), row.margin)
        else:
            for pod, (bad, requests) in enumerate(blocks):
                tests.bet(pod, bad, requests, bound)
        condemned = tests.evidence() >= threshold
        if condemned.any():
            when[alive[condemned]] = at
            alive = alive[~condemned]
            tests.keep(~condemned)
            live.keep(~condemned)
            if not len(alive):
                break
    return when
