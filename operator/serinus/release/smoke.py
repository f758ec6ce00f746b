"""A smoke test as a task, what came of it, and what that says. No I/O: `serinus.errands.smoke` sends the requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from serinus.api.smoke import Compared, SmokeTest
from serinus.api.units import Duration, Percent


@dataclass(frozen=True)
class SmokeTask:
    """Send the requests of `test` to the pods of `revision`, and to those of `live` for comparison."""

    test: SmokeTest
    model: str
    """Name in `/v2/models/NAME` of the candidate."""
    revision: str
    live: str | None = None
    live_model: str = ""
    keyed: bool = False
    """The candidate's pods ask for an API key."""
    live_keyed: bool = False


@dataclass(frozen=True)
class SmokeReport:
    """What the requests of a smoke test came to. Latencies in seconds."""

    source: str
    requests: int
    errors: int = 0
    error: str | None = None
    """The first error."""
    p50: float | None = None
    p95: float | None = None
    expected: Compared | None = None
    parity: Compared | None = None
    differences: tuple[str, ...] = field(default=())
    unsuitable: str | None = None
    """Why the test could not be made of what was given: no error of the candidate's, and trying again is no use."""


def judge(test: SmokeTest, report: SmokeReport) -> str | None:
    """Why the candidate fails the test; None where it passes."""
    if report.unsuitable is not None:
        return report.unsuitable
    if report.requests == 0:
        return "no request was sent"
    if report.errors > test.max_error_rate.fraction * report.requests:
        return f"{report.errors} of {report.requests} requests failed: {report.error}"
    first = f": {report.differences[0]}" if report.differences else ""
    if report.expected is not None and report.expected.disagreeing:
        return f"{report.expected.disagreeing} of {report.expected.samples} answers are not as expected{first}"
    for share, limit, measured in (("p50", test.max_p50, report.p50), ("p95", test.max_p95, report.p95)):
        if limit is not None and (measured is None or measured > limit.seconds):
            shown = "unknown" if measured is None else Duration.of(measured)
            return f"{share} is {shown}, allowed is {limit}"
    return _parity(test, report, first)


def _parity(test: SmokeTest, report: SmokeReport, first: str) -> str | None:
    limit, parity = test.max_disagreement, report.parity
    if limit is None or parity is None:
        return None
    if parity.samples == 0:
        return f"nothing could be compared with the live revision: {parity.note}"
    if parity.disagreeing > limit.fraction * parity.samples:
        share = Percent.of(parity.disagreeing / parity.samples)
        return (
            f"{parity.disagreeing} of {parity.samples} answers ({share}) differ from the live revision's, "
            f"allowed is {limit}{first}"
        )
    return None


def told(report: SmokeReport) -> str:
    """The report as a sentence."""
    parts = [f"{report.requests} requests ({report.source}), {report.errors} failed"]
    if report.p50 is not None and report.p95 is not None:
        parts.append(f"p50 {Duration.of(report.p50)}, p95 {Duration.of(report.p95)}")
    for what, compared in (("as expected", report.expected), ("as the live revision's", report.parity)):
        if compared is not None and compared.samples:
            parts.append(f"{compared.samples - compared.disagreeing} of {compared.samples} answers {what}")
    return ", ".join(parts)
