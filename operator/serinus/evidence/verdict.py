"""From counts to a verdict: fail needs evidence, pass needs exposure, silence is neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from serinus.api.spec import Slo
from serinus.api.status import Counts
from serinus.api.units import Percent
from serinus.evidence.sequential import log_e_value, upper_bound

SLOW_FRACTION = 0.01
"""p99 <= limit means: at most one request in a hundred is slower than the limit."""
_STRICTEST = 1e-6
_LAXEST = 0.5


class Finding(StrEnum):
    FAIL = "Fail"
    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    NOT_YET = "NotYet"


@dataclass(frozen=True)
class Verdict:
    """What the counts say, why (a CamelCase word), and the numbers as a sentence for people."""

    finding: Finding
    reason: str
    message: str


class Judge(Protocol):
    """A way to judge a candidate by what happened since its step began."""

    def judge(self, candidate: Counts, live: Counts, slo: Slo, min_requests: int) -> Verdict:
        """Counts of both revisions over the same time -> verdict."""
        ...


@dataclass(frozen=True)
class SequentialJudge:
    """Anytime-valid tests of error rate and slow fraction against the SLO.

    Where the live revision itself misses the limit over the same time, the candidate is held to the live revision's
    upper confidence bound instead: what hits both blames neither.
    """

    alpha: float
    """Accepted chance of one false alarm in the whole release, shared evenly by metrics and steps."""
    steps: int

    def judge(self, candidate: Counts, live: Counts, slo: Slo, min_requests: int) -> Verdict:
        """Fail as soon as the evidence is clear; pass once `min_requests` were answered and nothing speaks against."""
        threshold = math.log(2 * max(1, self.steps) / self.alpha)
        checks = (
            ("ErrorRateTooHigh", "failed", candidate.errors, live.errors, slo.error_rate.fraction, "error rate"),
            (
                "LatencyTooHigh",
                f"took longer than {slo.p99}",
                candidate.slow,
                live.slow,
                SLOW_FRACTION,
                "slow fraction",
            ),
        )
        told = []
        for reason, verb, bad, live_bad, limit, noun in checks:
            bound, against = reference(live_bad, live.requests, limit)
            bad = min(bad, candidate.requests)
            evidence = log_e_value(bad, candidate.requests, bound)
            share = Percent.of(bad / candidate.requests) if candidate.requests else "0%"
            if evidence >= threshold:
                sure = min(1 - 1e-9, 1 - math.exp(-evidence))
                return Verdict(
                    Finding.FAIL,
                    reason,
                    f"{bad} of {candidate.requests} requests {verb} ({share}); "
                    f"allowed are {Percent.of(bound)}{against}; sure to {100 * sure:.4g}%",
                )
            told.append(f"{noun} {share}")
        numbers = f"{candidate.requests} requests, " + ", ".join(told)
        if candidate.requests == 0:
            return Verdict(Finding.NOT_YET, "NoRequests", "the candidate has answered no request at this step yet")
        if candidate.requests < min_requests:
            return Verdict(Finding.NOT_YET, "TooFewRequests", f"{numbers}; {min_requests} requests are needed")
        return Verdict(Finding.PASS, "WithinSLO", numbers)


def reference(live_bad: int, live_requests: int, limit: float) -> tuple[float, str]:
    """The rate a candidate is held to, and how to say where it comes from."""
    limit = min(max(limit, _STRICTEST), _LAXEST)
    if live_requests > 0 and live_bad / live_requests > limit:
        bound = min(max(limit, upper_bound(min(live_bad, live_requests), live_requests)), _LAXEST)
        return bound, " (the live revision misses the SLO too)"
    return limit, " by the SLO"
