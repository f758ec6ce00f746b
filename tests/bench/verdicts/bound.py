"""The fewest requests that any test needs on average: log(1/alpha) / KL (Wald 1947; Lai 1981)."""

from __future__ import annotations

import math

from bench.verdicts.rows import Row
from bench.verdicts.serinus_rule import ALPHA, LIVE_PER_CANDIDATE


def divergence(q: float, p: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions, in nats."""
    first = q * math.log(q / p) if q > 0 else 0.0
    return first + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0)


def seconds(row: Row) -> float:
    """Seconds at the row's traffic; against the live revision, with the nearest pair of rates that is still good."""
    if row.margin is None or row.live is None:
        information = divergence(row.share, row.limit)
    else:
        information = min(
            divergence(row.share, p + row.margin) + LIVE_PER_CANDIDATE[0] * divergence(row.live, p)
            for p in (row.live + (row.share - row.live) * i / 1000 for i in range(1001))
            if p + row.margin < 1
        )
    return math.log(1 / ALPHA) / information / row.rate
