"""What a user declares: `ModelDeployment.spec`. The CRD is generated from these models."""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from serinus.api.cel import Cel, quote, with_rules
from serinus.api.texts import (
    LABEL_KEY,
    ColumnName,
    ContainerImage,
    Digest,
    DnsLabel,
    DnsName,
    Hostname,
    LabelKey,
    LabelValue,
    ModelUri,
    PathPrefix,
    VersionName,
)
from serinus.api.units import Duration, Limits, Percent, Quantity


class ApiModel(BaseModel):
    """Base of everything in the resource: camelCase on the wire, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )
    rules: ClassVar[tuple[Cel, ...]] = ()
    """Rules over several fields, for the API server."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler.resolve_ref_schema(handler(schema)), *cls.rules)


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


class Batching(ApiModel):
    """Dynamic batching in the runtime."""

    max_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Most rows in one call of the model."""
    max_delay: Annotated[Duration, Limits(Duration, "<=", "10s", "write 10s or less; a few milliseconds are usual")] = (
        Duration("0")
    )
    """Longest time the oldest request may wait for company. An idle model never waits."""


class Queue(ApiModel):
    """The bounded queue in front of the model."""

    max_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Rows that may wait; more are answered 429 with Retry-After."""
    timeout: Annotated[
        Duration,
        Limits(Duration, ">", "0", "write a time above 0, for example 200ms"),
        Limits(Duration, "<=", "10m", "write 10m or less"),
    ] = Duration("1s")
    """Longest a request may wait in the queue; then it is answered 504."""


class LogTarget(StrEnum):
    OFF = "Off"
    STDOUT = "Stdout"


class PredictionLog(ApiModel):
    """One JSON line per prediction: version, digest, input hash, scores, latency, request id."""

    target: LogTarget = LogTarget.OFF
    """Where lines go: Off, or Stdout of the model's container."""
    payloads: Percent = Percent("0%")
    """Share of the predictions whose inputs are written, too."""
    redact: Annotated[list[ColumnName], Field(max_length=64)] = []
    """Inputs, outputs and columns whose values are never written."""


def _valid(value: str) -> str:
    return f"{value}.matches({quote(Quantity.pattern)})"


_RESOURCE_NAMES = (
    Cel(
        r"self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.contains('/') || k.startsWith('hugepages-'))",
        "resources are cpu, memory, ephemeral-storage, or a device with its domain such as nvidia.com/gpu",
    ),
    Cel(
        "self.all(k, !k.contains('/') || self[k].matches('^[0-9]+$'))",
        'devices are whole: write a number such as "1", in quotes',
    ),
)


class Resources(ApiModel):
    """Compute resources of each model pod. GPUs and other accelerators go under `limits`."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16), *_RESOURCE_NAMES] = {}
    """What the scheduler reserves."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16), *_RESOURCE_NAMES] = {}
    """What a pod may not exceed, and its devices, for example `nvidia.com/gpu: 1`."""
    rules = (
        Cel(
            "!has(self.requests) || self.requests.all(k, !k.contains('/') || (has(self.limits) && k in self.limits))",
            "devices such as nvidia.com/gpu belong in limits; requests may repeat them",
            field_path=".requests",
        ),
        Cel(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits)"
            f" || !{_valid('self.requests[k]')} || !{_valid('self.limits[k]')}"
            " || quantity(self.requests[k]).compareTo(quantity(self.limits[k])) <= 0)",
            "a request may not be above the limit of the same resource: lower the request or raise the limit",
            field_path=".requests",
        ),
    )


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """Lets model pods run on nodes with a matching taint."""

    key: LabelKey | None = None
    """Key of the taint. Only `operator: Exists` may leave it out; then every taint is tolerated."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Whether the taint's value must be equal, or need only exist."""
    value: LabelValue | None = None
    """Value of the taint, for `Equal`."""
    effect: TaintEffect | None = None
    """Effect of the taint. Left out: every effect."""
    rules = (
        Cel(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
            "operator Exists takes no value: remove the value or use operator Equal",
            field_path=".value",
        ),
        Cel(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "write the taint's key, or operator: Exists to tolerate every taint",
        ),
    )


class Engine(StrEnum):
    ONNX = "onnx"


class PullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


def _default(model: type[ApiModel], name: str) -> str:
    return str(model.model_fields[name].default)


def _shorter_delay() -> str:
    delay, timeout, form = "self.batching.maxDelay", "self.queue.timeout", quote(Duration.pattern)
    return (
        f"!has(self.batching) || !has({delay}) || !{delay}.matches({form}) || (has(self.queue) && has({timeout})"
        f" ? !{timeout}.matches({form}) || {Duration.cel_seconds(delay)} < {Duration.cel_seconds(timeout)}"
        f" : {Duration.cel(delay, '<', _default(Queue, 'timeout'))})"
    )


class Runtime(ApiModel):
    """How the model is served. Changing anything here makes a new revision."""

    name: Engine = Engine.ONNX
    """Engine: a file in `serinus/runtimes/`."""
    image: ContainerImage | None = None
    """Container image. Defaults to the runtime image that the operator was installed with."""
    image_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When nodes pull the image."""
    batching: Batching = Batching()
    """Dynamic batching: requests that wait together run together."""
    queue: Queue = Queue()
    """Requests that may wait, and how long."""
    prediction_log: PredictionLog = PredictionLog()
    """A record of each prediction, for audits, drift and replay."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of one inference call (ONNX Runtime intra-op)."""
    max_request_size: Annotated[
        Quantity,
        Limits(Quantity, ">=", "1Ki", "write bytes, at least 1Ki, for example 4Mi"),
        Limits(Quantity, "<=", "1Gi", "write 1Gi or less; larger inputs belong in a store, with a URI in the request"),
    ] = Quantity("4Mi")
    """Largest request body; larger ones are answered 413."""
    drain_delay: Annotated[Duration, Limits(Duration, "<=", "10m", "write 10m or less")] = Duration("5s")
    """How long a terminating pod still accepts requests while gateways learn that it is leaving."""
    resources: Resources = Resources()
    """CPU, memory and devices of each model pod."""
    node_selector: Annotated[
        dict[str, LabelValue],
        Field(max_length=16),
        Cel(
            f"self.all(k, k.matches({quote(LABEL_KEY)}))",
            "write keys as labels have them, for example nvidia.com/gpu.product or disktype",
        ),
    ] = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that model pods put up with."""
    service_account_name: DnsName | None = None
    """ServiceAccount of the model pods. Defaults to the namespace's default one; no token is mounted."""
    rules = (
        Cel(
            f"self.?queue.?maxLength.orValue({_default(Queue, 'max_length')}) >= "
            f"self.?batching.?maxSize.orValue({_default(Batching, 'max_size')})",
            "queue.maxLength must be at least batching.maxSize, or no batch can ever be full: "
            "raise queue.maxLength or lower batching.maxSize",
            field_path=".queue",
        ),
        Cel(
            _shorter_delay(),
            "batching.maxDelay must be below queue.timeout, or requests expire while they wait for company: "
            "lower maxDelay or raise timeout",
            field_path=".batching",
        ),
    )


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


class Strategy(StrEnum):
    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"


class Step(ApiModel):
    """One weight of a canary release."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Percent of the users' requests that the candidate serves, 1 to 100, without a percent sign."""
    hold: Annotated[Duration, Limits(Duration, "<=", "52w", "write 52w or less")] = Duration("10m")
    """Shortest time at this weight."""
    min_requests: Annotated[int, Field(ge=1, le=100_000_000)] = 100
    """Requests the candidate must have answered at this step before it may pass."""


_BETWEEN_1S_AND_1W = (
    Limits(Duration, ">=", "1s", "write 1s or more, for example 10m"),
    Limits(Duration, "<=", "1w", "write 1w or less"),
)


class Release(ApiModel):
    """How a new revision replaces the live one."""

    strategy: Strategy = Strategy.CANARY
    """Canary: in steps of weight. BlueGreen: all users at once when the new revision is ready."""
    steps: Annotated[list[Step], Field(max_length=20)] | None = None
    """Canary weights in ascending order. Default: 5, 25, 50 percent, ten minutes each."""
    alpha: Annotated[
        Percent,
        Limits(Percent, ">=", "0.0001%", "write a chance above 0, for example 1%; 0 would never roll back"),
        Limits(Percent, "<=", "50%", "write 50% or less, for example 1%"),
    ] = Percent("1%")
    """Accepted chance that a release of a good model is rolled back by mistake."""
    progress_deadline: Annotated[Duration, *_BETWEEN_1S_AND_1W] = Duration("10m")
    """Longest time until the candidate's pods are ready."""
    unschedulable_timeout: Annotated[Duration, *_BETWEEN_1S_AND_1W] = Duration("1m")
    """Longest time a candidate's pod may find no node (a GPU, say) before the release fails."""
    rollback_window: Annotated[Duration, Limits(Duration, "<=", "52w", "write 52w or less")] = Duration("1h")
    """How long the previous revision stays warm after a promotion."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """Old revisions kept as ControllerRevisions."""
    rules = (
        Cel(
            "!has(self.steps) || self.?strategy.orValue('Canary') != 'BlueGreen'",
            "BlueGreen has no steps: remove steps, or write strategy: Canary",
            field_path=".steps",
        ),
        Cel(
            "!has(self.steps) || size(self.steps) > 0",
            "write at least one step, remove steps for the default ones, or write strategy: BlueGreen for none",
            field_path=".steps",
        ),
        Cel(
            "!has(self.steps) || (self.steps.map(s, s.weight).isSorted()"
            " && self.steps.all(a, self.steps.exists_one(b, a.weight == b.weight)))",
            "weights must rise from step to step, for example 5, 25, 50",
            field_path=".steps",
        ),
    )

    @model_validator(mode="after")
    def _weights_rise(self) -> Self:
        weights = [step.weight for step in self.steps or ()]
        if any(earlier >= later for earlier, later in itertools.pairwise(weights)):
            raise PydanticCustomError("steps", "weights must rise from step to step, for example 5, 25, 50")
        return self

    def canary_steps(self) -> tuple[Step, ...]:
        """The steps in force: none for BlueGreen, the default ones where none are given."""
        if self.strategy is Strategy.BLUE_GREEN:
            return ()
        return tuple(self.steps) if self.steps is not None else DEFAULT_STEPS


DEFAULT_STEPS = (Step(weight=5), Step(weight=25), Step(weight=50))


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
            "!has(self.release) || !has(self.release.steps) || has(self.route)",
            "weights are served by a Gateway route: add route.parentRefs, or remove release.steps",
            field_path=".release.steps",
        ),
    )
