"""A step that compares a business metric of both versions: `spec.release.steps[].experiment`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.segments import Audience
from serinus.api.units import Duration, Limits, Percent

Query = Annotated[str, Field(min_length=1, max_length=4096)]


class BusinessMetric(ApiModel):
    """Successes among trials, from counters that carry the revision."""

    successes: Query
    """PromQL of a counter that only grows: orders, accepted offers. One sample per revision, as of `analysis.metrics`:
    `sum by (model_namespace, model_deployment, revision) (shop_orders_total)`."""
    trials: Query
    """PromQL of a counter of what could have been a success, likewise: visitors, offers shown."""
    higher_is_better: bool = True
    """False where a success is unwelcome: complaints, refunds."""
    interval: Annotated[
        Duration,
        Limits(Duration, ">=", "2s", "write 2s or more, for example 30s"),
        Limits(Duration, "<=", "1d", "write 1d or less"),
    ] = Duration("30s")
    """Time between two looks. Looking often costs nothing in certainty."""


class OnSuccess(StrEnum):
    RECOMMEND = "Recommend"
    PROMOTE = "Promote"


_SHARE = (
    Limits(Percent, ">", "0%", "write a share above 0%, for example 4%"),
    Limits(Percent, "<", "100%", "write a share below 100%, for example 4%"),
)
_BASELINE = "double(self.baseline.find('^[0-9.]+'))"
_EFFECT = "double(self.minimumEffect.find('^[0-9.]+'))"
_ROOM = (
    "minimumEffect is a difference in percentage points, and no share leaves 0% to 100%: with baseline 4% it may be "
    "0.5%, and at most 4% where lower is better"
)


class Experiment(ApiModel):
    """An A/B test: some users are served by the candidate until the business metric tells which version is better."""

    share: Annotated[int, Field(ge=1, le=99)] = 50
    """Percent of the users who take part that the candidate serves."""
    users: Audience | None = None
    """Who takes part; everybody else gets the live version. Default: all users."""
    metric: BusinessMetric
    """What is compared."""
    baseline: Annotated[Percent, *_SHARE]
    """Share of successes that the live version is known to have."""
    minimum_effect: Annotated[Percent, *_SHARE]
    """Smallest difference worth finding, in percentage points."""
    alpha: Annotated[
        Percent,
        Limits(Percent, ">=", "0.0001%", "write a chance above 0, for example 5%"),
        Limits(Percent, "<=", "50%", "write 50% or less, for example 5%"),
    ] = Percent("5%")
    """Accepted chance to call one version better where both are the same, however long it runs."""
    power: Annotated[
        Percent,
        Limits(Percent, ">=", "50%", "write 50% or more, for example 80%"),
        Limits(Percent, "<=", "99.9%", "write 99.9% or less, for example 80%"),
    ] = Percent("80%")
    """Chance to find a difference of minimumEffect, for the sample size."""
    design_effect: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Trials that come together and tell as much as one: those of one user, at most. 1: each trial is independent."""
    max_duration: Annotated[
        Duration,
        Limits(Duration, ">=", "10s", "write 10s or more, for example 2w"),
        Limits(Duration, "<=", "52w", "write 52w or less"),
    ] = Duration("2w")
    """When it ends without an answer."""
    on_success: OnSuccess = OnSuccess.RECOMMEND
    """Recommend: say so and wait for `approve` or `abort`. Promote: go on with the next step."""
    rules = (
        Cel(
            f"!has(self.baseline) || !has(self.minimumEffect) || ((has(self.metric) && has(self.metric.higherIsBetter)"
            f" && !self.metric.higherIsBetter) ? {_BASELINE} > {_EFFECT} : {_BASELINE} + {_EFFECT} < 100.0)",
            _ROOM,
            field_path=".minimumEffect",
        ),
        Cel(
            "!has(self.metric) || self.metric.successes != self.metric.trials",
            "successes and trials are the same query: the share would be 100 % for both",
            field_path=".metric",
        ),
    )

    @property
    def effect(self) -> float:
        """The smallest improvement worth finding, as a signed difference of shares."""
        size = self.minimum_effect.fraction
        return size if self.metric.higher_is_better else -size

    @model_validator(mode="after")
    def _room(self) -> Self:
        if not 0 < self.baseline.fraction + self.effect < 1:
            raise PydanticCustomError("experiment", _ROOM)
        if self.metric.successes == self.metric.trials:
            raise PydanticCustomError("experiment", "successes and trials are the same query")
        return self
