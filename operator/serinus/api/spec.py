"""What a user declares: `ModelDeployment.spec`. The CRD is generated from these models."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from serinus.api.units import Duration, Percent, Quantity

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
VersionName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
Label = Annotated[str, Field(max_length=63)]


class ApiModel(BaseModel):
    """Base of everything in the resource: camelCase on the wire, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class Model(ApiModel):
    """What is served. Changing anything here makes a new revision."""

    name: Name | None = None
    """Name in `/v2/models/NAME`. Defaults to the ModelDeployment's name; immutable."""
    version: VersionName | None = None
    """Version shown to people and sent to clients as X-Model-Version. Defaults to the first 12 digits of the digest."""
    uri: Annotated[str, Field(min_length=8, max_length=1024)]
    """Where the model directory or archive lies: http://, https://, pvc://CLAIM/PATH or file:///PATH."""
    digest: Annotated[str, Field(min_length=71, max_length=71)]
    """sha256: and 64 hex digits over the model directory (`serinus-runtime digest DIR`). Other bytes are refused."""


class Batching(ApiModel):
    """Dynamic batching in the runtime."""

    max_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Most rows in one call of the model."""
    max_delay: Duration = Duration("0")
    """Longest time the oldest request may wait for company. An idle model never waits."""


class Queue(ApiModel):
    """The bounded queue in front of the model."""

    max_length: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Rows that may wait; more are answered 429 with Retry-After."""
    timeout: Duration = Duration("1s")
    """Longest a request may wait in the queue; then it is answered 504."""


class Resources(ApiModel):
    """Compute resources of each model pod. GPUs and other accelerators go under `limits`."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = {}


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """Lets model pods run on nodes with a matching taint."""

    key: Annotated[str, Field(max_length=317)] | None = None
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: Label | None = None
    effect: TaintEffect | None = None


class Engine(StrEnum):
    ONNX = "onnx"


class PullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Runtime(ApiModel):
    """How the model is served. Changing anything here makes a new revision."""

    name: Engine = Engine.ONNX
    """Engine: a file in `serinus/runtimes/`."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image. Defaults to the runtime image that the operator was installed with."""
    image_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    batching: Batching = Batching()
    queue: Queue = Queue()
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of one inference call (ONNX Runtime intra-op)."""
    max_request_size: Quantity = Quantity("4Mi")
    """Largest request body; larger ones are answered 413."""
    drain_delay: Duration = Duration("5s")
    """How long a terminating pod still accepts requests while gateways learn that it is leaving."""
    resources: Resources = Resources()
    node_selector: Annotated[dict[str, Label], Field(max_length=16)] = {}
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    service_account_name: Annotated[str, Field(max_length=253)] | None = None


class MetricType(StrEnum):
    CPU = "CPU"
    MEMORY = "Memory"
    QUEUE_DEPTH = "QueueDepth"
    REQUESTS_PER_SECOND = "RequestsPerSecond"


class ScalingMetric(ApiModel):
    """One signal of the autoscaler."""

    type: MetricType
    target: Annotated[int, Field(ge=1, le=1_000_000)]
    """CPU, Memory: percent of the request. QueueDepth, RequestsPerSecond: average per pod."""


class Scaling(ApiModel):
    """Replicas of each revision. A HorizontalPodAutoscaler is made when `max` is above `min`."""

    min: Annotated[int, Field(ge=1, le=1000)] = 2
    max: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Defaults to `min`: no autoscaling."""
    metrics: Annotated[list[ScalingMetric], Field(max_length=8)] = []
    """Defaults to CPU at 70 %."""
    scale_down_delay: Duration = Duration("5m")
    """How long load must be low before a pod is removed. Scaling up never waits."""


class ParentRef(ApiModel):
    """A Gateway (gateway.networking.k8s.io/v1) that serves the model."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    namespace: Name | None = None
    section_name: Annotated[str, Field(max_length=253)] | None = None


class Route(ApiModel):
    """How users reach the model. Weights are served by this route, so a gradual release needs one."""

    parent_refs: Annotated[list[ParentRef], Field(min_length=1, max_length=8)]
    hostnames: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=16)] = []
    path: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^/")] = "/"
    """Path prefix."""


class Slo(ApiModel):
    """What users were promised; releases are judged by it."""

    p99: Duration = Duration("1s")
    """At most 1 % of requests may take longer."""
    error_rate: Percent = Percent("1%")
    """Largest share of requests that may fail (HTTP 5xx and 429)."""
    availability: Percent = Percent("99.9%")
    """Shown on dashboards and used by alerts."""


class Strategy(StrEnum):
    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"


class Step(ApiModel):
    """One weight of a canary release."""

    weight: Annotated[int, Field(ge=1, le=100)]
    """Percent of the users' requests that the candidate serves."""
    hold: Duration = Duration("10m")
    """Shortest time at this weight."""
    min_requests: Annotated[int, Field(ge=1, le=100_000_000)] = 100
    """Requests the candidate must have answered at this step before it may pass."""


class Release(ApiModel):
    """How a new revision replaces the live one."""

    strategy: Strategy = Strategy.CANARY
    steps: Annotated[list[Step], Field(max_length=20)] | None = None
    """Canary weights in ascending order. Default: 5, 25, 50 percent, ten minutes each."""
    alpha: Percent = Percent("1%")
    """Accepted chance that a release of a good model is rolled back by mistake."""
    progress_deadline: Duration = Duration("10m")
    """Longest time until the candidate's pods are ready."""
    unschedulable_timeout: Duration = Duration("1m")
    """Longest time a candidate's pod may find no node (a GPU, say) before the release fails."""
    rollback_window: Duration = Duration("1h")
    """How long the previous revision stays warm after a promotion."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """Old revisions kept as ControllerRevisions."""

    def canary_steps(self) -> tuple[Step, ...]:
        """The steps in force: none for BlueGreen, the default ones where none are given."""
        if self.strategy is Strategy.BLUE_GREEN:
            return ()
        return tuple(self.steps) if self.steps is not None else DEFAULT_STEPS


DEFAULT_STEPS = (Step(weight=5), Step(weight=25), Step(weight=50))


class ModelDeploymentSpec(ApiModel):
    """A model, how to run it, and how its next version reaches users."""

    model: Model
    runtime: Runtime = Runtime()
    scaling: Scaling = Scaling()
    route: Route | None = None
    slo: Slo = Slo()
    release: Release = Release()
