"""How many trials an experiment on two shares needs, before it begins."""

from __future__ import annotations

import math
from statistics import NormalDist


def sample_size(
    baseline: float, effect: float, alpha: float = 0.05, power: float = 0.8, share: float = 0.5, design: float = 1.0
) -> tuple[int, int]:
    """Trials of the live revision and of the candidate, for a two-sided test of two shares at a fixed sample.

    The normal approximation without continuity correction (Fleiss, Levin and Paik, "Statistical Methods for Rates and
    Proportions", 3rd ed. 2003, section 4.4; the same as `power.prop.test` in R and `strict = FALSE`).

    Args:
        baseline: share of successes of the live revision, 0 < baseline < 1.
        effect: smallest difference worth finding, absolute; `baseline + effect` is a share too.
        alpha: accepted chance to find a difference where there is none.
        power: chance to find a difference as large as `effect`.
        share: part of the trials that the candidate gets, 0 < share < 1.
        design: Kish's design effect: how many trials come together, and tell as much as one.

    Raises:
        ValueError: an argument is out of range.
    """
    other = baseline + effect
    if not (0 < baseline < 1 and 0 < other < 1) or effect == 0:
        raise ValueError(f"baseline and baseline + effect must lie between 0 and 1 and differ, got {baseline}, {other}")
    if not (0 < alpha < 1 and 0 < power < 1 and 0 < share < 1 and design >= 1):
        raise ValueError("alpha, power and share must lie between 0 and 1, and design must be at least 1")
    ratio = share / (1 - share)
    pooled = (1 - share) * baseline + share * other
    below = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt((ratio + 1) * pooled * (1 - pooled))
    above = NormalDist().inv_cdf(power) * math.sqrt(ratio * baseline * (1 - baseline) + other * (1 - other))
    live = (below + above) ** 2 / (ratio * effect**2) * design
    return math.ceil(live), math.ceil(ratio * live)
