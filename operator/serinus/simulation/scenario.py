"""What a simulated release meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from serinus.api.analysis import Figure
from serinus.api.release import Strategy
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.steps import StepKind
from serinus.evidence.verdict import SLOW_FRACTION
from serinus.simulation.traffic import Profile, Rate, invented

_KNOWN = (Figure.ERROR_RATE, Figure.REQUESTS_PER_SECOND)
"""Figures that follow from what is simulated; latencies do not."""


class Clumps(StrEnum):
    NONE = "none"
    BATCH = "batch"
    BURST = "burst"


@dataclass(frozen=True)
class Version:
    """How one version behaves."""

    errors: float = 0.0
    """Share of its requests that fail."""
    slow: float = 0.0
    """Share of its requests that take longer than slo.p99."""


@dataclass(frozen=True)
class Scenario:
    """The world of a simulated release. Times in seconds."""

    rate: Rate = field(default_factory=lambda: invented(Profile.CONSTANT, 100.0))
    """Of all users."""
    candidate: Version = Version()
    live: Version = Version()
    bad_after: float = 0.0
    """Until then the candidate behaves as the live version does, from its first request on."""
    clumps: Clumps = Clumps.NONE
    """none: each request is bad on its own. batch: up to 32 fail together. burst: a pod is bad for a second."""
    start: float = 30.0
    """Until a pod is ready."""
    gateway: float = 1.0
    """Until the gateway serves a new weight."""
    scrape: float = 5.0
    """Between two scrapes of a pod."""
    failure: str | None = None
    """A reason with which Kubernetes shows the candidate's pods as failed, `CrashLoop` for example..."""
    failure_after: float = 0.0
    """...so long after they were asked for."""
    outages: tuple[tuple[float, float], ...] = ()
    """Times from and to which Prometheus is away."""
    limit: float = 86_400.0
    """The simulation ends after so long."""

    def breaks(self, spec: ModelDeploymentSpec) -> bool:
        """Whether the candidate is one that should be rolled back, by the SLO or compared with the live version."""
        worse = spec.release.analysis.worse_than_live
        margins = (worse.error_rate, worse.slow_requests) if worse else (None, None)
        limits = (spec.slo.error_rate.fraction, SLOW_FRACTION)
        shares = ((self.candidate.errors, self.live.errors), (self.candidate.slow, self.live.slow))
        return self.failure is not None or any(
            share > max(limit, live) or (margin is not None and share > live + margin.fraction)
            for (share, live), limit, margin in zip(shares, limits, margins, strict=True)
        )


def simulated(spec: ModelDeploymentSpec) -> tuple[ModelDeploymentSpec, Sequence[str]]:
    """What of a specification can be simulated, and what is taken for granted."""
    release, granted = spec.release, list[str]()
    planned = release.plan_steps()
    weights = [each for each in planned if each.kind is StepKind.WEIGHT]
    if others := list(dict.fromkeys(str(each.kind) for each in planned if each.kind is not StepKind.WEIGHT)):
        granted.append(f"passed: {', '.join(others)}")
    if any(each.approval for each in planned):
        granted.append("approved at once: steps that wait for somebody")
    if release.windows:
        granted.append("always open: windows")
    if release.webhooks:
        granted.append("agreed: webhooks")
    kept = [each for each in release.analysis.metrics if each.figure in _KNOWN]
    if left := [each.name for each in release.analysis.metrics if each not in kept]:
        granted.append(f"left out: metrics {', '.join(left)}, whose values are not simulated")
    analysis = release.analysis.model_copy(update={"metrics": kept})
    # Everything that needs the world outside goes; without any weight it is one switch, as in BlueGreen.
    fresh = release.model_copy(
        update={
            "strategy": Strategy.CANARY if weights else Strategy.BLUE_GREEN,
            "steps": [each.model_copy(update={"approval": False}) for each in weights] or None,
            "analysis": analysis,
            **dict.fromkeys(("smoke_test", "shadow", "sticky")),
            **{name: [] for name in ("windows", "webhooks", "notifications")},
        }
    )
    return spec.model_copy(update={"release": fresh}), granted
