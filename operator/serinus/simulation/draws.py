"""Random counts from the standard library's generator, fast where they are large."""

from __future__ import annotations

import math
from random import Random

_EXACT = 50.0
"""Below this mean, counts are drawn exactly; above, rounded from the normal distribution, which is then close."""


def poisson(mean: float, rng: Random) -> int:
    """How many of many rare things happen, where `mean` do on average (Knuth's method where the mean is small)."""
    if mean <= 0:
        return 0
    if mean > _EXACT:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def binomial(number: int, share: float, rng: Random) -> int:
    """How many of `number` are hit, each with the chance `share`. Waits between hits are geometric."""
    if number <= 0 or share <= 0:
        return 0
    if share >= 1:
        return number
    if share > 0.5:
        return number - binomial(number, 1 - share, rng)
    mean = number * share
    if mean > _EXACT:
        return min(number, max(0, round(rng.gauss(mean, math.sqrt(mean * (1 - share))))))
    hits, place, scale = 0, 0, math.log1p(-share)
    while True:
        wait = math.log(1.0 - rng.random()) / scale
        if place + wait >= number:
            return hits
        place += 1 + int(wait)
        hits += 1
