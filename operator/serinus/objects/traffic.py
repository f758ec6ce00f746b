"""Per ModelDeployment: HTTPRoute with weights, stable Service, PodDisruptionBudget, PodMonitor."""

from __future__ import annotations

from collections.abc import Mapping

from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.objects.workload import SERVICE_PORT


def http_route(context: Context, weights: Mapping[str, int]) -> Object:
    """The route that users come by. Name and hostnames never change during a release, only weights do.

    Raises:
        ValueError: the ModelDeployment declares no route.
    """
    route = context.spec.route
    if route is None:
        raise ValueError("spec.route is not set")
    spec: Object = {
        "parentRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                **parent.model_dump(mode="json", by_alias=True, exclude_none=True),
            }
            for parent in route.parent_refs
        ],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": route.path}}],
                "backendRefs": [
                    {
                        "group": "",
                        "kind": "Service",
                        "name": names.child(context.name, revision),
                        "port": SERVICE_PORT,
                        "weight": weight,
                    }
                    for revision, weight in weights.items()
                ],
            }
        ],
    }
    if route.hostnames:
        spec["hostnames"] = list(route.hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": context.metadata(context.name),
        "spec": spec,
    }


def disruption_budget(context: Context) -> Object:
    """At most one pod of the ModelDeployment at a time is taken by a node drain."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": context.metadata(context.name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {names.DEPLOYMENT_LABEL: context.name}}},
    }


def pod_monitor(context: Context) -> Object:
    """Scraping by the Prometheus operator, where it is installed."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": context.metadata(context.name),
        "spec": {
            "selector": {"matchLabels": {names.DEPLOYMENT_LABEL: context.name}},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics"}],
        },
    }
