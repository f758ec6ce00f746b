"""Per ModelDeployment: HTTPRoute with weights, stable Service, PodDisruptionBudget, PodMonitor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serinus.api.units import Duration
from serinus.objects import names
from serinus.objects.context import Context, Object
from serinus.objects.matches import header_matches
from serinus.objects.sticky import Sign, both, drawn, recognised
from serinus.objects.workload import GRPC_PORT, SERVICE_PORT
from serinus.release.observed import Plan
from serinus.release.sticky import ByCookie
from serinus.runtimes import TEMPLATES

GRPC_PATH = "/inference.GRPCInferenceService"
"""Path prefix of the Open Inference Protocol's gRPC service."""


def http_route(context: Context, plan: Plan) -> Object:
    """The route that users come by. Name and hostnames never change during a release, only weights do.

    gRPC is a second rule of the same object, not a GRPCRoute: the Gateway API forbids the two kinds to share a
    hostname, and one write must move all traffic. With a path prefix of its own a ModelDeployment shares its hostname,
    and gRPC calls cannot be told apart by path there: they are left to the Service.

    Pins follow the weights: by the Gateway API a rule with more header matches wins wherever it stands, the first one
    among equals; and gateways name what they build by a rule's place, which should not change while users are served.

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
    ways = [(route.path, SERVICE_PORT), *([(_grpc_path(context), GRPC_PORT)] if route.path == "/" else [])]
    for users, revision in _rules(plan):
        for path, port in ways:
            to = _backends(context, plan, port, route.path) if revision is None else [_backend(context, revision, port)]
            rule = _rule(path, users, to)
            pinned = revision is not None and any(pin.revision == revision for pin in plan.pins)
            ours = revision is None or (plan.mirror is not None and revision == plan.mirror.live and not pinned)
            spec["rules"].append(_mirrored(context, plan, port, rule) if ours else rule)
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


def _grpc_path(context: Context) -> str:
    runtime = context.spec.runtime
    beside = TEMPLATES[runtime.name].beside
    if beside is None or runtime.engine is None or runtime.engine.grpc_port is None:
        return GRPC_PATH
    return beside.grpc_path or GRPC_PATH


def _rules(plan: Plan) -> Iterator[tuple[list[list[Object]], str | None]]:
    """Users by the headers that tell them, no headers for all, and the revision they go to; None: by the weights."""
    some = plan.users
    yield [], plan.stable if some else None
    for pin in plan.pins:
        users = [header_matches(match) for match in pin.match]
        # A pin must not lose to the experiment's rules, which name more headers than it does.
        also = [both(match, some, plan.sticky) for match in pin.match] if some else []
        yield users + [headers for headers in also if headers is not None], pin.revision
    for revision, sign, is_cookie in recognised(plan.sticky) if plan.sticky else ():
        signs: dict[str, list[Sign]] = {"cookies": [sign]} if is_cookie else {"headers": [sign]}
        yield [header_matches(some, **signs)], revision
    if some:
        yield [header_matches(some)], None


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


def _backends(context: Context, plan: Plan, port: int, cookie_path: str) -> list[Object]:
    """What users without a sign are drawn from."""
    if isinstance(plan.sticky, ByCookie):
        return [
            {**_backend(context, revision, port, weight), "filters": [gives]}
            for revision, weight, gives in drawn(plan.sticky, cookie_path)
        ]
    return [_backend(context, revision, port, weight) for revision, weight in plan.weights.items()]


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
