"""`smokeTest`: what a candidate must answer before any user reaches it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.texts import DnsName, SecretKey
from serinus.api.units import Duration, Limits, Percent

_LATENCY = (
    Limits(Duration, ">", "0", "write a time above 0, for example 50ms"),
    Limits(Duration, "<=", "1h", "write 1h or less"),
)


class ConfigMapKey(ApiModel):
    """A text in a ConfigMap of the same namespace."""

    name: DnsName
    """Name of the ConfigMap."""
    key: SecretKey = "samples"
    """Key in its data."""


class Tolerance(ApiModel):
    """How far two numbers may be apart and still be the same: absolute + relative * the other number."""

    absolute: Annotated[float, Field(ge=0)] = 1e-5
    """In the unit of the output."""
    relative: Annotated[float, Field(ge=0, le=1)] = 1e-3
    """As a share, 0 to 1."""


class SmokeTest(ApiModel):
    """Requests to the candidate's own pods before any user reaches them."""

    requests: Annotated[int, Field(ge=1, le=1000)] = 20
    """Requests sent, one after the other. Every sample is sent at least once."""
    samples: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    """Requests as JSON, one per line or as a list (docs/gates.md). Left out: generated from the model's metadata."""
    samples_from: ConfigMapKey | None = None
    """The same from a ConfigMap, which the operator must be allowed to read (chart: rbac.readConfigMaps)."""
    max_error_rate: Annotated[
        Percent, Limits(Percent, "<=", "50%", "write 50% or less; 0% allows no failed request")
    ] = Percent("0%")
    """Largest share of requests that may fail."""
    max_p50: Annotated[Duration, *_LATENCY] | None = None
    """Largest good median latency, seen from the operator."""
    max_p95: Annotated[Duration, *_LATENCY] | None = None
    """Largest good latency of 95 % of the requests, seen from the operator."""
    tolerance: Tolerance = Tolerance()
    """How far numbers may be from expected ones, and from the live revision's."""
    max_disagreement: Percent | None = None
    """Largest share of samples that the live revision may answer differently; needs 20 samples or more.
    Left out: compared and reported only."""
    timeout: Annotated[
        Duration,
        Limits(Duration, ">=", "5s", "write 5s or more, for example 5m"),
        Limits(Duration, "<=", "1h", "write 1h or less"),
    ] = Duration("5m")
    """Longest time for the whole test, all attempts to reach the pods included."""
    rules = (
        Cel(
            "!has(self.samples) || !has(self.samplesFrom)",
            "write samples or samplesFrom, not both",
            field_path=".samplesFrom",
        ),
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.samples is not None and self.samples_from is not None:
            raise PydanticCustomError("samples", "write samples or samplesFrom, not both")
        return self


class SmokeState(StrEnum):
    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"


class Compared(ApiModel):
    """Answers that were compared with others."""

    samples: int = 0
    disagreeing: int = 0
    largest_difference: float | None = None
    """Of numbers; left out where no number was compared."""
    note: str | None = None
    """Why nothing, or not everything, was compared."""


class SmokeTestStatus(ApiModel):
    """What the smoke test of the candidate found."""

    state: SmokeState = SmokeState.RUNNING
    attempt: int = 1
    """Tries to reach the pods; only the last one counts."""
    started_at: datetime
    retry_at: datetime | None = None
    """When the pods are tried again."""
    finished_at: datetime | None = None
    source: str | None = None
    """Where the requests come from."""
    requests: int = 0
    errors: int = 0
    p50: str | None = None
    p95: str | None = None
    error: str | None = None
    """The first error."""
    expected: Compared | None = None
    """Answers beside the samples' expected ones."""
    parity: Compared | None = None
    """Answers beside those of the live revision to the same requests."""
    differences: Annotated[list[str], Field(max_length=10)] = []
    """The first differences."""
    message: str | None = None
    counted: int = 0
    """Requests of the test that Prometheus has counted: they must not be taken for users' later."""
