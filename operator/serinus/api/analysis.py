"""`spec.release.analysis`: what speaks against a candidate beyond the SLO."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.texts import DnsLabel
from serinus.api.units import Duration, Limits, Percent

_MARGIN = (
    Limits(Percent, ">=", "0.0001%", "write a difference of at least 0.0001%, for example 0.5%"),
    Limits(Percent, "<=", "50%", "write 50% or less, for example 0.5%"),
)


class WorseThanLive(ApiModel):
    """How much worse than the live revision a candidate may be over the same time, in percentage points."""

    error_rate: Annotated[Percent, *_MARGIN] | None = None
    """Fails a candidate whose share of failed requests is larger than the live revision's by more than this."""
    slow_requests: Annotated[Percent, *_MARGIN] | None = None
    """Fails a candidate whose share of requests slower than slo.p99 is larger than the live one's by more than this."""


class Then(StrEnum):
    HOLD = "Hold"
    ROLL_BACK = "RollBack"


class Inconclusive(ApiModel):
    """What to do when no verdict comes: Prometheus away, no number, too few requests."""

    after: Annotated[
        Duration,
        Limits(Duration, ">=", "10s", "write 10s or more, for example 30m"),
        Limits(Duration, "<=", "52w", "write 52w or less"),
    ] = Duration("30m")
    """How long a step may hold for want of evidence before `then` is done."""
    then: Then = Then.HOLD
    """Hold: keep the weight and say so. RollBack: every request goes back to the live revision."""


class Figure(StrEnum):
    P50 = "P50"
    P95 = "P95"
    P99 = "P99"
    ERROR_RATE = "ErrorRate"
    REQUESTS_PER_SECOND = "RequestsPerSecond"


class Metric(ApiModel):
    """A figure of the candidate with limits. A plain threshold: noisy where requests are few; prefer the SLO."""

    name: DnsLabel
    """Name of the metric in status, events and messages."""
    figure: Figure | None = None
    """A figure of the last minute: P50, P95, P99 in seconds, ErrorRate from 0 to 1, or RequestsPerSecond."""
    query: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """PromQL. It must return one sample per revision, with the labels model_namespace, model_deployment and revision:
    write `sum by (model_namespace, model_deployment, revision) (...)`. Equal queries are asked once per tick for the
    whole cluster."""
    unit: Annotated[str, Field(max_length=16)] = ""
    """Unit of the value, shown to people."""
    max: float | None = None
    """Largest value that is good."""
    min: float | None = None
    """Smallest value that is good."""
    interval: Annotated[
        Duration,
        Limits(Duration, ">=", "2s", "write 2s or more, for example 30s"),
        Limits(Duration, "<=", "1d", "write 1d or less"),
    ] = Duration("30s")
    """Time between two measurements."""
    failure_limit: Annotated[int, Field(ge=1, le=100)] = 3
    """Bad measurements in a row that fail the candidate. A good one starts the count anew; none is neither."""
    dry_run: bool = False
    """Measure and show, but let it decide nothing."""
    rules = (
        Cel(
            "has(self.figure) != has(self.query)",
            "write either figure (P50, P95, P99, ErrorRate, RequestsPerSecond) or query (PromQL)",
            field_path=".query",
        ),
        Cel(
            "has(self.max) || has(self.min)",
            "write the largest or the smallest good value: max, min or both",
            field_path=".max",
        ),
        Cel(
            "!has(self.max) || !has(self.min) || self.min <= self.max",
            "min must be at most max",
            field_path=".min",
        ),
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.figure is None) == (self.query is None):
            raise PydanticCustomError("metric", "write either figure or query")
        if self.max is None and self.min is None:
            raise PydanticCustomError("metric", "write the largest or the smallest good value: max, min or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise PydanticCustomError("metric", "min must be at most max")
        return self


class Analysis(ApiModel):
    """What speaks against a candidate beyond the SLO, and what to do when nothing speaks at all."""

    worse_than_live: WorseThanLive | None = None
    """Fails a candidate that is worse than the live revision over the same time, even inside the SLO."""
    metrics: Annotated[list[Metric], Field(max_length=10)] = []
    """Thresholds and own PromQL."""
    inconclusive: Inconclusive = Inconclusive()
    """What to do when no verdict comes."""
    rules = (
        Cel(
            "!has(self.metrics) || self.metrics.all(m, self.metrics.exists_one(n, n.name == m.name))",
            "each metric needs a name of its own",
            field_path=".metrics",
        ),
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({metric.name for metric in self.metrics}) < len(self.metrics):
            raise PydanticCustomError("metrics", "each metric needs a name of its own")
        return self
