"""How a model is served: `ModelDeployment.spec.runtime`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.cel import Cel, quote
from serinus.api.podspec import PullPolicy, Resources, Toleration
from serinus.api.texts import LABEL_KEY, ColumnName, ContainerImage, DnsName, LabelValue
from serinus.api.units import Duration, Limits, Percent, Quantity


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


class Engine(StrEnum):
    ONNX = "onnx"


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
