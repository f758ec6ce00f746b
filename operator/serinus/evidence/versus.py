"""An always-valid test of "the candidate's share of bad requests is at most `margin` above the live revision's".

Blocks are those of `sequential`: the requests of one pod between two looks. In one look the candidate's blocks have the
bad shares x_i, the live revision's y_j. For a guess g of the live share and stakes a_i, b_j with equal sums, all chosen
before the shares are seen, the capital is multiplied by

    product of (1 + a_i (x_i - g - margin))  *  product of (1 - b_j (y_j - g))

which is never negative while a_i <= 1/(g + margin) and b_j <= 1/(1 - g). Given the past and what hits every pod in this
look, pods are independent; with q_i and p_j their expected shares and log(1 + u) <= u, the logarithm of its expectation
is at most

    sum of a_i (q_i - margin)  -  sum of b_j p_j

where g has cancelled out, since the sums of the stakes are equal. So the expectation is at most 1 whenever the mean of
the candidate's shares is within the margin of the mean of the live revision's in the same look (means weighted by the
stakes): whatever happens inside a block, on either side, and however the shares drift from look to look. No bound of
the live revision's share is needed, and an incident that hits both cancels like g. Products of such factors are
supermartingales, as in `sequential`.

This is the test of Turner, Ly and Gruenwald ("Generic E-variables for exact sequential k-sample tests", J. Stat. Plan.
Inference 230, 2024) with bets on bounded means (Waudby-Smith and Ramdas 2024) in the place of likelihood ratios of
independent requests. Equal stakes cost nothing: the least that any pair of good shares leaves to be told,

    minimum over p of  sum of KL_inf(x_i, p + margin)  +  sum of KL_inf(1 - y_j, 1 - p),

has the derivative (sum of the best b_j) - (sum of the best a_i), for that of KL_inf is the best stake (envelope
theorem; KL_inf as Honda and Takemura 2010). At the minimum the best stakes have equal sums, so that these factors reach
it. b_j <= 1/(1 - g) says what a live block can tell: it may have failed as a whole by chance, however many requests it
has. Where the live revision has as few pods as the candidate, that is what decides how long it takes.

Who stakes all that there is room for is ruined by the first live block that does fail as a whole. Where such blocks are
what makes the live share p, the best stake is 1 - p/p* of the room, p* the share at that minimum: a half where it is
twice the share. So two of the alternatives take half the room at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from serinus.evidence.sequential import MOST, alternatives, fraction, rounded, together

Block = tuple[int, int]
"""Bad requests, and requests."""
PRIOR = 50.0
"""Requests that the first guess, a live share as large as the margin, counts for."""
MOST_SHARE = 0.9
"""Guess and margin together are at most this."""
ROOM = (*(1.0,) * 6, 0.5, 0.5, 1.0, 1.0)
"""The most that each alternative stakes, as a share of the largest sum of stakes that there is room for. The halves
belong to the highest rates: they want more than there is room for nearly always."""


def guess(bad: float, requests: float, margin: float) -> float:
    """The live share that bets are made around, by what it was before this look. A poor guess costs time, not alpha."""
    share = (PRIOR * margin + max(0.0, bad)) / (PRIOR + max(0.0, requests))
    return max(0.0, min(share, MOST_SHARE - margin))


def bet(
    capital: Sequence[float],
    candidate: Sequence[Block],
    live: Sequence[Block],
    share: float,
    margin: float,
    most: Sequence[float] = (),
) -> tuple[float, ...]:
    """Log capital by alternative after one look at both revisions; the same where one of them answered nothing.

    Args:
        capital: natural logarithms, one per alternative of `sequential.alternatives`.
        candidate: one block per pod.
        live: likewise.
        share: the live share guessed before this look, 0 <= share < 0.95 - margin.
        margin: largest difference that is still good, above 0.
        most: largest factor of each of the candidate's blocks; `sequential.MOST` where nothing is said.

    Raises:
        ValueError: a block with more bad requests than requests.
    """
    for bad, requests in (*candidate, *live):
        if not 0 <= bad <= requests:
            raise ValueError(f"bad must lie between 0 and requests, got {bad} of {requests}")
    tops = (*most, *(MOST for _ in candidate[len(most) :]))
    tried = [(n, bad / n, top) for (bad, n), top in zip(candidate, tops, strict=True) if n]
    total = sum(requests for _, requests in live)
    if not tried or not total:
        return tuple(capital)
    limit = share + margin
    room = total / max(requests for _, requests in live) / (1 - share)
    excesses = [(bad - requests * share) / total for bad, requests in live if requests]
    theirs: dict[float, float] = {}
    after = []
    for log, rate, number, part in zip(capital, alternatives(limit), together(), ROOM, strict=True):
        stakes = [fraction(n, rate, number, limit) / limit for n, _, _ in tried]
        whole = min(sum(stakes), part * room)
        scale = whole / sum(stakes)
        if whole not in theirs:
            # Bold bets all stake what there is room for.
            theirs[whole] = math.prod([1 - whole * excess for excess in excesses])
        factor = theirs[whole]
        for each, (_, x, top) in zip(stakes, tried, strict=True):
            factor *= min(top, 1 + scale * each * (x - limit))
        after.append(rounded(log, factor))
    return tuple(after)
