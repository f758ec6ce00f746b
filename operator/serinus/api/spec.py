"""What a user declares: `ModelDeployment.spec`. The CRD is generated from these models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.matching import MAX_FLAGS, Flag
from serinus.api.release import Release
from serinus.api.runtime import Runtime
from serinus.api.texts import (
    Digest,
    DnsLabel,
    DnsName,
    Hostname,
    ModelUri,
    PathPrefix,
    VersionName,
)
from serinus.api.units import Duration, Limits, Percent


class Model(ApiModel):
    """What is served. Changing anything here makes a new revision."""

    name: DnsLabel | None = None
    """Name in `/v2/models/NAME`. Defaults to the ModelDeployment's name; immutable."""
    version: VersionName | None = None
    """Version shown to people and sent to clients as X-Model-Version. Defaults to the first 12 digits of the digest."""
    uri: ModelUri
    """Where the model directory or archive lies: http://, https://, pvc://CLAIM/PATH or file:///PATH."""
    digest: Digest
    """sha256: and 64 hex digits over the model directory (`serinus-runtime digest DIR`). Other bytes are refused."""


class MetricType(StrEnum):
    CPU = "CPU"
    MEMORY = "Memory"
    QUEUE_DEPTH = "QueueDepth"
    REQUESTS_PER_SECOND = "RequestsPerSecond"


class ScalingMetric(ApiModel):
    """One signal of the autoscaler."""

    type: MetricType
    """What is measured."""
    target: Annotated[int, Field(ge=1, le=1_000_000)]
    """CPU, Memory: percent of the request. QueueDepth, RequestsPerSecond: average per pod."""
    rules = (
        Cel(
            "!(self.type in ['CPU', 'Memory']) || self.target <= 1000",
            "CPU and Memory targets are percent of the request: write 70 for 70 %, at most 1000",
            field_path=".target",
        ),
    )


class Scaling(ApiModel):
    """Replicas of each revision. A HorizontalPodAutoscaler is made when `max` is above `min`."""

    min: Annotated[int, Field(ge=1, le=1000)] = 2
    """Fewest replicas; `kubectl scale` sets this. Never point an autoscaler at a ModelDeployment: it brings its own."""
    max: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Defaults to `min`: no autoscaling."""
    metrics: Annotated[list[ScalingMetric], Field(max_length=8)] = []
    """Defaults to CPU at 70 %."""
    scale_down_delay: Annotated[
        Duration, Limits(Duration, "<=", "1h", "write 1h or less: a HorizontalPodAutoscaler allows no more")
    ] = Duration("5m")
    """How long load must be low before a pod is removed. Scaling up never waits."""
    rules = (
        Cel(
            "!has(self.max) || self.min <= self.max",
            "max must be at least min: raise max, lower min, or remove max for a fixed number of replicas",
            field_path=".max",
        ),
        Cel(
            "!has(self.metrics) || size(self.metrics) == 0 || (has(self.max) && self.max > self.min)"
            " || (has(self.max) && self.max < self.min)",
            "metrics need room to scale: set max above min, or remove metrics",
            field_path=".metrics",
        ),
        Cel(
            "!has(self.metrics) || self.metrics.all(m, self.metrics.exists_one(n, n.type == m.type))",
            "only one metric of each type: remove the others",
            field_path=".metrics",
        ),
    )

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise PydanticCustomError("scaling", "max must be at least min")
        return self


class ParentRef(ApiModel):
    """A Gateway (gateway.networking.k8s.io/v1) that serves the model."""

    name: DnsName
    """Name of the Gateway."""
    namespace: DnsLabel | None = None
    """Defaults to the ModelDeployment's namespace."""
    section_name: DnsName | None = None
    """Listener of the Gateway. Defaults to all that accept the route."""


class Route(ApiModel):
    """How users reach the model. Weights are served by this route, so a gradual release needs one."""

    parent_refs: Annotated[list[ParentRef], Field(min_length=1, max_length=8)]
    """The Gateways that serve the model."""
    hostnames: Annotated[list[Hostname], Field(max_length=16)] = []
    """Host names the route answers to. Default: every one of the listener's."""
    path: PathPrefix = "/"
    """Path prefix."""
    timeout: Annotated[Duration, Limits(Duration, "<=", "1w", "write 1w or less, or 0 for no limit")] | None = None
    """Longest time for a whole request, streamed answers included; 0 is no limit. Defaults to the gateway's own."""
    flags: Annotated[list[Flag], Field(max_length=MAX_FLAGS)] = []
    """Users who are pinned to a version by a header or cookie, in a release and outside of one. The first match wins,
    unless a later flag's match names more headers."""
    rules = (
        Cel(
            "self.parentRefs.all(a, self.parentRefs.exists_one(b, a.name == b.name"
            " && has(a.__namespace__) == has(b.__namespace__)"
            " && (!has(a.__namespace__) || a.__namespace__ == b.__namespace__)"
            " && has(a.sectionName) == has(b.sectionName)"
            " && (!has(a.sectionName) || a.sectionName == b.sectionName)))",
            "each Gateway listener only once: remove the repeated entry or name another sectionName",
            field_path=".parentRefs",
        ),
        Cel(
            "!has(self.hostnames) || self.hostnames.all(a, self.hostnames.exists_one(b, a == b))",
            "each host name only once: remove the repeated entry",
            field_path=".hostnames",
        ),
        Cel(
            "!has(self.flags) || self.flags.all(a, self.flags.exists_one(b, a.name == b.name))",
            "each flag needs a name of its own",
            field_path=".flags",
        ),
    )


class Slo(ApiModel):
    """What users were promised; releases are judged by it."""

    p99: Annotated[
        Duration,
        Limits(Duration, ">", "0", "write the time that 99 % of requests must keep, above 0, for example 50ms"),
        Limits(Duration, "<=", "1h", "write 1h or less"),
    ] = Duration("1s")
    """At most 1 % of requests may take longer."""
    error_rate: Annotated[
        Percent,
        Limits(Percent, ">=", "0.0001%", "write the share that may fail, at least 0.0001%: no service never fails"),
        Limits(Percent, "<=", "50%", "write 50% or less, for example 0.1%"),
    ] = Percent("1%")
    """Largest share of requests that may fail (HTTP 5xx and 429)."""
    availability: Annotated[
        Percent,
        Limits(Percent, ">=", "50%", "write at least 50%, for example 99.9%"),
        Limits(Percent, "<", "100%", "100% leaves no error budget: write for example 99.9%"),
    ] = Percent("99.9%")
    """Shown on dashboards and used by alerts."""


class ModelDeploymentSpec(ApiModel):
    """A model, how to run it, and how its next version reaches users."""

    model: Model
    """What is served."""
    runtime: Runtime = Runtime()
    """How it is served."""
    scaling: Scaling = Scaling()
    """How many pods serve it."""
    route: Route | None = None
    """How users reach it. Left out: only the Service in the cluster, and releases in one step."""
    slo: Slo = Slo()
    """What users were promised."""
    release: Release = Release()
    """How its next version reaches users."""
    rules = (
        Cel(
            "!has(self.release) || !has(self.release.steps) || has(self.route)"
            " || self.release.steps.all(s, !has(s.weight) && !has(s.experiment))",
            "weights are served by a Gateway route: add route.parentRefs, or remove release.steps",
            field_path=".release.steps",
        ),
        Cel(
            "!has(self.release) || !has(self.release.shadow) || has(self.route)",
            "requests are mirrored by a Gateway route: add route.parentRefs, or remove release.shadow",
            field_path=".release.shadow",
        ),
        Cel(
            "!has(self.release) || !has(self.release.steps) || self.release.steps.all(s, !has(s.preview)"
            " || !has(s.preview.hostnames) || (has(self.route) && (!has(self.route.hostnames)"
            " || s.preview.hostnames.all(h, !(h in self.route.hostnames)))))",
            "a preview's host names need a route of which they are no part: add route.parentRefs, or choose others",
            field_path=".release.steps",
        ),
        Cel(
            "!has(self.release) || !has(self.release.sticky) || has(self.route)",
            "users are told apart by a Gateway route: add route.parentRefs, or remove release.sticky",
            field_path=".release.sticky",
        ),
    )
