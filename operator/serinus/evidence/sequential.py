"""An always-valid test of "the share of bad requests is at most p0", whatever happens inside a block of requests.

Requests of one pod between two looks are one block. A bad batch, or a second in which a pod is slow, spoils many
requests of a block together, so requests are not independent; blocks nearly are. The test therefore bets on block
averages: with x = bad / requests of a block and 0 <= f <= 1 chosen before the block is seen, the factor

    1 - f + f * x / p0

is never negative, and its expectation is at most 1 whenever E[x | past] <= p0, however the requests of the block depend
on one another. A product of such factors is a supermartingale that starts at 1; by Ville's inequality it ever reaches
1/alpha with probability at most alpha, however often one looks (Waudby-Smith and Ramdas, "Estimating means of bounded
random variables by betting", J. R. Stat. Soc. B 86(1), 2024; Ramdas, Gruenwald, Vovk and Shafer, "Game-theoretic
statistics and safe anytime-valid inference", Statistical Science 38(4), 2023).

The bet for an alternative rate q and a block of n requests is f = 1 - ((1 - q) / (1 - p0))^n. For n = 1 the factor is
the likelihood ratio of the requests themselves; for rare failures it is Kelly's bet (f is the chance to see one); so
little is lost where requests are independent after all. What is given up on purpose: one block never condemns, since
none multiplies the capital by more than `MOST` (a smaller factor is as valid); blocks of two pods may. Trouble of one
pod that straddles two looks must not be taken for two troubles: after a bad block the next one of the same pod counts
for at most `AGAIN`.

The capital is split evenly over alternatives (a mixture; Robbins 1970). The last ones bet as if sixteen requests were
one: Kelly's bet where blocks are large and failures come in batches. A part is held back and invested bit by bit
while the step lasts, so that a candidate which turns bad late is not protected by the good it did before: a mixture
over the time of the change is a supermartingale too (Shin, Ramdas and Rinaldo, "E-detectors", 2023).

`versus` compares a candidate with the live revision by such bets on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

_PLACES = (*((i / 7, 1.0) for i in range(8)), (0.3, 16.0), (0.7, 16.0))
"""Place between the nearest and the farthest rate, and how many requests count as one, of each alternative."""
ALTERNATIVES = len(_PLACES)
MOST = 100.0
"""Largest factor of one block."""
AGAIN = 10.0
"""Largest factor of a block of a pod whose block before was bad too: both may be one and the same trouble."""
LARGEST = 0.95
"""The largest alternative rate; p0 must be below."""
HELD_BACK = 0.25
"""Share of the capital that is invested while the step lasts."""
_NEAREST = math.log(1.5)
_RUIN = -500.0
"""Logarithm of a capital that counts as nothing, so that sums stay finite."""
_GRAIN = 1e6
Z99 = NormalDist().inv_cdf(0.99)


@lru_cache(maxsize=4096)
def alternatives(p0: float) -> tuple[float, ...]:
    """Rates above p0 that are bet on: geometrically spaced in log-odds from 1.5 times the odds of p0 up."""
    base = _logit(p0)
    farthest = _logit(LARGEST) - base
    nearest = min(_NEAREST, farthest / 2)
    return tuple(_expit(base + nearest * (farthest / nearest) ** place) for place, _ in _PLACES)


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def together() -> tuple[float, ...]:
    """How many requests each alternative takes for one."""
    return tuple(number for _, number in _PLACES)


def places() -> tuple[float, ...]:
    """Where each alternative lies between the nearest rate, 0, and the farthest, 1."""
    return tuple(place for place, _ in _PLACES)


def start() -> tuple[float, ...]:
    """Log capital by alternative before anything was invested."""
    return (_RUIN,) * ALTERNATIVES


def invest(capital: Sequence[float], share: float) -> tuple[float, ...]:
    """`share` of the whole capital, spread evenly over the alternatives, is added to what they have."""
    if share <= 0:
        return tuple(capital)
    added = math.log(share) - math.log(ALTERNATIVES)
    return tuple(_add(log, added) for log in capital)


def bet(capital: Sequence[float], bad: int, requests: int, p0: float, most: float = MOST) -> tuple[float, ...]:
    """Log capital by alternative after one block. Rounded down, so that storing it as a decimal gives nothing away.

    Args:
        capital: natural logarithms, one per alternative.
        bad: requests of the block that failed or were slow, 0 <= bad <= requests.
        requests: requests of the block; none changes nothing.
        p0: largest share that is still good, 0 < p0 < 0.95. It may differ from block to block.
        most: largest factor of this block: `MOST`, or `AGAIN` after a bad one. Chosen before the block is seen.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= bad <= requests:
        raise ValueError(f"bad must lie between 0 and requests, got {bad} of {requests}")
    if not 0 < p0 < LARGEST:
        raise ValueError(f"p0 must lie between 0 and {LARGEST}, got {p0}")
    if requests == 0:
        return tuple(capital)
    gain = bad / requests / p0
    after = []
    for log, rate, (_, number) in zip(capital, alternatives(p0), _PLACES, strict=True):
        staked = fraction(requests, rate, number, p0)
        after.append(rounded(log, min(most, 1 - staked + staked * gain)))
    return tuple(after)


def fraction(requests: int, rate: float, number: float, p0: float) -> float:
    """The share f of the capital to bet on a block, for `rate` against `p0`, where `number` requests count as one."""
    return -math.expm1(requests / number * (math.log1p(-rate) - math.log1p(-p0)))


def rounded(log: float, factor: float) -> float:
    """Log capital after a factor, down to the decimals that are stored; nothing is lost for ever."""
    return max(_RUIN, math.floor((log + math.log(factor)) * _GRAIN) / _GRAIN) if factor > 0 else _RUIN


def log_evidence(capital: Sequence[float], held_back: float = 0.0) -> float:
    """Natural logarithm of the whole capital: the evidence against "the share is at most p0"."""
    peak = max(capital)
    invested = peak + math.log(sum(math.exp(log - peak) for log in capital))
    return _add(invested, math.log(held_back)) if held_back > 0 else invested


def _add(log: float, other: float) -> float:
    high, low = max(log, other), min(log, other)
    return high + math.log1p(math.exp(low - high))


def upper_bound(failures: float, requests: float, z: float = Z99) -> float:
    """Upper end of the Wilson score interval of a rate (Wilson 1927): at fixed time, not anytime-valid.

    Args:
        z: how many standard errors it is away; 2.33 for a confidence of 99 %.
    """
    if requests <= 0:
        return 1.0
    rate = failures / requests
    centre = rate + z * z / (2 * requests)
    spread = z * math.sqrt(rate * (1 - rate) / requests + z * z / (4 * requests * requests))
    return min(1.0, (centre + spread) / (1 + z * z / requests))
