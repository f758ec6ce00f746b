"""The pod of a revision: fetch the model, verify it, serve it. Passes the `restricted` pod security level."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from serinus.api.runtime import Runtime
from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.objects.engine import SHARED_MEMORY, UNPRIVILEGED, engine_container, resources_of
from serinus.objects.environment import CONFIG_MAPS_MOUNT, SECRETS_MOUNT, environment
from serinus.release.revisions import Revision
from serinus.runtimes import TEMPLATES
from serinus.runtimes.base import RuntimeTemplate, image_of

USER = 65532
CLAIM_MOUNT = "/mnt/pvc"


def pod_template(context: Context, revision: Revision) -> Object:
    """The pod template of a revision's Deployment."""
    runtime = revision.runtime
    template = TEMPLATES[runtime.name]
    image = {
        "image": runtime.image or image_of(context.settings.runtime_image, template.flavour),
        "imagePullPolicy": runtime.image_pull_policy.value,
    }
    shared: Object = {
        **image,
        "env": environment(context, revision),
        "securityContext": {**UNPRIVILEGED, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    mounts: list[Object] = [{"name": "models", "mountPath": "/models"}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    volumes: list[Object] = [{"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    fetch_mounts = mounts
    if claim := claim_of(revision.model.uri):
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        fetch_mounts = [*mounts, {"name": "claim", "mountPath": CLAIM_MOUNT, "readOnly": True}]
    for number, secret in enumerate(secrets_of(runtime)):
        name = f"secret-{number}"
        volumes.append({"name": name, "secret": {"secretName": secret}})
        mounts = [*mounts, {"name": name, "mountPath": f"{SECRETS_MOUNT}/{secret}", "readOnly": True}]
    if runtime.auth is not None and (shown := runtime.auth.jwks.config_map) is not None:
        volumes.append({"name": "jwks", "configMap": {"name": shown.name}})
        mounts = [*mounts, {"name": "jwks", "mountPath": f"{CONFIG_MAPS_MOUNT}/{shown.name}", "readOnly": True}]
    resources = resources_of(runtime.resources)
    beside = []
    if runtime.engine and template.beside:
        beside = [engine_container(context, revision, runtime.engine, template.beside)]
        volumes.append(SHARED_MEMORY)
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
            },
            *beside,
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
    runtime = revision.runtime
    limits = [*runtime.resources.limits, *(runtime.engine.resources.limits if runtime.engine else ())]
    return any("/" in key for key in limits)


def secrets_of(runtime: Runtime) -> list[str]:
    """The Secrets that are mounted into the runtime's container."""
    tokens = runtime.auth.jwks.secret if runtime.auth is not None else None
    shown = (runtime.api_keys, runtime.prediction_log.credentials, tokens)
    named = [secret.secret_name for secret in shown if secret is not None]
    return list(dict.fromkeys([*named, *runtime.secrets]))


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
