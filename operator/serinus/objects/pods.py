"""The pod of a revision: fetch the model, verify it, serve it. Passes the `restricted` pod security level."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from serinus.api.runtime import LogTarget, PredictionLog
from serinus.api.units import Duration
from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.release.revisions import Revision
from serinus.runtimes import TEMPLATES
from serinus.runtimes.base import RuntimeTemplate

USER = 65532
CLAIM_MOUNT = "/mnt/pvc"
DEFAULT_REQUESTS = {"cpu": "250m", "memory": "256Mi"}


def pod_template(context: Context, revision: Revision) -> Object:
    """The pod template of a revision's Deployment."""
    runtime = revision.runtime
    template = TEMPLATES[runtime.name]
    image = {
        "image": runtime.image or context.settings.runtime_image,
        "imagePullPolicy": runtime.image_pull_policy.value,
    }
    shared: Object = {
        **image,
        "env": _environment(context, revision, template),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    mounts: list[Object] = [{"name": "models", "mountPath": "/models"}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    volumes: list[Object] = [{"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    fetch_mounts = mounts
    if claim := claim_of(revision.model.uri):
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        fetch_mounts = [*mounts, {"name": "claim", "mountPath": CLAIM_MOUNT, "readOnly": True}]
    resources = _resources(revision)
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(runtime.drain_delay.seconds + runtime.queue.timeout.seconds + 30),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [
            {
                "name": "fetch-model",
                **shared,
                "args": list(template.fetch),
                "volumeMounts": fetch_mounts,
                "resources": _without_devices(resources),
            }
        ],
        "containers": [
            {
                "name": "model",
                **shared,
                "args": list(template.serve),
                "volumeMounts": mounts,
                "resources": resources,
                "ports": [
                    {"name": "http", "containerPort": template.http_port, "protocol": "TCP"},
                    {"name": "grpc", "containerPort": template.grpc_port, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": template.metrics_port, "protocol": "TCP"},
                ],
                **_probes(context, template),
            }
        ],
        "volumes": volumes,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.selector(context.name, revision.name)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
    }
    if runtime.node_selector:
        spec["nodeSelector"] = dict(runtime.node_selector)
    if runtime.tolerations:
        spec["tolerations"] = [
            toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in runtime.tolerations
        ]
    if runtime.service_account_name:
        spec["serviceAccountName"] = runtime.service_account_name
    metadata: Object = {
        "labels": {**names.labels(context.name, revision.name), names.VERSION_LABEL: revision.version},
    }
    if not context.settings.pod_monitors:
        metadata["annotations"] = {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(template.metrics_port),
            "prometheus.io/path": template.metrics_path,
        }
    return {"metadata": metadata, "spec": spec}


def claim_of(uri: str) -> str | None:
    """The PersistentVolumeClaim of a `pvc://CLAIM/PATH` address."""
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme == "pvc" else None


def uses_devices(revision: Revision) -> bool:
    """Whether its pods ask for an extended resource such as a GPU."""
    return any("/" in key for key in revision.runtime.resources.limits)


def _environment(context: Context, revision: Revision, template: RuntimeTemplate) -> list[Object]:
    runtime = revision.runtime
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
        "SERINUS_BATCH_MAX_SIZE": str(runtime.batching.max_size),
        "SERINUS_BATCH_MAX_DELAY": str(_with_unit(runtime.batching.max_delay)),
        "SERINUS_QUEUE_MAX_LENGTH": str(runtime.queue.max_length),
        "SERINUS_QUEUE_TIMEOUT": str(_with_unit(runtime.queue.timeout)),
        "SERINUS_SLO_LATENCY": str(_with_unit(context.spec.slo.p99)),
        "SERINUS_MAX_REQUEST_BYTES": str(round(runtime.max_request_size.number)),
        "SERINUS_DRAIN_DELAY": str(_with_unit(runtime.drain_delay)),
        "SERINUS_THREADS": str(runtime.threads),
        **_prediction_log(runtime.prediction_log),
        **template.env,
    }
    return [{"name": key, "value": value} for key, value in values.items()]


def _prediction_log(log: PredictionLog) -> dict[str, str]:
    if log.target is LogTarget.OFF:
        return {}
    return {
        "SERINUS_PREDICTION_LOG": log.target.value.lower(),
        "SERINUS_PREDICTION_LOG_PAYLOADS": str(log.payloads.fraction),
        "SERINUS_PREDICTION_LOG_REDACT": ",".join(log.redact),
    }


def _with_unit(duration: Duration) -> str:
    return "0s" if duration == "0" else duration


def _resources(revision: Revision) -> Object:
    declared = revision.runtime.resources
    limits = {key: str(value) for key, value in declared.limits.items()}
    requests = {key: str(value) for key, value in declared.requests.items()}
    for key, value in DEFAULT_REQUESTS.items():
        if key not in limits:
            requests.setdefault(key, value)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def _without_devices(resources: Object) -> Object:
    return {
        kind: {key: value for key, value in amounts.items() if "/" not in key} for kind, amounts in resources.items()
    }


def _probes(context: Context, template: RuntimeTemplate) -> Object:
    def get(path: str) -> Object:
        return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 2}

    deadline = max(10, math.ceil(context.spec.release.progress_deadline.seconds))
    return {
        "startupProbe": {**get(template.live_path), "periodSeconds": 1, "failureThreshold": deadline},
        "readinessProbe": {**get(template.ready_path), "periodSeconds": 1, "failureThreshold": 3},
        "livenessProbe": {**get(template.live_path), "periodSeconds": 10, "failureThreshold": 3},
    }
