"""What a shadow needs beside the route's mirror: a joiner, its Service, and one that has the addresses of all pods."""

from __future__ import annotations

from serinus.api import GROUP
from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.objects.engine import UNPRIVILEGED
from serinus.objects.pods import USER
from serinus.release.observed import Mirror

PORT = 8082
SHADOW_LABEL = f"{GROUP}/shadow"
"""On the joiner's pod in place of the deployment's label: no disruption budget, Service or monitor means it."""
_REQUESTS = {"cpu": "100m", "memory": "128Mi"}
_LIMITS = {"memory": "512Mi"}
"""Memory is bounded by the joiner itself, far below this."""


def joiner(context: Context, mirror: Mirror) -> list[Object]:
    """Everything that exists for as long as the shadow lasts, in the order in which it is applied."""
    hub = _headless(context, names.joiner(context.name), _selector(context))
    tap = _headless(context, names.tap(context.name), {names.DEPLOYMENT_LABEL: context.name})
    found = [hub, tap, _deployment(context, mirror)]
    if context.settings.pod_monitors:
        found.append(_pod_monitor(context))
    return found


def _selector(context: Context) -> dict[str, str]:
    return {SHADOW_LABEL: context.name}


def _headless(context: Context, name: str, selector: dict[str, str]) -> Object:
    """A Service whose name has the addresses of the pods themselves: pods let in whoever has the joiner's."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": context.metadata(name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "metrics", "port": PORT, "targetPort": "metrics", "protocol": "TCP"}],
        },
    }


def _deployment(context: Context, mirror: Mirror) -> Object:
    name, runtime = names.joiner(context.name), context.spec.runtime
    metadata: Object = {"labels": {"app.kubernetes.io/name": name, **_selector(context)}}
    if not context.settings.pod_monitors:
        metadata["annotations"] = {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(PORT),
            "prometheus.io/path": "/metrics",
        }
    probe = {"httpGet": {"path": "/healthz", "port": "metrics"}, "timeoutSeconds": 2}
    container: Object = {
        "name": "joiner",
        "image": context.settings.runtime_image,
        "imagePullPolicy": runtime.image_pull_policy.value,
        "args": ["join"],
        "env": [{"name": key, "value": value} for key, value in _environment(context, mirror).items()],
        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10},
        "resources": {"requests": _REQUESTS, "limits": _LIMITS},
        "securityContext": {**UNPRIVILEGED, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.metadata(name),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 0,
            # Two joiners at once would count every pair twice.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _selector(context)},
            "template": {
                "metadata": metadata,
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }


def _environment(context: Context, mirror: Mirror) -> dict[str, str]:
    shadow = mirror.shadow
    redact = dict.fromkeys([*shadow.samples.redact, *context.spec.runtime.prediction_log.redact])
    values = {
        "SERINUS_NAMESPACE": context.namespace,
        "SERINUS_DEPLOYMENT": context.name,
        "SERINUS_JOIN_LIVE": mirror.live,
        "SERINUS_JOIN_CANDIDATE": mirror.candidate,
        "SERINUS_JOIN_PODS": f"{names.tap(context.name)}.{context.namespace}.svc:{PORT}",
        "SERINUS_METRICS_PORT": str(PORT),
    }
    if shadow.tolerance is not None:
        values["SERINUS_JOIN_TOLERANCE"] = repr(shadow.tolerance)
    if shadow.samples.keep:
        values["SERINUS_JOIN_SAMPLES"] = str(shadow.samples.keep)
    if redact:
        values["SERINUS_JOIN_REDACT"] = ",".join(redact)
    return values


def _pod_monitor(context: Context) -> Object:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": context.metadata(names.joiner(context.name)),
        "spec": {
            "selector": {"matchLabels": _selector(context)},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics"}],
        },
    }
