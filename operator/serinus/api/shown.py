"""What evidence has shown so far, as status keeps it so that the next operator can go on with it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.base import ATOMIC, ApiModel


class Counts(ApiModel):
    """Requests of one revision since the step began."""

    requests: int = 0
    errors: int = 0
    slow: int = 0


class Capital(ApiModel):
    """A sequential test under way: what it needs to go on after a restart."""

    invested: Annotated[list[float], Field(max_length=16)] = []
    """Natural logarithm of the capital, by alternative rate."""
    held_back: float = 1.0
    """Share of the capital that is not yet invested."""


class Recent(ApiModel):
    """The live revision over about the last half minute; what is older fades."""

    requests: float = 0.0
    errors: float = 0.0
    slow: float = 0.0


class Measurement(ApiModel):
    """One look at a threshold metric."""

    at: datetime
    value: float | None = None
    good: bool | None = None
    """Left out where there is no value: that is neither."""
    problem: str | None = None
    """Why there is no value."""


class MetricStatus(ApiModel):
    """The last measurements of one of spec.release.analysis.metrics."""

    name: str
    measurements: Annotated[list[Measurement], Field(max_length=10)] = []
    bad_in_a_row: int = 0
    dry_run: bool = False


class Unpaired(ApiModel):
    """Predictions without a partner, by reason."""

    not_mirrored: int = 0
    """Only the live version told of them: they were not mirrored, or the copy was lost."""
    candidate_only: int = 0
    duplicate: int = 0
    """The gateway tried again."""
    evicted: int = 0
    """Too many waited for their partners."""
    lost: int = 0
    """A pod's ring was overrun before it was read."""


class ShadowStatus(ApiModel):
    """What a shadow step has found: both versions' answers to the same requests."""

    step: int = 0
    """Index of the step."""
    since: datetime | None = None
    """When the gateway confirmed the mirror: the duration starts here."""
    refused_since: datetime | None = None
    """Since when a gateway refuses the route with the mirror."""
    pairs: int = 0
    """Requests that both answered, however."""
    compared: int = 0
    """Pairs whose answers could be compared."""
    disagreements: int = 0
    disagreement: str | None = None
    """Share of the pairs that could be compared."""
    candidate_errors: int = 0
    """Pairs in which the candidate failed."""
    live_errors: int = 0
    incomparable: int = 0
    """Pairs whose answers have nothing in common that could be compared."""
    unpaired: Unpaired = Unpaired()
    psi: float | None = None
    """Population stability index of the scores, candidate against live."""
    ks: float | None = None
    input_psi: float | None = None
    """Of the column that is farthest apart."""
    input_ks: float | None = None
    latency_ratio: float | None = None
    paired_at: datetime | None = None
    """When the number of pairs last grew."""
    tests: Annotated[dict[str, Capital], Field(max_length=4, json_schema_extra=ATOMIC)] = {}
    """Sequential tests, by name."""
    above: Annotated[dict[str, int], Field(max_length=8, json_schema_extra=ATOMIC)] = {}
    """By figure, looks in a row at which it was above its limit."""
    joiner: str | None = None
    """Service whose port 8082 answers /report with everything, while the step lasts."""
    message: str | None = None
    """All of it as a sentence."""


class Recommendation(StrEnum):
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"
    KEEP_LIVE = "KeepLive"


class SampleSize(ApiModel):
    """Trials that an experiment is planned for."""

    live: int
    candidate: int


class Arm(ApiModel):
    """One side of an experiment."""

    trials: int = 0
    successes: int = 0
    seen_trials: int = 0
    """Where the counter stood at the last look."""
    seen_successes: int = 0


class ExperimentStatus(ApiModel):
    """The A/B test of the present step, or the last one of the release."""

    step: int
    since: datetime | None = None
    """When counting began; left out while it waits for its metric, its pods or the gateway."""
    looked_at: datetime | None = None
    sample_size: SampleSize
    """Computed before it began from baseline, minimumEffect, alpha and power."""
    live: Arm = Arm()
    candidate: Arm = Arm()
    better: Annotated[list[float], Field(max_length=8)] = []
    """Evidence that the candidate is better: natural logarithms of the capital of its bets."""
    worse: Annotated[list[float], Field(max_length=8)] = []
    recommendation: Recommendation | None = None
    """Promote, RollBack, or KeepLive where no difference was found in time."""
    summary: Annotated[str, Field(max_length=1024)] | None = None
