"""The address at which a candidate is looked at before it has users."""

from __future__ import annotations

from serinus.objects import workload
from serinus.objects.context import Context, Object
from serinus.objects.traffic import route_of
from serinus.release.observed import Plan


def objects(context: Context, revision: str) -> list[Object]:
    """The Service NAME-preview in front of `revision`, and a route to it where the preview has host names."""
    name = f"{context.name}-preview"
    made = [workload.service(context, name, revision)]
    hostnames = [host for step in context.spec.release.plan_steps() if step.preview for host in step.preview.hostnames]
    if hostnames and context.spec.route:
        made.append(route_of(context, name, Plan(weights={revision: 100}), hostnames))
    return made
