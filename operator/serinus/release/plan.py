"""From a status to what should exist in the cluster. Every traffic weight is decided here and nowhere else."""

from __future__ import annotations

from serinus.api.matching import Match
from serinus.api.status import ModelDeploymentStatus, Phase
from serinus.release.capacity import floor_for
from serinus.release.flags import floors as floors_of_flags
from serinus.release.flags import resolve
from serinus.release.form import form_of
from serinus.release.observed import Input, Mirror, Pin, Plan, RevisionPlan
from serinus.release.revisions import Revision
from serinus.release.steps import upcoming_share
from serinus.release.sticky import Split, split


def plan_for(given: Input, status: ModelDeploymentStatus, target: Revision) -> Plan:
    """The plan that `status` implies: one entry per revision that has a role, and the route's weights."""
    live, release, previous = status.live, status.release, status.previous
    floors: dict[str, int] = {}
    weights: dict[str, int] = {}
    if live is not None:
        floors[live.revision] = given.spec.scaling.min
        weights[live.revision] = 100
    if previous is not None:
        floors.setdefault(previous.revision, max(previous.replicas or 1, 1))
        weights.setdefault(previous.revision, 0)
    if release is not None:
        live_replicas = given.observed.state(live.revision if live else None).desired
        floors[release.revision] = max(
            floors.get(release.revision, 0), floor_for(heading_for(given, status), given.spec.scaling, live_replicas)
        )
        if live is not None:
            weights[live.revision] = 100 - release.weight
        if release.weight or release.phase is not Phase.STARTING:
            weights[release.revision] = release.weight
    flags = resolve(given, status, target)
    for revision, floor in floors_of_flags(flags).items():
        floors[revision] = max(floor, floors.get(revision, 0))
    snapshots = {**given.observed.snapshots, target.name: target}
    known = [name for name in floors if name in snapshots]
    if sum(weights.values()) == 0:
        weights = {}
    return Plan(
        revisions=tuple(RevisionPlan(snapshots[name], floors[name]) for name in known),
        weights=weights,
        stable=live.revision if live else None,
        keep=frozenset(floors) - frozenset(known),
        pins=tuple(
            Pin(each.revision, tuple(each.flag.match), each.flag.name) for each in flags if each.ready and each.revision
        ),
        preview=_preview(given, status),
        users=_users(given, status),
        sticky=_sticky(given, status),
        mirror=_mirror(given, status),
        form=form_of(given.spec),
    )


def _mirror(given: Input, status: ModelDeploymentStatus) -> Mirror | None:
    release, live = status.release, status.live
    if release is None or live is None or release.phase is not Phase.SHADOWING:
        return None
    steps = given.spec.release.plan_steps()
    shadow = steps[release.step].shadow if release.step < len(steps) else None
    return Mirror(live.revision, release.revision, shadow) if shadow is not None else None


def _preview(given: Input, status: ModelDeploymentStatus) -> str | None:
    """The candidate while it is fit to be looked at; the live revision else, so that the address always answers."""
    if not any(step.preview for step in given.spec.release.plan_steps()):
        return None
    release, live = status.release, status.live
    if release is not None and release.phase is not Phase.ROLLING_BACK:
        state = given.observed.state(release.revision)
        if state.ready > 0 and (state.failure is None or not state.failure.since(release.started_at)):
            return release.revision
    return live.revision if live else None


def _users(given: Input, status: ModelDeploymentStatus) -> Match | None:
    """Who takes part in the experiment that is under way."""
    release, steps = status.release, given.spec.release.plan_steps()
    if release is None or release.phase is not Phase.EXPERIMENTING or not 0 <= release.step < len(steps):
        return None
    experiment = steps[release.step].experiment
    return experiment.users if experiment and release.weight else None


def _sticky(given: Input, status: ModelDeploymentStatus) -> Split | None:
    sticky, release, live = given.spec.release.sticky, status.release, status.live
    if sticky is None or release is None or live is None or given.spec.route is None:
        return None
    return split(sticky, given.spec.release.plan_steps(), release.weight, release.revision, live.revision)


def heading_for(given: Input, status: ModelDeploymentStatus) -> int:
    """The weight that the candidate needs pods for: the next one it is about to get."""
    release = status.release
    if release is None or release.phase is Phase.ROLLING_BACK:
        return 0
    if release.phase is Phase.PROMOTING:
        return 100
    if given.spec.route is None or status.live is None or release.skips_steps:
        return 100
    return max(release.weight, upcoming_share(given.spec.release.plan_steps(), release.step))
