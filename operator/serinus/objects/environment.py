"""What the runtime's container is told: its environment, from a revision and the ModelDeployment."""

from __future__ import annotations

from serinus.api.auth import Jwks
from serinus.api.runtime import LogTarget, Runtime
from serinus.api.units import Duration
from serinus.objects.context import Context, Object
from serinus.release.revisions import Revision
from serinus.runtimes import TEMPLATES
from serinus.runtimes.base import RuntimeTemplate

SECRETS_MOUNT = "/etc/serinus/secrets"
CONFIG_MAPS_MOUNT = "/etc/serinus/configmaps"


def environment(context: Context, revision: Revision) -> list[Object]:
    """Variables of the runtime. Later ones may refer to earlier ones as `$(NAME)`."""
    runtime, template = revision.runtime, TEMPLATES[revision.runtime.name]
    values = {
        "SERINUS_NAMESPACE": context.namespace,
        "SERINUS_DEPLOYMENT": context.name,
        "SERINUS_REVISION": revision.name,
        "SERINUS_MODEL_NAME": revision.model.name or context.name,
        "SERINUS_MODEL_VERSION": revision.version,
        "SERINUS_MODEL_URI": revision.model.uri,
        "SERINUS_MODEL_DIGEST": revision.model.digest,
        "SERINUS_MODEL_DIR": template.model_dir,
        "SERINUS_HTTP_PORT": str(template.http_port),
        "SERINUS_GRPC_PORT": str(template.grpc_port),
        "SERINUS_METRICS_PORT": str(template.metrics_port),
        "SERINUS_BATCH_MAX_DELAY": _with_unit(runtime.batching.max_delay),
        "SERINUS_QUEUE_MAX_LENGTH": str(runtime.queue.max_length),
        "SERINUS_QUEUE_TIMEOUT": _with_unit(runtime.queue.timeout),
        "SERINUS_SLO_LATENCY": _with_unit(context.spec.slo.p99),
        "SERINUS_MAX_REQUEST_BYTES": str(round(runtime.max_request_size.number)),
        "SERINUS_DRAIN_DELAY": _with_unit(runtime.drain_delay),
        "SERINUS_THREADS": str(runtime.threads),
        **_options(runtime),
        **_beside(runtime, template),
        **template.env,
        **{variable.name: variable.value for variable in runtime.env},
    }
    return [{"name": key, "value": value} for key, value in values.items()]


def _options(runtime: Runtime) -> dict[str, str]:
    """Only what is asked for: a variable more would restart every model when the operator is upgraded."""
    values: dict[str, str] = {}
    if runtime.batching.max_size is not None:
        values["SERINUS_BATCH_MAX_SIZE"] = str(runtime.batching.max_size)
    log = runtime.prediction_log
    if log.target is not LogTarget.OFF:
        values |= {
            "SERINUS_PREDICTION_LOG": log.url or log.target.value.lower(),
            "SERINUS_PREDICTION_LOG_PAYLOADS": str(log.payloads.fraction),
            "SERINUS_PREDICTION_LOG_REDACT": ",".join(log.redact),
        }
        if log.sample.fraction < 1:
            values["SERINUS_PREDICTION_LOG_SAMPLE"] = str(log.sample.fraction)
        if shown := log.credentials:
            kind = "OPTIONS" if log.target is LogTarget.KAFKA else "TOKEN"
            values[f"SERINUS_PREDICTION_LOG_{kind}_FILE"] = f"{SECRETS_MOUNT}/{shown.secret_name}/{shown.key}"
    if drift := runtime.drift:
        values |= {
            "SERINUS_DRIFT": "auto" if drift.enabled else "off",
            "SERINUS_DRIFT_WINDOW": _with_unit(drift.window),
            "SERINUS_DRIFT_SAMPLE": str(drift.sample.fraction),
        }
    if cache := runtime.response_cache:
        values |= {
            "SERINUS_RESPONSE_CACHE": str(round(cache.size.number)),
            "SERINUS_RESPONSE_CACHE_TTL": _with_unit(cache.ttl),
        }
    if keys := runtime.api_keys:
        values["SERINUS_API_KEYS_FILE"] = f"{SECRETS_MOUNT}/{keys.secret_name}/{keys.key}"
    if auth := runtime.auth:
        values |= {
            "SERINUS_JWT_JWKS": _place_of(auth.jwks),
            "SERINUS_JWT_ISSUER": auth.issuer,
            "SERINUS_JWT_AUDIENCE": ",".join(auth.audience),
            "SERINUS_JWT_ALGORITHMS": ",".join(auth.algorithms),
        }
        if auth.refresh is not None:
            values["SERINUS_JWT_REFRESH"] = _with_unit(auth.refresh)
    return values


def _place_of(keys: Jwks) -> str:
    if keys.secret is not None:
        return f"{SECRETS_MOUNT}/{keys.secret.secret_name}/{keys.secret.key}"
    if keys.config_map is not None:
        return f"{CONFIG_MAPS_MOUNT}/{keys.config_map.name}/{keys.config_map.key}"
    return keys.url or ""


def _beside(runtime: Runtime, template: RuntimeTemplate) -> dict[str, str]:
    if runtime.engine is None or template.beside is None:
        return {}
    values = {
        "SERINUS_ENGINE": "proxy",
        "SERINUS_PROXY_URL": f"http://127.0.0.1:{runtime.engine.port}",
        "SERINUS_PROXY_HEALTH": runtime.engine.health_path or template.beside.health_path,
        "SERINUS_PROXY_CONCURRENCY": str(runtime.engine.concurrency),
    }
    if runtime.engine.grpc_port is not None:
        values["SERINUS_PROXY_GRPC_URL"] = f"http://127.0.0.1:{runtime.engine.grpc_port}"
    return values


def _with_unit(duration: Duration) -> str:
    return "0s" if duration == "0" else str(duration)
