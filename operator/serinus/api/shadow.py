"""A shadow: the candidate answers copies of users' requests, and nobody sees what it says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.texts import ColumnName
from serinus.api.units import Duration, Limits, Percent


class Samples(ApiModel):
    """Requests that are kept while the step lasts, raw and as preprocessing made them, for the joiner's report."""

    keep: Annotated[int, Field(ge=0, le=100)] = 0
    """How many."""
    redact: Annotated[list[ColumnName], Field(max_length=64)] = []
    """Inputs, outputs and columns whose values never leave the pods, neither for samples nor for distributions."""


class Shadow(ApiModel):
    """Mirrors users' requests to the candidate and compares both answers. No user sees the candidate's."""

    percent: Annotated[int, Field(ge=1, le=100)] = 10
    """Percent of the users' requests that are mirrored, 1 to 100, without a percent sign."""
    duration: Annotated[
        Duration,
        Limits(Duration, ">=", "1s", "write 1s or more, for example 24h"),
        Limits(Duration, "<=", "52w", "write 52w or less"),
    ] = Duration("24h")
    """Shortest time of the shadow."""
    min_pairs: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    """Requests that both versions must have answered before the step may pass."""
    max_disagreement: Annotated[
        Percent, Limits(Percent, ">=", "0.0001%", "write a share above 0, for example 1%; 100% never fails")
    ] = Percent("1%")
    """Largest share of pairs whose labels, decisions or numbers differ; 100% lets every share pass."""
    tolerance: Annotated[float, Field(ge=0, le=1e12)] | None = None
    """Largest difference of two numbers that agree. Default: labels and decisions decide; 0.01 where there are none."""
    max_error_ratio: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """How many times as often as the live version the candidate may fail; slo.errorRate is allowed in any case."""
    max_psi: Annotated[float, Field(ge=0.0001, le=100)] = 0.25
    """Largest population stability index of the scores, candidate against live. Write 100 for any."""
    max_ks: Annotated[float, Field(ge=0.0001, le=1)] | None = None
    """Largest Kolmogorov-Smirnov distance of the scores, 0 to 1. Default: any."""
    max_input_psi: Annotated[float, Field(ge=0.0001, le=100)] = 0.25
    """The same index of each column as both versions read it from the same requests: finds swapped columns."""
    max_input_ks: Annotated[float, Field(ge=0.0001, le=1)] | None = None
    """The distance of each column, likewise. Default: any."""
    max_latency_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None
    """Candidate's 95th percentile of the time in the server by the live version's. Default: any."""
    samples: Samples = Samples()
    """Requests to keep for people."""
