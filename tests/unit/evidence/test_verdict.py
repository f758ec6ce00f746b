"""Verdicts: fail needs evidence, pass needs exposure, silence is neither."""

from __future__ import annotations

import pytest

from serinus.api.spec import Slo
from serinus.api.status import Counts
from serinus.api.units import Duration, Percent
from serinus.evidence.verdict import Finding, SequentialJudge

SLO = Slo(p99=Duration("50ms"), error_rate=Percent("0.1%"))
JUDGE = SequentialJudge(alpha=0.01, steps=3)


@pytest.mark.parametrize(
    ("candidate", "live", "finding", "reason"),
    [
        (Counts(), Counts(requests=1000), Finding.NOT_YET, "NoRequests"),
        (Counts(requests=99), Counts(requests=1000), Finding.NOT_YET, "TooFewRequests"),
        (Counts(requests=100), Counts(requests=1000), Finding.PASS, "WithinSLO"),
        (Counts(requests=100, errors=1), Counts(requests=1000), Finding.PASS, "WithinSLO"),
        (Counts(requests=20, errors=5), Counts(requests=1000), Finding.FAIL, "ErrorRateTooHigh"),
        (Counts(requests=60, slow=8), Counts(requests=1000), Finding.FAIL, "LatencyTooHigh"),
        (Counts(requests=10_000, slow=90), Counts(requests=10_000), Finding.PASS, "WithinSLO"),
        (Counts(requests=200, errors=10), Counts(requests=4000, errors=200), Finding.PASS, "WithinSLO"),
        (Counts(requests=200, errors=60), Counts(requests=4000, errors=200), Finding.FAIL, "ErrorRateTooHigh"),
        (Counts(requests=3, errors=5), Counts(), Finding.FAIL, "ErrorRateTooHigh"),
    ],
)
def test_table(candidate: Counts, live: Counts, finding: Finding, reason: str) -> None:
    verdict = JUDGE.judge(candidate, live, SLO, 100)
    assert (verdict.finding, verdict.reason) == (finding, reason)


def test_message_says_what_was_seen_and_what_was_allowed() -> None:
    verdict = JUDGE.judge(Counts(requests=60, slow=8), Counts(requests=1000), SLO, 100)
    assert verdict.message.startswith("8 of 60 requests took longer than 50ms (13.33%); allowed are 1% by the SLO")


@pytest.mark.parametrize("limit", ["0.0001%", "50%"])
def test_extreme_limits_do_not_break_the_arithmetic(limit: str) -> None:
    slo = Slo(error_rate=Percent(limit))
    assert JUDGE.judge(Counts(requests=500), Counts(), slo, 100).finding is Finding.PASS
