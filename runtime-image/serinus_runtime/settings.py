"""One line about every setting, as `--help` prints it."""

from __future__ import annotations

from serinus_runtime.config import SETTINGS

TEXTS = {
    "namespace": "label model_namespace of the metrics",
    "deployment": "label model_deployment of the metrics; the model's name when empty",
    "revision": "label of the metrics, and X-Serinus-Revision",
    "model_name": "what /v2/models/NAME calls it",
    "model_version": "what answers, metrics and the prediction log call it",
    "model_uri": "where fetch gets it: https:// file:// pvc://, a directory or an archive",
    "model_digest": "sha256:... that it must have",
    "model_dir": "where it is",
    "host": "address to listen on; all when empty",
    "http_port": "inference and health",
    "metrics_port": "/metrics and simple probes",
    "engine": "what runs the model; by its files when auto",
    "engine_timeout": "longest run of a batch in a worker process",
    "engine_start_timeout": "longest start of a worker process",
    "torch_python": "the Python that has torch, when it is another one",
    "torch_device": "cpu, cuda, cuda:1 ...",
    "torchserve_home": "the folder that holds TorchServe's package ts",
    "java": "the Java that runs TorchServe; java on the path when empty",
    "allow_pickle": "whether files that can run code when loaded are taken",
    "allow_python": "whether Python that comes with a model is run",
    "require_proof": "true: a model that warm-up could not run is not served",
    "threads": "threads inside an operator",
    "instances": "batches that run at the same time, each on a thread",
    "pin_threads": "true: each of these threads stays on a core",
    "stuck_after": "a batch that runs longer makes liveness fail; 0: never",
    "workers": "processes for Python that comes with a model",
    "worker_memory": "resident memory at which one, or torch's, is replaced; 0: the container's limit",
    "batch_preferred": "sizes of batches that the engine likes, such as 8,16,32",
    "onnx_providers": "in the order of preference, such as tensorrt,cuda,cpu",
    "onnx_provider_options": 'JSON, such as {"cuda": {"device_id": 0}}',
    "onnx_cpu_fallback": "true: the CPU when another provider is absent or does not start",
    "onnx_inter_threads": "threads across operators",
    "onnx_thread_affinity": "cores of the threads inside an operator but the first, such as 2;3",
    "onnx_spinning": "true: waiting threads spin",
    "onnx_optimization": "of the graph: off, basic, extended or all",
    "onnx_optimized_dir": "where optimised models are kept for the next start",
    "onnx_arena": "false: memory is not kept",
    "onnx_mem_pattern": "false: memory is not planned once per shape",
    "onnx_arena_shrink": "true: memory is given back after every batch",
    "onnx_own_sessions": "true: a session per instance",
    "onnx_io_binding": "auto, true or false; auto: on devices with a memory of their own",
    "onnx_cuda_graph": "true: a CUDA graph per shape",
    "onnx_session_config": "JSON of further session entries",
    "batch_max_size": "rows per batch; auto: 32, and up to 256 where warm-up shows that rows become much cheaper",
    "batch_max_delay": "longest wait of the oldest request for company",
    "queue_max_length": "rows that wait, beyond it 429",
    "queue_max_bytes": "bytes that wait, beyond it 429",
    "queue_timeout": "longest wait, beyond it 504",
    "slo_latency": "an exact edge of the duration histogram; slower requests count as slow",
    "max_request_bytes": "size of a body, beyond it 413",
    "receive_max_bytes": "of all bodies being received",
    "request_timeout": "time to send a request, and to take its answer",
    "keep_alive": "time between requests of a connection",
    "max_connections": "open at a time",
    "response_cache": "bytes of answers kept for equal requests; 0: off",
    "response_cache_ttl": "how long they are kept",
    "response_cache_by": "request: whole requests are remembered; row: each row",
    "response_cache_shared": "true: in Redis too, for all replicas",
    "redis_url": "redis://HOST:6379/0, or rediss:// for TLS",
    "redis_password_file": "its password",
    "redis_ca_file": "certificates that its own is checked against",
    "redis_timeout": "longest wait for a lookup in the cache",
    "jwt_jwks": "clients' tokens (JWT) are checked with the keys in this file, or at this https:// address",
    "jwt_issuer": "with jwt_jwks: who must have issued them",
    "jwt_audience": "with jwt_jwks: for whom they must be; several with commas",
    "jwt_algorithms": "with jwt_jwks: of their signatures",
    "jwt_refresh": "with jwt_jwks: how often an address is asked for new keys",
    "api_keys_file": "clients' keys, a line or a JSON object each; without it everybody is let in",
    "model_control": "explicit: keys with scopes=control may load and unload the model; off: nobody",
    "open_paths": "told without a key: documents, metadata, metrics; or none",
    "rate_limit": "per client, such as 100/s burst 200",
    "rate_limit_cost": "what is counted: request or rows",
    "client_header": "header whose last entry is the client's address",
    "priority_best": "best priority that clients may ask for, 1 to 9",
    "circuit_failures": "failures in a row that open the circuit to the engine; 0: off",
    "async_mode": "true: Prefer: respond-async and /v2/requests",
    "async_ttl": "how long results are kept",
    "async_max_jobs": "jobs and results at a time, beyond it 429",
    "async_max_bytes": "of their bodies and results, beyond it 429",
    "async_concurrency": "jobs that run at a time",
    "async_callback_hosts": "hosts that may be called back",
    "async_callback_secret_file": "what callbacks are signed with",
    "otlp_endpoint": "where spans go; else by OTEL_EXPORTER_OTLP_ENDPOINT",
    "prediction_log": "off, stdout, /path, https://host/path or kafka://broker:9092/topic",
    "prediction_log_sample": "share of the requests that have a line",
    "prediction_log_max_bytes": "size at which a file is put aside; 0: never",
    "prediction_log_keep": "files put aside that stay",
    "prediction_log_token_file": "bearer token for https://",
    "prediction_log_options_file": "settings of librdkafka, name=value on a line",
    "prediction_log_payloads": "share of the lines that show the inputs",
    "prediction_log_redact": "names of inputs and columns that are never shown",
    "tap": "who may read predictions at /tap of the metrics port: names with commas, off, or auto: a shadow's joiner",
    "drift": "auto: against the model's reference.json; or off",
    "drift_window": "half-life of the counts",
    "drift_sample": "share of the batches looked at",
    "drain_delay": "time between SIGTERM and the end of accepting",
    "drain_timeout": "longest wait for requests and streams under way after that",
    "proxy_url": "engine proxy: where the engine beside this server listens",
    "proxy_grpc_url": "engine proxy: where it listens for gRPC, such as http://127.0.0.1:9001; empty: nowhere",
    "proxy_concurrency": "engine proxy: requests that are with the engine at most; more wait",
    "proxy_timeout": "engine proxy: to the head of an answer, and between two pieces of it",
    "proxy_idle_timeout": "engine proxy: a WebSocket through which nothing passes for so long is ended",
    "proxy_health": "engine proxy: path that answers 200 when the engine is ready; the usual ones when empty",
    "proxy_paths": "engine proxy: paths, with *, that count as inference even with GET",
    "proxy_models": "engine proxy: names that OpenAI's clients may use, name=name-in-the-engine; * is any",
    "max_tokens": "engine proxy: tokens that an OpenAI request may ask for; 0: any number",
    "claim_dir": "where the claim of a pvc:// address is mounted",
    "max_model_bytes": "size of a model, for fetch",
    "fetch_timeout": "time for a whole fetch",
    "termination_log": "where the reason of a failure goes, if the file is there",
}


def table() -> str:
    """Every setting with its default."""
    names = [f"SERINUS_{field.upper()}" for field in SETTINGS]
    width = max(map(len, names))
    lines = []
    for (field, value), name in zip(SETTINGS.items(), names, strict=True):
        default = _default(value)
        lines.append(f"  {name:<{width}}  {TEXTS.get(field, '')}{f' [{default}]' if default else ''}".rstrip())
    return "\n".join(lines)


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}Mi"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value == {} else str(value)
