"""How a model is served: `ModelDeployment.spec.runtime`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.auth import Auth
from serinus.api.base import ApiModel
from serinus.api.cel import Cel, quote
from serinus.api.podspec import EnvVar, PullPolicy, Resources, Toleration
from serinus.api.texts import (
    LABEL_KEY,
    Argument,
    ColumnName,
    ContainerImage,
    DnsName,
    LabelValue,
    LogUrl,
    PathPrefix,
    SecretKey,
)
from serinus.api.units import Duration, Limits, Percent, Quantity

RESERVED = tuple(
    f"SERINUS_{name}"
    for name in (
        "NAMESPACE", "DEPLOYMENT", "REVISION", "MODEL_NAME", "MODEL_VERSION", "MODEL_URI", "MODEL_DIGEST", "MODEL_DIR",
        "HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "BATCH_MAX_SIZE", "BATCH_MAX_DELAY", "QUEUE_MAX_LENGTH",
        "QUEUE_TIMEOUT", "SLO_LATENCY", "MAX_REQUEST_BYTES", "DRAIN_DELAY", "THREADS", "PREDICTION_LOG_PAYLOADS",
        "PREDICTION_LOG_REDACT", "RESPONSE_CACHE", "RESPONSE_CACHE_TTL", "API_KEYS_FILE", "ENGINE", "PROXY_URL",
        "PROXY_HEALTH", "PROXY_CONCURRENCY",
    )
)  # fmt: skip
"""Variables of the runtime that the operator sets itself."""


class Batching(ApiModel):
    """Dynamic batching in the runtime."""

    max_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Most rows in one call of the model. Left out: 32, up to 256 where warm-up finds rows to be much cheaper."""
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
    HTTP = "Http"
    KAFKA = "Kafka"


class LogCredentials(ApiModel):
    """What the log shows, from a Secret in the same namespace."""

    secret_name: DnsName
    """Name of the Secret."""
    key: SecretKey = "token"
    """Key in the Secret."""


class PredictionLog(ApiModel):
    """One JSON line per prediction: version, digest, input hash, scores, latency, request id."""

    target: LogTarget = LogTarget.OFF
    """Where lines go: Off, Stdout of the model's container, Http (POST in batches), or Kafka (a message per line)."""
    url: LogUrl | None = None
    """For Http and Kafka: https://HOST/PATH, or kafka://BROKER:9092/TOPIC (docs/runtime/observability.md)."""
    credentials: LogCredentials | None = None
    """For Http a bearer token; for Kafka settings of librdkafka, name=value on a line, such as sasl.password."""
    sample: Percent = Percent("100%")
    """Share of the requests that have a line, chosen by their id: every version chooses the same ones."""
    payloads: Percent = Percent("0%")
    """Share of the predictions whose inputs are written, too."""
    redact: Annotated[list[ColumnName], Field(max_length=64)] = []
    """Inputs, outputs and columns whose values are never written."""
    rules = (
        Cel(
            "(self.?target.orValue('Off') in ['Http', 'Kafka']) == has(self.url)",
            "url goes with the targets Http and Kafka: write both, or neither",
            field_path=".url",
        ),
        Cel(
            "!has(self.url) || !(self.?target.orValue('Off') in ['Http', 'Kafka'])"
            " || (self.target == 'Kafka') == self.url.startsWith('kafka://')",
            "write kafka://BROKER:9092/TOPIC with the target Kafka, and https://HOST/PATH with Http",
            field_path=".url",
        ),
        Cel(
            "!has(self.credentials) || self.?target.orValue('Off') in ['Http', 'Kafka']",
            "credentials go with the targets Http and Kafka: remove them, or write one of these",
            field_path=".credentials",
        ),
    )


class Drift(ApiModel):
    """How far inputs and scores are from the model's reference.json, as metrics."""

    enabled: bool = True
    """False: a reference is not looked at."""
    window: Annotated[
        Duration,
        Limits(Duration, ">=", "1s", "write 1s or more; an hour is usual"),
        Limits(Duration, "<=", "52w", "write 52w or less"),
    ] = Duration("1h")
    """Half-life of what was counted."""
    sample: Percent = Percent("100%")
    """Share of the batches that are looked at."""


class ResponseCache(ApiModel):
    """Answers that are remembered, by the model's digest and the exact input."""

    size: Annotated[
        Quantity,
        Limits(Quantity, ">=", "64Ki", "write bytes, at least 64Ki, for example 64Mi"),
        Limits(Quantity, "<=", "64Gi", "write 64Gi or less, and raise resources.limits.memory by as much"),
    ]
    """Most memory that answers may take in each pod."""
    ttl: Annotated[
        Duration,
        Limits(Duration, ">", "0", "write a time above 0, for example 60s"),
        Limits(Duration, "<=", "1w", "write 1w or less"),
    ] = Duration("60s")
    """How long an answer is remembered."""


class ApiKeys(ApiModel):
    """Keys that clients must show, from a Secret in the same namespace. Pods notice when it changes."""

    secret_name: DnsName
    """Name of the Secret."""
    key: SecretKey = "keys"
    """Key in the Secret: one client per line, or JSON (docs/runtime/limits.md)."""


class EngineContainer(ApiModel):
    """The container of an engine that runs beside the runtime, which stands in front of it."""

    image: ContainerImage
    """Container image of the engine."""
    image_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When nodes pull the image."""
    command: Annotated[list[Argument], Field(max_length=64)] = []
    """Entry point. Defaults to what the engine's template says, else to the image's own."""
    args: Annotated[list[Argument], Field(max_length=256)] = []
    """Arguments behind those of the engine's template."""
    env: Annotated[list[EnvVar], Field(max_length=64)] = []
    """Environment of the engine. $(SERINUS_MODEL_DIR), $(SERINUS_MODEL_NAME) and $(SERINUS_ENGINE_PORT) are known, and
    with grpcPort $(SERINUS_ENGINE_GRPC_PORT)."""
    port: Annotated[
        int,
        Field(ge=1024, le=65535),
        Cel("!(self in [8080, 8081, 8082])", "8080, 8081 and 8082 are the runtime's own ports: write another"),
    ] = 9000
    """Port of the engine on the pod's loopback address."""
    grpc_port: (
        Annotated[
            int,
            Field(ge=1024, le=65535),
            Cel("!(self in [8080, 8081, 8082])", "8080, 8081 and 8082 are the runtime's own ports: write another"),
        ]
        | None
    ) = None
    """Port of the engine's gRPC, which then stands behind the runtime's. Left out: there is none. Triton and TF Serving
    are told to open it; other engines must be by their own settings."""
    health_path: PathPrefix | None = None
    """Answers 200 when the engine is ready. Defaults to what the engine's template says."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Requests that the engine works on at once; more wait in the runtime's queue."""
    resources: Resources = Resources()
    """CPU, memory and devices of the engine's container."""
    rules = (
        Cel(
            "!has(self.grpcPort) || self.grpcPort != self.?port.orValue(9000)",
            "the engine's gRPC needs a port of its own: write another than engine.port, for example 9001",
            field_path=".grpcPort",
        ),
    )


class Engine(StrEnum):
    ONNX = "onnx"
    PROXY = "proxy"
    TRITON = "triton"
    TF_SERVING = "tfserving"
    VLLM = "vllm"
    TGI = "tgi"
    TENSORRT_LLM = "tensorrt-llm"
    BENTOML = "bentoml"
    RAY_SERVE = "rayserve"
    TORCH = "torch"
    TORCHSERVE = "torchserve"


IN_IMAGE = (Engine.ONNX, Engine.TORCH, Engine.TORCHSERVE)
"""Engines of the bundled image and its flavours."""
BESIDE = tuple(engine for engine in Engine if engine not in IN_IMAGE)
"""Engines that run in a container of their own, with the runtime in front."""
WITH_GRPC = (Engine.TRITON, Engine.TF_SERVING, Engine.RAY_SERVE, Engine.PROXY)
"""Those of them that can speak gRPC."""


def _quoted(engines: Iterable[Engine]) -> str:
    return ", ".join(quote(engine.value) for engine in engines)


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
    """Container image. Defaults to the runtime image that the operator was installed with; for torch and torchserve to
    its torch flavour, NAME-torch:TAG."""
    image_pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When nodes pull the image."""
    batching: Batching = Batching()
    """Dynamic batching: requests that wait together run together."""
    queue: Queue = Queue()
    """Requests that may wait, and how long."""
    prediction_log: PredictionLog = PredictionLog()
    """A record of each prediction, for audits, drift and replay."""
    drift: Drift | None = None
    """How drift is watched. Left out: every model that ships a reference is, with an hour's half-life."""
    response_cache: ResponseCache | None = None
    """Remember answers. Left out: nothing is remembered."""
    api_keys: ApiKeys | None = None
    """Let only clients with a key in. Left out: everybody who reaches the pods."""
    auth: Auth | None = None
    """Let only clients with a token (JWT) in; with apiKeys, those with either. Left out: no tokens are looked at."""
    engine: EngineContainer | None = None
    """The engine's own container, for every engine but onnx, torch and torchserve."""
    env: Annotated[list[EnvVar], Field(max_length=64)] = []
    """More settings of the runtime, SERINUS_* and OTEL_* (docs/runtime). What has its own field is refused here."""
    secrets: Annotated[list[DnsName], Field(max_length=16)] = []
    """Secrets mounted read-only at /etc/serinus/secrets/NAME, for settings that name a file."""
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
            f"self.?queue.?maxLength.orValue({_default(Queue, 'max_length')}) >= self.?batching.?maxSize.orValue(1)",
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
        Cel(
            f"(self.?name.orValue('onnx') in [{_quoted(BESIDE)}]) == has(self.engine)",
            "engine describes the container beside the runtime: write runtime.engine.image for every engine but onnx, "
            "torch and torchserve, and remove runtime.engine for those",
            field_path=".engine",
        ),
        Cel(
            f"!has(self.engine) || !has(self.engine.grpcPort) || self.?name.orValue('onnx') in [{_quoted(WITH_GRPC)}]",
            "grpcPort goes with triton, tfserving, rayserve and proxy; the other engines speak HTTP only: remove it",
            field_path=".engine.grpcPort",
        ),
        Cel(
            "!has(self.engine) || !has(self.engine.grpcPort) || !has(self.env)"
            " || !self.env.exists(e, e.name == 'SERINUS_PROXY_GRPC_URL')",
            "engine.grpcPort says where the engine's gRPC is: remove SERINUS_PROXY_GRPC_URL",
            field_path=".env",
        ),
        Cel(
            "!has(self.auth) || !has(self.env) || !self.env.exists(e, e.name.startsWith('SERINUS_JWT_'))",
            "runtime.auth says which tokens are taken: remove the variables SERINUS_JWT_*",
            field_path=".env",
        ),
        Cel(
            "!has(self.env) || self.env.all(a, self.env.exists_one(b, a.name == b.name))",
            "each variable only once: remove the repeated entry",
            field_path=".env",
        ),
        Cel(
            f"!has(self.env) || self.env.all(e, !(e.name in [{', '.join(quote(name) for name in RESERVED)}]))",
            "this variable has a field of its own, or is the operator's: use the field",
            field_path=".env",
        ),
    )
