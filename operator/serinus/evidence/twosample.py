"""An always-valid test of "the candidate's share of successes is not larger than the live revision's".

Both revisions serve at the same time, so one look is one block: n and m trials with y and x successes. For a guess of
the two shares, a for the live revision and b for the candidate with a < b, and their mean t weighted by the trials, the
factor

    (a/t)^y ((1-a)/(1-t))^(n-y) (b/t)^x ((1-b)/(1-t))^(m-x)

has an expectation of at most 1 whenever the candidate's true share q is not above the live revision's p, whatever both
are: the expectation is f^n g^m with f = 1 - (t-a)(p-t)/(t(1-t)) and g = 1 + (b-t)(q-t)/(t(1-t)), and since
n(t-a) = m(b-t), its logarithm is at most n(t-a)(q-p)/(t(1-t)) <= 0. So the shares may change from block to block, as
they do from night to day. A product of such factors, each guess made before its block is seen, is a supermartingale
that starts at 1; by Ville's inequality it ever reaches 1/alpha with probability at most alpha, however often one looks
(Turner, Ly and Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping",
J. Stat. Plan. Inference 230, 2024; the one-sided null after Turner and Gruenwald, "Exact anytime-valid confidence
intervals for contingency tables and beyond", Stat. Probab. Lett. 198, 2023).

The guesses are the smallest effect worth finding and twice and four times of it, around the share seen so far; the
capital is split over them (a mixture; Robbins 1970).

Trials are taken to be independent. Where `design` of them come together - a user who tries ten times - each factor is
taken to the power 1/design: by Jensen's inequality its expectation stays at most 1 for clumps of up to that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MULTIPLES = (1.0, 2.0, 4.0)
"""Effects that are bet on, in multiples of the smallest one worth finding."""
WEIGHTS = (0.5, 0.25, 0.25)
"""How the capital is split over them."""
PRIOR = 100.0
"""Trials that the declared baseline counts for."""
_EDGE = 0.1
"""A guess keeps at least this much of the way from the mean to 0 and 1."""
_RUIN = -500.0
_GRAIN = 1e6


@dataclass(frozen=True)
class Block:
    """Trials and successes of both revisions between two looks."""

    live_trials: int
    live_successes: int
    candidate_trials: int
    candidate_successes: int

    def __post_init__(self) -> None:
        for successes, trials in (
            (self.live_successes, self.live_trials),
            (self.candidate_successes, self.candidate_trials),
        ):
            if not 0 <= successes <= trials:
                raise ValueError(f"successes must lie between 0 and trials, got {successes} of {trials}")


def start() -> tuple[float, ...]:
    """Log capital by guess before anything was seen."""
    return tuple(math.log(weight) for weight in WEIGHTS)


def centre(baseline: float, trials: int, successes: int) -> float:
    """The share that guesses are made around: what both revisions have shown so far, and the baseline before that."""
    return min(0.999, max(0.001, (PRIOR * baseline + successes) / (PRIOR + trials)))


def bet(capital: Sequence[float], block: Block, share: float, effect: float, design: float = 1.0) -> tuple[float, ...]:
    """Log capital by guess after one block. Rounded down, so that storing it as a decimal gives nothing away.

    Args:
        capital: as the block before left it.
        share: the mean of both shares that was guessed before the block was seen, 0 < share < 1.
        effect: the candidate's share minus the live revision's that is bet on; negative to bet on a smaller one.
        design: how many trials come together, at least 1.
    """
    trials = block.live_trials + block.candidate_trials
    if trials == 0:
        return tuple(capital)
    after = []
    for log, multiple in zip(capital, MULTIPLES, strict=True):
        room = (1 - _EDGE) * min(share, 1 - share)
        size = math.copysign(min(abs(effect) * multiple, room), effect)
        live = share - size * block.candidate_trials / trials
        candidate = share + size * block.live_trials / trials
        gain = _log_ratio(block.live_successes, block.live_trials, live, share)
        gain += _log_ratio(block.candidate_successes, block.candidate_trials, candidate, share)
        after.append(max(_RUIN, math.floor((log + gain / design) * _GRAIN) / _GRAIN))
    return tuple(after)


def _log_ratio(successes: int, trials: int, guess: float, mean: float) -> float:
    hit, miss = math.log(guess / mean), math.log((1 - guess) / (1 - mean))
    return successes * hit + (trials - successes) * miss


def log_evidence(capital: Sequence[float]) -> float:
    """Natural logarithm of the whole capital."""
    peak = max(capital)
    return peak + math.log(sum(math.exp(log - peak) for log in capital))
