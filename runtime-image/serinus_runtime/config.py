"""Everything that can be set, from environment variables; each has a default that works on a laptop."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from serinus_runtime.choices import (
    Rate,
    algorithms,
    check_address,
    check_url,
    header_name,
    hosts,
    otlp_endpoint,
    otlp_url,
    parse_rate,
    some_of,
    words,
)
from serinus_runtime.durations import parse_duration
from serinus_runtime.engine.onnxoptions import OnnxOptions, read_options
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.proxy.models import parse_models

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})(Ki|Mi|Gi|Ti)?", re.ASCII)
_SIZES = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
USUAL_BATCH = 32
"""Rows."""
AUTO = "auto"
"""Of settings that the model itself may decide."""
TERMINATION_LOG = "/dev/termination-log"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime's settings. Durations are in seconds, sizes in bytes."""

    namespace: str = ""
    deployment: str = ""
    revision: str = ""
    model_name: str = "model"
    model_version: str = "local"
    model_uri: str = ""
    model_digest: str = ""
    model_dir: Path = Path("/models/model")
    host: str = ""
    http_port: int = 8080
    metrics_port: int = 8082
    grpc_port: int | None = 8081
    """None: gRPC is off."""
    engine: str = "auto"
    engine_timeout: float = 30.0
    engine_start_timeout: float = 300.0
    torch_python: str = ""
    torch_device: str = "cpu"
    torchserve_home: Path = Path("/opt/torchserve")
    java: str = ""
    allow_pickle: bool = False
    allow_python: bool = False
    require_proof: bool = False
    threads: int = 1
    instances: int = 1
    pin_threads: bool = False
    stuck_after: float = 60.0
    onnx: OnnxOptions = OnnxOptions()
    batch_max_size: int | None = None
    """None: `USUAL_BATCH`, and more where warm-up shows that it is worth it."""
    batch_max_delay: float = 0.0
    batch_preferred: tuple[int, ...] = ()
    queue_max_length: int = 512
    queue_max_bytes: int = 256 << 20
    queue_timeout: float = 1.0
    workers: int = 1
    worker_memory: int = 0
    slo_latency: float = 0.05
    max_request_bytes: int = 4 << 20
    receive_max_bytes: int = 256 << 20
    request_timeout: float = 20.0
    keep_alive: float = 3900.0
    max_connections: int = 8192
    response_cache: int = 0
    response_cache_ttl: float = 60.0
    prediction_log: str = "off"
    prediction_log_sample: float = 1.0
    prediction_log_max_bytes: int = 0
    prediction_log_keep: int = 5
    prediction_log_token_file: str = ""
    prediction_log_options_file: str = ""
    prediction_log_payloads: float = 0.0
    prediction_log_redact: frozenset[str] = frozenset()
    tap: str = "auto"
    drift: str = "auto"
    drift_window: float = 3600.0
    drift_sample: float = 1.0
    api_keys_file: Path | None = None
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: tuple[str, ...] = ()
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwt_refresh: float = 300.0
    open_paths: frozenset[str] = frozenset({"documents", "metrics"})
    rate_limit: Rate | None = None
    rate_limit_cost: str = "request"
    client_header: str = ""
    priority_best: int = 1
    circuit_failures: int = 0
    response_cache_by: str = "request"
    response_cache_shared: bool = False
    redis_url: str = ""
    redis_password_file: Path | None = None
    redis_ca_file: Path | None = None
    redis_timeout: float = 0.005
    async_mode: bool = False
    async_ttl: float = 600.0
    async_max_jobs: int = 1000
    async_max_bytes: int = 64 << 20
    async_concurrency: int = 4
    async_callback_hosts: frozenset[str] = frozenset()
    async_callback_secret_file: Path | None = None
    otlp_endpoint: str = ""
    drain_delay: float = 5.0
    claim_dir: Path = Path("/mnt/pvc")
    max_model_bytes: int = 64 << 30
    fetch_timeout: float = 1800.0
    proxy_url: str = "http://127.0.0.1:9000"
    proxy_grpc_url: str = ""
    proxy_concurrency: int = 64
    proxy_timeout: float = 60.0
    proxy_idle_timeout: float = 600.0
    proxy_health: str = ""
    proxy_paths: tuple[str, ...] = ()
    proxy_models: tuple[tuple[str, str], ...] = ()
    max_tokens: int = 0
    model_control: str = "off"
    drain_timeout: float = 25.0
    termination_log: str = TERMINATION_LOG

    @property
    def usual_batch(self) -> int:
        """Rows that a batch has at most when nothing more was measured."""
        return self.batch_max_size or USUAL_BATCH


SETTINGS: dict[str, object] = {
    **{field: getattr(Config(), field) for field in Config.__struct_fields__ if field != "onnx"},
    **{f"onnx_{field}": getattr(OnnxOptions(), field) for field in OnnxOptions.__struct_fields__},
}
"""Every setting, as its variable is called without SERINUS_, and its default."""


def parse_size(text: str) -> int:
    """Bytes in `text`: a whole number, bare or with Ki, Mi, Gi or Ti. Raises ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size: write whole bytes, or a number with Ki, Mi, Gi or Ti, such as 4Mi")
    return int(found[1]) * _SIZES[found[2]]


def _rows(text: str) -> int | None:
    return None if text == AUTO else _whole(1, 65536, f", or {AUTO}")(text)


def from_environment(environ: Mapping[str, str]) -> Config:
    """The settings in `environ` (names are in the README). An empty variable counts as absent.

    Raises FailureError(INVALID_CONFIG) that names the variable and says what to write instead.
    """

    def read(field: str, parse: Callable[[str], _T], default: _T) -> _T:
        name = f"SERINUS_{field}"
        text = environ.get(name, "")
        if text == "":
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise FailureError(Reason.INVALID_CONFIG, f"{name}: {error}") from None

    base = Config()
    model_name = read("MODEL_NAME", _name, base.model_name)
    return Config(
        namespace=read("NAMESPACE", _label, base.namespace),
        deployment=read("DEPLOYMENT", _label, model_name),
        revision=read("REVISION", _label, base.revision),
        model_name=model_name,
        model_version=read("MODEL_VERSION", version_name, base.model_version),
        model_uri=read("MODEL_URI", str, base.model_uri),
        model_digest=read("MODEL_DIGEST", _digest, base.model_digest),
        model_dir=read("MODEL_DIR", _directory, base.model_dir),
        host=read("HOST", str, base.host),
        http_port=read("HTTP_PORT", _whole(0, 65535), base.http_port),
        metrics_port=read("METRICS_PORT", _whole(0, 65535), base.metrics_port),
        grpc_port=read("GRPC_PORT", _port_or_off, base.grpc_port),
        engine=read("ENGINE", str, base.engine),
        engine_timeout=read("ENGINE_TIMEOUT", _duration(0.01, 86400), base.engine_timeout),
        engine_start_timeout=read("ENGINE_START_TIMEOUT", _duration(1, 86400), base.engine_start_timeout),
        torch_python=read("TORCH_PYTHON", str, base.torch_python),
        torch_device=read("TORCH_DEVICE", _device, base.torch_device),
        torchserve_home=read("TORCHSERVE_HOME", Path, base.torchserve_home),
        java=read("JAVA", str, base.java),
        allow_pickle=read("ALLOW_PICKLE", _switch, base.allow_pickle),
        allow_python=read("ALLOW_PYTHON", _switch, base.allow_python),
        require_proof=read("REQUIRE_PROOF", _switch, base.require_proof),
        threads=read("THREADS", _whole(1, 1024), base.threads),
        instances=read("INSTANCES", _whole(1, 256), base.instances),
        pin_threads=read("PIN_THREADS", _switch, base.pin_threads),
        stuck_after=read("STUCK_AFTER", _duration(0, 86400), base.stuck_after),
        onnx=read_options(read),
        batch_max_size=read("BATCH_MAX_SIZE", _rows, base.batch_max_size),
        batch_preferred=read("BATCH_PREFERRED", _wholes(1, 65536), base.batch_preferred),
        batch_max_delay=read("BATCH_MAX_DELAY", _duration(0, 60), base.batch_max_delay),
        queue_max_length=read("QUEUE_MAX_LENGTH", _whole(1, 10_000_000), base.queue_max_length),
        queue_max_bytes=read("QUEUE_MAX_BYTES", parse_size, base.queue_max_bytes),
        workers=read("WORKERS", _whole(1, 256), base.workers),
        worker_memory=read("WORKER_MEMORY", parse_size, base.worker_memory),
        queue_timeout=read("QUEUE_TIMEOUT", _duration(0.001, 86400), base.queue_timeout),
        slo_latency=read("SLO_LATENCY", _duration(0.00001, 86400), base.slo_latency),
        max_request_bytes=read("MAX_REQUEST_BYTES", parse_size, base.max_request_bytes),
        receive_max_bytes=read("RECEIVE_MAX_BYTES", parse_size, base.receive_max_bytes),
        request_timeout=read("REQUEST_TIMEOUT", _duration(0.05, 86400), base.request_timeout),
        keep_alive=read("KEEP_ALIVE", _duration(0.05, 604800), base.keep_alive),
        max_connections=read("MAX_CONNECTIONS", _whole(1, 1_000_000), base.max_connections),
        response_cache=read("RESPONSE_CACHE", parse_size, base.response_cache),
        response_cache_ttl=read("RESPONSE_CACHE_TTL", _duration(0.001, 604800), base.response_cache_ttl),
        prediction_log=read("PREDICTION_LOG", _log_target, base.prediction_log),
        prediction_log_sample=read("PREDICTION_LOG_SAMPLE", _share, base.prediction_log_sample),
        prediction_log_max_bytes=read("PREDICTION_LOG_MAX_BYTES", parse_size, base.prediction_log_max_bytes),
        prediction_log_keep=read("PREDICTION_LOG_KEEP", _whole(0, 1000), base.prediction_log_keep),
        prediction_log_token_file=read("PREDICTION_LOG_TOKEN_FILE", str, base.prediction_log_token_file),
        prediction_log_options_file=read("PREDICTION_LOG_OPTIONS_FILE", str, base.prediction_log_options_file),
        prediction_log_payloads=read("PREDICTION_LOG_PAYLOADS", _share, base.prediction_log_payloads),
        prediction_log_redact=read("PREDICTION_LOG_REDACT", _name_set, base.prediction_log_redact),
        tap=read("TAP", str.strip, base.tap),
        drift=read("DRIFT", _one_of("auto", "off"), base.drift),
        drift_window=read("DRIFT_WINDOW", _duration(1, 31_536_000), base.drift_window),
        drift_sample=read("DRIFT_SAMPLE", _share, base.drift_sample),
        api_keys_file=read("API_KEYS_FILE", Path, base.api_keys_file),
        jwt_jwks=read("JWT_JWKS", check_address, base.jwt_jwks),
        jwt_issuer=read("JWT_ISSUER", str.strip, base.jwt_issuer),
        jwt_audience=read("JWT_AUDIENCE", words, base.jwt_audience),
        jwt_algorithms=read("JWT_ALGORITHMS", algorithms, base.jwt_algorithms),
        jwt_refresh=read("JWT_REFRESH", _duration(10, 86400), base.jwt_refresh),
        open_paths=read("OPEN_PATHS", some_of("documents", "metadata", "metrics"), base.open_paths),
        rate_limit=read("RATE_LIMIT", parse_rate, base.rate_limit),
        rate_limit_cost=read("RATE_LIMIT_COST", _one_of("request", "rows"), base.rate_limit_cost),
        client_header=read("CLIENT_HEADER", header_name, base.client_header),
        priority_best=read("PRIORITY_BEST", _whole(1, 9), base.priority_best),
        circuit_failures=read("CIRCUIT_FAILURES", _whole(0, 1_000_000), base.circuit_failures),
        response_cache_by=read("RESPONSE_CACHE_BY", _one_of("request", "row"), base.response_cache_by),
        response_cache_shared=read("RESPONSE_CACHE_SHARED", _switch, base.response_cache_shared),
        redis_url=read("REDIS_URL", check_url, base.redis_url),
        redis_password_file=read("REDIS_PASSWORD_FILE", Path, base.redis_password_file),
        redis_ca_file=read("REDIS_CA_FILE", Path, base.redis_ca_file),
        redis_timeout=read("REDIS_TIMEOUT", _duration(0.0001, 10), base.redis_timeout),
        async_mode=read("ASYNC_MODE", _switch, base.async_mode),
        async_ttl=read("ASYNC_TTL", _duration(1, 604800), base.async_ttl),
        async_max_jobs=read("ASYNC_MAX_JOBS", _whole(1, 1_000_000), base.async_max_jobs),
        async_max_bytes=read("ASYNC_MAX_BYTES", parse_size, base.async_max_bytes),
        async_concurrency=read("ASYNC_CONCURRENCY", _whole(1, 1000), base.async_concurrency),
        async_callback_hosts=read("ASYNC_CALLBACK_HOSTS", hosts, base.async_callback_hosts),
        async_callback_secret_file=read("ASYNC_CALLBACK_SECRET_FILE", Path, base.async_callback_secret_file),
        otlp_endpoint=read("OTLP_ENDPOINT", otlp_url, otlp_endpoint(environ)),
        drain_delay=read("DRAIN_DELAY", _duration(0, 3600), base.drain_delay),
        claim_dir=read("CLAIM_DIR", Path, base.claim_dir),
        max_model_bytes=read("MAX_MODEL_BYTES", parse_size, base.max_model_bytes),
        fetch_timeout=read("FETCH_TIMEOUT", _duration(0.1, 604800), base.fetch_timeout),
        proxy_url=read("PROXY_URL", str.strip, base.proxy_url),
        proxy_grpc_url=read("PROXY_GRPC_URL", str.strip, base.proxy_grpc_url),
        proxy_concurrency=read("PROXY_CONCURRENCY", _whole(1, 100_000), base.proxy_concurrency),
        proxy_timeout=read("PROXY_TIMEOUT", _duration(0.01, 86400), base.proxy_timeout),
        proxy_idle_timeout=read("PROXY_IDLE_TIMEOUT", _duration(0.1, 604800), base.proxy_idle_timeout),
        proxy_health=read("PROXY_HEALTH", _path, base.proxy_health),
        proxy_paths=read("PROXY_PATHS", _paths, base.proxy_paths),
        proxy_models=read("PROXY_MODELS", parse_models, base.proxy_models),
        max_tokens=read("MAX_TOKENS", _whole(0, 1_000_000_000), base.max_tokens),
        model_control=read("MODEL_CONTROL", _one_of("off", "explicit"), base.model_control),
        drain_timeout=read("DRAIN_TIMEOUT", _duration(0, 86400), base.drain_timeout),
        termination_log=read("TERMINATION_LOG", str, base.termination_log),
    )


def _whole(low: int, high: int, more: str = "") -> Callable[[str], int]:
    def parse(text: str) -> int:
        stripped = text.strip()
        if not (stripped.isascii() and stripped.isdigit() and len(stripped) < 16 and low <= int(stripped) <= high):
            raise ValueError(f"{text!r} is not allowed: write a whole number from {low} to {high}{more}")
        return int(stripped)

    return parse


def _port_or_off(text: str) -> int | None:
    if text.strip() == "off":
        return None
    try:
        return _whole(0, 65535)(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def _wholes(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    one = _whole(low, high)
    return lambda text: tuple(sorted({one(part) for part in text.split(",")}))


def _duration(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not low <= seconds <= high:
            raise ValueError(f"{text!r} is out of range: write from {low:g}s to {high:g}s")
        return seconds

    return parse


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is not a path: write one such as /health")
    return text


def _paths(text: str) -> tuple[str, ...]:
    return tuple(_path(part.strip()) for part in text.split(",") if part.strip())


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{text!r} is not a share: write a number from 0 to 1")
    return share


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not allowed: write {' or '.join(words)}")
        return text

    return parse


def _name_set(text: str) -> frozenset[str]:
    return frozenset(filter(None, (part.strip() for part in text.split(","))))


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not a switch: write true or false")
    return text == "true"


def _device(text: str) -> str:
    if re.fullmatch(r"cpu|cuda(:\d{1,2})?", text, re.ASCII) is None:
        raise ValueError(f"{text!r} is not a device: write cpu, cuda or cuda:1")
    return text


def _log_target(text: str) -> str:
    if text not in ("off", "stdout") and not text.startswith(("/", "https://", "http://", "kafka://")):
        raise ValueError(
            f"{text!r} is not a place for a log: write off, stdout, the absolute path of a file, https://host/path, "
            "or kafka://broker:9092/topic"
        )
    return text


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a model name: use letters, digits, '.', '_' and '-', at most 128")
    return text


def _label(text: str) -> str:
    if not text.isprintable() or len(text) > 253:
        raise ValueError(f"{text!r} is not a Kubernetes name")
    return text


def version_name(text: str) -> str:
    """`text`, if answers may carry it as a version; raises ValueError that says what to write instead."""
    if not text.isprintable() or not text.isascii() or "/" in text or len(text) > 128:
        raise ValueError(f"{text!r} is not a version: use printable ASCII without '/', at most 128 characters")
    return text


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is not a digest: write sha256: and 64 lower-case hex digits, as `serinus-runtime digest` prints"
        )
    return text


def _directory(text: str) -> Path:
    path = Path(text)
    if path.name == "":
        raise ValueError(f"{text!r} cannot be the model directory: it is replaced as a whole, so name a sub-directory")
    return path
