"""Per ModelDeployment: HTTPRoute with weights, stable Service, PodDisruptionBudget, PodMonitor."""

from __future__ import annotations

from collections.abc import Sequence

from serinus.api.units import Duration
from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.objects.places import places, ways
from serinus.release.observed import Plan


def http_route(context: Context, plan: Plan) -> Object:
    """The route that users come by. Name and hostnames never change during a release, only weights do.

    gRPC is a second rule of the same object, not a GRPCRoute: the Gateway API forbids the two kinds to share a
    hostname, and one write must move all traffic. With a path prefix of its own a ModelDeployment shares its hostname,
    and gRPC calls cannot be told apart by path there: they are left to the Service.

    Pins follow the weights: by the Gateway API a rule with more header matches wins wherever it stands, the first one
    among equals. No rule changes its place while users are served: see `places`.

    Raises:
        ValueError: the ModelDeployment declares no route.
    """
    route = context.spec.route
    if route is None:
        raise ValueError("spec.route is not set")
    return route_of(context, context.name, plan, route.hostnames)


def route_of(context: Context, name: str, plan: Plan, hostnames: Sequence[str]) -> Object:
    """A route of the ModelDeployment's at these host names."""
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
        "rules": [],
    }
    for place in places(plan, route.path):
        for path, port in ways(context.spec):
            backends = [
                {
                    **_backend(context, to.revision, port, to.weight),
                    **({"filters": list(to.filters)} if to.filters else {}),
                }
                for to in place.to
            ]
            rule = _rule(path, place.users, backends)
            spec["rules"].append(_mirrored(context, plan, port, rule) if place.mirrored else rule)
    if route.timeout is not None:
        for rule in spec["rules"]:
            rule["timeouts"] = {"request": _gateway_duration(route.timeout)}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": context.metadata(name),
        "spec": spec,
    }


def _rule(path: str, users: Sequence[list[Object]], backends: list[Object]) -> Object:
    """Requests below a path, of these users only if any are given."""
    at: Object = {"path": {"type": "PathPrefix", "value": path}}
    return {"matches": [{**at, "headers": headers} for headers in users] or [at], "backendRefs": backends}


def _mirrored(context: Context, plan: Plan, port: int, rule: Object) -> Object:
    """A rule that sends a share of its requests to the candidate of a shadow as well."""
    if plan.mirror is None:
        return rule
    backend = _backend(context, plan.mirror.candidate, port, 0)
    del backend["weight"]
    mirror = {"backendRef": backend, "percent": plan.mirror.shadow.percent}
    return {**rule, "filters": [{"type": "RequestMirror", "requestMirror": mirror}]}


def _backend(context: Context, revision: str, port: int, weight: int = 100) -> Object:
    return {
        "group": "",
        "kind": "Service",
        "name": names.child(context.name, revision),
        "port": port,
        "weight": weight,
    }


def _gateway_duration(duration: Duration) -> str:
    """In the Gateway API's form (GEP-2257): whole numbers of at most five digits, units up to hours."""
    left = round(duration.seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


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
