"""Reading the cluster back: children of one ModelDeployment as the state machine sees them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from serinus.api.spec import ModelDeploymentSpec
from serinus.objects import names
from serinus.objects.context import Object
from serinus.objects.failures import lost_readiness, pod_failure, replica_failure, unschedulable
from serinus.objects.places import formed, is_parked
from serinus.release.observed import Observed, RevisionState, RouteState
from serinus.release.revisions import Revision

OWNED_KINDS = (
    "ControllerRevision",
    "Deployment",
    "Service",
    "HorizontalPodAutoscaler",
    "HTTPRoute",
    "PodDisruptionBudget",
    "PodMonitor",
)


class Children:
    """Objects of one ModelDeployment by kind and name."""

    def __init__(self, objects: Iterable[Object] = ()) -> None:
        self._kinds: dict[str, dict[str, Object]] = {}
        for obj in objects:
            self._kinds.setdefault(obj["kind"], {})[obj["metadata"]["name"]] = obj

    def of(self, kind: str) -> Mapping[str, Object]:
        """Objects of one kind by name."""
        return self._kinds.get(kind, {})

    def owned(self) -> dict[str, Mapping[str, Object]]:
        """Everything the operator itself creates, by kind."""
        return {kind: self.of(kind) for kind in OWNED_KINDS}


def observe(deployment: str, children: Children, spec: ModelDeploymentSpec | None = None) -> Observed:
    """The state machine's view of a ModelDeployment's children. What the route lacks is told by its `spec`."""
    snapshots = {}
    for obj in children.of("ControllerRevision").values():
        name = obj["metadata"].get("labels", {}).get(names.REVISION_LABEL)
        if name and isinstance(obj.get("data"), dict):
            try:
                snapshots[name] = Revision.restore(name, obj["data"])
            except (ValueError, KeyError, TypeError):
                continue
    pods: dict[str, list[Object]] = {}
    for pod in children.of("Pod").values():
        revision = pod["metadata"].get("labels", {}).get(names.REVISION_LABEL, "")
        pods.setdefault(revision, []).append(pod)
    revisions = {}
    for name, obj in children.of("Deployment").items():
        revision = names.revision_in(deployment, name)
        if revision:
            revisions[revision] = _revision_state(obj, pods.get(revision, []))
    route = children.of("HTTPRoute").get(deployment)
    state = _route_state(deployment, route)
    if spec is not None:
        state = replace(state, formed=formed(spec, route["spec"].get("rules", []) if route else []))
    return Observed(revisions, snapshots, state)


def _revision_state(obj: Object, pods: list[Object]) -> RevisionState:
    status = obj.get("status", {})
    serving = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    failures = [failure for pod in serving if (failure := pod_failure(pod))]
    refused = replica_failure(obj)
    lasting = [failure for failure in failures if failure.at is None] + ([refused] if refused else [])
    latest = max(failures, default=None, key=lambda failure: failure.at.timestamp() if failure.at else 0.0)
    stuck = [found for pod in serving if (found := unschedulable(pod))]
    since, message = min(stuck, default=(None, ""), key=lambda found: found[0])
    return RevisionState(
        desired=int(obj["spec"].get("replicas", 1)),
        ready=int(status.get("readyReplicas", 0)),
        failure=lasting[0] if lasting else latest,
        unschedulable_since=since,
        unschedulable_message=message,
        unready={pod["metadata"]["name"]: lost for pod in serving if (lost := lost_readiness(pod)) is not None},
    )


def _route_state(deployment: str, route: Object | None) -> RouteState:
    if route is None:
        return RouteState(message="the HTTPRoute does not exist yet")
    weights = _weights(deployment, route["spec"].get("rules", []))
    generation = route["metadata"].get("generation", 0)
    parents = route.get("status", {}).get("parents", [])
    wanted = len(route["spec"].get("parentRefs", []))
    if len(parents) < wanted:
        return RouteState(weights, False, f"{len(parents)} of {wanted} gateways have answered; does the Gateway exist?")
    mirrored = _mirrored(deployment, route["spec"].get("rules", []))
    for parent in parents:
        problem = _parent_problem(parent, generation)
        if problem:
            return RouteState(weights, False, problem, mirrored, _refused(parent, generation))
    return RouteState(weights, True, "", mirrored)


def _mirrored(deployment: str, rules: Iterable[Object]) -> str | None:
    for rule in rules:
        for each in rule.get("filters", []):
            if each.get("type") == "RequestMirror":
                return names.revision_in(deployment, each["requestMirror"]["backendRef"]["name"])
    return None


def _refused(parent: Mapping[str, Any], generation: int) -> bool:
    return any(
        condition["status"] == "False" and condition.get("observedGeneration", 0) >= generation
        for condition in parent.get("conditions", [])
        if condition["type"] in ("Accepted", "ResolvedRefs")
    )


def _weights(deployment: str, rules: Iterable[Object]) -> dict[str, int]:
    """Weight by revision for users who are not pinned: the rule with the most backends, the first among equals."""
    used = (rule.get("backendRefs", []) for rule in rules if not is_parked(rule))
    backends: list[Object] = max(used, key=len, default=[])
    weights: dict[str, int] = {}
    for backend in backends:
        if revision := names.revision_in(deployment, backend["name"]):
            weights[revision] = weights.get(revision, 0) + int(backend.get("weight", 1))
    return weights


def _parent_problem(parent: Mapping[str, Any], generation: int) -> str | None:
    conditions = {condition["type"]: condition for condition in parent.get("conditions", [])}
    gateway = parent.get("parentRef", {}).get("name", "?")
    for kind in ("Accepted", "ResolvedRefs"):
        condition = conditions.get(kind)
        if condition is None or condition.get("observedGeneration", 0) < generation:
            return f"Gateway {gateway} has not seen this generation of the route yet"
        if condition["status"] != "True":
            return f"Gateway {gateway}: {kind} is {condition['status']}: {condition.get('message', '')}".strip()
    return None


def owns_replicas(deployment: Object) -> bool:
    """Whether the operator still is the only owner of `spec.replicas`: leaving it out would then reset it to 1."""
    owners = set()
    for entry in deployment["metadata"].get("managedFields", []):
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {}):
            owners.add((entry.get("manager"), entry.get("operation"), entry.get("subresource", "")))
    return owners == {(names.MANAGER, "Apply", "")}


def revision_number(obj: Object) -> int:
    """Sequence number of a ControllerRevision."""
    return int(obj.get("revision", 0))
