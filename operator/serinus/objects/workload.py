"""Per revision: ControllerRevision, Deployment, Service, HorizontalPodAutoscaler."""

from __future__ import annotations

import math

from serinus.api.spec import MetricType, Scaling, ScalingMetric
from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.objects.pods import pod_template, uses_devices
from serinus.release.observed import RevisionPlan
from serinus.release.revisions import Revision

SERVICE_PORT = 80
GRPC_PORT = 8081
DEFAULT_METRICS = (ScalingMetric(type=MetricType.CPU, target=70),)
POD_METRICS = {
    MetricType.QUEUE_DEPTH: "serinus_queue_depth",
    MetricType.REQUESTS_PER_SECOND: "serinus_requests_per_second",
}


def controller_revision(context: Context, revision: Revision, number: int) -> Object:
    """The stored snapshot of a revision."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": context.metadata(names.child(context.name, revision.name), revision.name),
        "data": revision.snapshot(),
        "revision": number,
    }


def deployment(context: Context, revision: Revision, replicas: int | None) -> Object:
    """The pods of a revision; `replicas` None leaves their number to its other owner, the autoscaler."""
    # Without a spare accelerator a surging pod would wait for ever: make room first.
    rolling = (
        {"maxSurge": 0, "maxUnavailable": 1} if uses_devices(revision) else {"maxSurge": "25%", "maxUnavailable": 0}
    )
    spec: Object = {
        "selector": {"matchLabels": names.selector(context.name, revision.name)},
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": max(10, math.ceil(context.spec.release.progress_deadline.seconds)),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "template": pod_template(context, revision),
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.metadata(names.child(context.name, revision.name), revision.name),
        "spec": spec,
    }


def service(context: Context, name: str, revision: str) -> Object:
    """A Service in front of one revision's pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": context.metadata(name, revision),
        "spec": {
            "selector": names.selector(context.name, revision),
            "ports": [
                {"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"},
                {
                    "name": "grpc",
                    "port": GRPC_PORT,
                    "targetPort": "grpc",
                    "protocol": "TCP",
                    # Tells gateways to speak HTTP/2 to the pods.
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }


def autoscaled(scaling: Scaling) -> bool:
    """Whether replica counts belong to an autoscaler."""
    return scaling.max is not None and scaling.max > scaling.min


def autoscaler(context: Context, plan: RevisionPlan) -> Object:
    """One autoscaler per revision, so that live and candidate pods are never averaged. Up fast, down slowly."""
    scaling = context.spec.scaling
    name = names.child(context.name, plan.revision.name)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": context.metadata(name, plan.revision.name),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": plan.floor,
            "maxReplicas": max(plan.floor, scaling.max or scaling.min),
            "metrics": [_metric(metric) for metric in scaling.metrics or DEFAULT_METRICS],
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "selectPolicy": "Max",
                    "policies": [
                        {"type": "Percent", "value": 100, "periodSeconds": 15},
                        {"type": "Pods", "value": 4, "periodSeconds": 15},
                    ],
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": min(3600, round(scaling.scale_down_delay.seconds)),
                    "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
                },
            },
        },
    }


def _metric(metric: ScalingMetric) -> Object:
    if metric.type in POD_METRICS:
        return {
            "type": "Pods",
            "pods": {
                "metric": {"name": POD_METRICS[metric.type]},
                "target": {"type": "AverageValue", "averageValue": str(metric.target)},
            },
        }
    return {
        "type": "Resource",
        "resource": {
            "name": "cpu" if metric.type is MetricType.CPU else "memory",
            "target": {"type": "Utilization", "averageUtilization": metric.target},
        },
    }
