"""The fewest seconds that any test needs on average: log(1/alpha) / KL (Wald 1947; Lai 1981), for two kinds of tests.

`seconds` is for tests that know requests to be independent. `clump_proof` is for tests that keep alpha whatever happens
inside a block, the requests of one pod between two looks: their null hypothesis holds every distribution of the bad
share x of a block with a mean of at most p, so the divergence is the smallest one from any of them,

    KL_inf(Q, p) = max over f in [0, 1] of E_Q log(1 - f + f x / p)

(Honda and Takemura, "An asymptotically optimal bandit algorithm for bounded support models", COLT 2010; Waudby-Smith,
Sandoval and Jordan, "Universal log-optimality for general classes of e-processes and sequential hypothesis tests",
2025). One request per block gives KL; a block that fails as a whole tells as much as one request.

Against a live revision a test may take any pair of shares for true that is still good, so both have the minimum over
them, of what candidate and live revision tell together. Traffic with a daily shape tells as much in each second as it
has then. Neither knows of ticks: the targets add one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.verdicts.rows import Row, level
from bench.verdicts.serinus_rule import ALPHA
from bench.verdicts.streams import TICK, Clumps, Pods, pods_for

_BLOCKS = 100_000
_SIZES = 8
"""Classes of block sizes; a bet may depend on the size."""
Floats = NDArray[np.float64]


def divergence(q: float, p: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions, in nats."""
    first = q * math.log(q / p) if q > 0 else 0.0
    return first + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0)


def seconds(row: Row) -> float:
    """Seconds at the row's traffic where requests are independent, and the test knows it."""

    def told(swing: float) -> float:
        share, rate = row.share * swing, row.rate * swing
        if row.margin is None or row.live is None:
            return rate * divergence(share, row.limit)
        live, margin = row.live * swing, row.margin
        return rate * min(
            divergence(share, p + margin) + row.live_per_candidate[0] * divergence(live, p)
            for p in _between(live, share - margin, 1000)
        )

    return _until(row, told)


def clump_proof(row: Row) -> float:
    """Seconds at the row's traffic, pods and clumps for a test that holds whatever happens inside a block."""
    pods, live_rate = pods_for(row.rate), row.rate * row.live_per_candidate[0]

    def told(swing: float) -> float:
        candidate = _blocks(row.rate, row.share * swing, row.clumps, swing)
        if row.margin is None or row.live is None:
            return pods * _information(candidate, row.limit) / TICK
        share, margin = row.live * swing, row.margin
        live = tuple(1 - each for each in _blocks(live_rate, share, row.clumps, swing))
        return (
            min(
                pods * _information(candidate, p + margin) + pods_for(live_rate) * _information(live, 1 - p)
                for p in _between(share, row.share * swing - margin, 30)
            )
            / TICK
        )

    return _until(row, told)


def _until(row: Row, told: Callable[[float], float]) -> float:
    """Seconds until log(1/alpha) nats are told, at so many a second by the factor on traffic and shares."""
    needed, passed = math.log(1 / ALPHA), 0.0
    if row.swing is level:
        return needed / told(1.0)
    while (gain := told(round(row.swing(passed), 2))) * TICK < needed:
        needed, passed = needed - gain * TICK, passed + TICK
    return passed + needed / gain


def _between(low: float, high: float, steps: int) -> list[float]:
    """Shares of the live revision that may be true, from its own up to the candidate's less the margin."""
    return [low + (high - low) * i / steps for i in range(steps + 1)]


@lru_cache(maxsize=256)
def _blocks(rate: float, share: float, clumps: Clumps, swing: float = 1.0) -> tuple[Floats, ...]:
    """Bad shares of blocks with requests, by class of size."""
    pods = Pods(rate, pods_for(rate), clumps, np.random.default_rng(17))
    everyone = np.arange(_BLOCKS)
    pods.tick(0, everyone, share, swing)
    # The second tick: bursts of the first reach into it.
    bad, requests = pods.tick(0, everyone, share, swing)
    order = np.argsort(requests, kind="stable")
    order = order[requests[order] > 0]
    return tuple(bad[part] / requests[part] for part in np.array_split(order, _SIZES) if len(part))


def _information(blocks: tuple[Floats, ...], p: float) -> float:
    """KL_inf per block, blocks without requests included."""
    total = 0.0
    for shares in blocks:
        values, counts = np.unique(shares, return_counts=True)
        total += _best(values / p - 1, counts)
    return total / _BLOCKS


def _best(gains: Floats, counts: NDArray[np.int64]) -> float:
    """Largest sum of log(1 + f gain) over f in [0, 1]; concave, so by ternary search."""

    def value(f: float) -> float:
        return float(counts @ np.log(np.maximum(1e-300, 1 + f * gains)))

    low, high = 0.0, 1.0
    for _ in range(60):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        low, high = (one, high) if value(one) < value(two) else (low, two)
    return max(0.0, value(low), value(1.0))
