"""A plan as the objects that should exist, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from serinus.objects import names, preview, shadow, traffic, workload
from serinus.objects.context import Context, Object
from serinus.objects.read import Children, owns_replicas, revision_number
from serinus.release.observed import Plan


@dataclass(frozen=True)
class Desired:
    """What to apply, what to scale, and what to delete."""

    apply: list[Object] = field(default_factory=list)
    scale: dict[str, int] = field(default_factory=dict)
    """Deployment name -> replicas, set once through the scale subresource so that no ownership is taken."""
    delete: list[Object] = field(default_factory=list)


def render(context: Context, plan: Plan, children: Children, history: Iterable[str] = ()) -> Desired:
    """Desired state for `plan`.

    Args:
        children: what exists now; used for replica ownership, revision numbers and pruning only.
        history: revisions whose ControllerRevision is kept although they have no pods.
    """
    scaling = context.spec.scaling
    elastic = workload.autoscaled(scaling)
    numbers = {name: revision_number(obj) for name, obj in children.of("ControllerRevision").items()}
    following = max(numbers.values(), default=0) + 1
    apply: list[Object] = []
    scale: dict[str, int] = {}
    for item in plan.revisions:
        name = names.child(context.name, item.revision.name)
        number = numbers.get(name, following)
        following = max(following, number + 1)
        current = children.of("Deployment").get(name)
        replicas: int | None = item.floor
        if elastic:
            held = int(current["spec"].get("replicas", 1)) if current else 1
            replicas = held if current and owns_replicas(current) else None
            if held < item.floor:
                scale[name] = item.floor
        apply.append(workload.controller_revision(context, item.revision, number))
        apply.append(workload.deployment(context, item.revision, replicas))
        apply.append(workload.service(context, name, item.revision.name))
        if elastic:
            apply.append(workload.autoscaler(context, item))
    if plan.revisions:
        apply.append(traffic.disruption_budget(context))
        if context.settings.pod_monitors:
            apply.append(traffic.pod_monitor(context))
    if plan.mirror:
        apply += shadow.joiner(context, plan.mirror)
    if plan.stable:
        apply.append(workload.service(context, context.name, plan.stable))
    if plan.preview:
        apply += preview.objects(context, plan.preview)
    if context.spec.route and plan.weights:
        route = traffic.http_route(context, plan)
        # Where every backend is there already, traffic moves before anything else does: a roll-back is one write.
        behind = {*plan.weights, *(pin.revision for pin in plan.pins)}
        ready = all(names.child(context.name, revision) in children.of("Service") for revision in behind)
        apply.insert(0 if ready else len(apply), route)
    return Desired(apply, scale, _stale(context, plan, children, apply, frozenset(history)))


def _stale(
    context: Context, plan: Plan, children: Children, apply: list[Object], history: frozenset[str]
) -> list[Object]:
    wanted = {(obj["kind"], obj["metadata"]["name"]) for obj in apply}
    stale = []
    for kind, objects in children.owned().items():
        for name, obj in objects.items():
            revision = names.revision_in(context.name, name)
            kept = revision in plan.keep or (kind == "ControllerRevision" and revision in history)
            if (kind, name) not in wanted and not kept and "deletionTimestamp" not in obj["metadata"]:
                stale.append(obj)
    return sorted(stale, key=_deletion_order)


def _deletion_order(obj: Mapping[str, object]) -> int:
    """Autoscalers go before what they scale, or they would fight the deletion."""
    order = ("HTTPRoute", "HorizontalPodAutoscaler", "Deployment", "Service")
    return order.index(str(obj["kind"])) if obj["kind"] in order else len(order)
