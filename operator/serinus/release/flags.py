"""Flags: which revision each of them leads to at the moment, if any.

A flag is in force only while its revision is fit to be used: pods ready (so verified and warm), not failed, not under
way out. Otherwise its users are served as everybody else, and status says why.
"""

from __future__ import annotations

from dataclasses import dataclass

from serinus.api.matching import Flag
from serinus.api.status import ModelDeploymentStatus, Phase
from serinus.release.observed import Input
from serinus.release.revisions import Revision

CANDIDATE, LIVE, PREVIOUS = "candidate", "live", "previous"


@dataclass(frozen=True)
class Resolved:
    """A flag and where it leads."""

    flag: Flag
    revision: str | None = None
    """The revision it asks for; None where there is none such."""
    ready: bool = False
    """Its users go there now."""
    reason: str = ""
    message: str = ""
    """Why not."""
    problem: bool = False
    """Waiting does not mend it."""


def resolve(given: Input, status: ModelDeploymentStatus, target: Revision) -> tuple[Resolved, ...]:
    """Every flag of the spec under `status`, in their order."""
    route = given.spec.route
    return tuple(_resolve(flag, given, status, target) for flag in (route.flags if route else ()))


def floors(found: tuple[Resolved, ...]) -> dict[str, int]:
    """Fewest pods by revision that flags alone ask for."""
    wanted: dict[str, int] = {}
    for each in found:
        if each.revision is not None and not each.problem:
            wanted[each.revision] = max(each.flag.replicas, wanted.get(each.revision, 0))
    return wanted


def _resolve(flag: Flag, given: Input, status: ModelDeploymentStatus, target: Revision) -> Resolved:
    release, live, previous = status.release, status.live, status.previous
    if flag.version in (CANDIDATE, LIVE, PREVIOUS):
        role = {
            CANDIDATE: release.revision if release else None,
            LIVE: live.revision if live else None,
            PREVIOUS: previous.revision if previous else None,
        }[flag.version]
        if role is None:
            return Resolved(flag, reason="NoSuchRole", message=f"there is no {flag.version} version at the moment")
    else:
        role = _named(flag.version, given, status, target)
        if role is None:
            known = sorted({each.version for each in given.observed.snapshots.values()})[:10]
            message = f"no kept version is called {flag.version}; there are {', '.join(known) or 'none'}"
            return Resolved(flag, reason="UnknownVersion", message=message, problem=True)
    if role in status.failed_revisions and not (live and live.revision == role):
        return Resolved(flag, role, False, "VersionFailed", "that version failed: say retry, or name another", True)
    if release is not None and release.revision == role and release.phase is Phase.ROLLING_BACK:
        return Resolved(flag, role, False, "RollingBack", "that version is being rolled back")
    state = given.observed.state(role)
    if state.failure is not None and state.failure.at is None:
        return Resolved(flag, role, False, state.failure.reason, f"its pods fail: {state.failure.message}")
    if state.ready == 0:
        return Resolved(flag, role, False, "WaitingForPods", "none of its pods is ready yet")
    if not _has_a_rule(flag, given):
        return Resolved(flag, role, False, "WaitingForGateway", "the gateway has not confirmed its rule yet")
    return Resolved(flag, role, True)


def _has_a_rule(flag: Flag, given: Input) -> bool:
    """Whether every gateway has a rule for it: users who are sent to one it does not know yet are lost."""
    route = given.observed.route
    served = any(known.name == flag.name and known.revision for known in given.status.flags)
    return served or (route.formed and route.accepted)


def _named(version: str, given: Input, status: ModelDeploymentStatus, target: Revision) -> str | None:
    """The revision of that version: one with a role first, for a version may have had several."""
    release = status.release
    if release is not None and target.version == version and release.revision == target.name:
        return target.name
    for ref in (status.live, status.candidate, status.previous):
        if ref is not None and ref.version == version:
            return ref.revision
    snapshots = given.observed.snapshots
    named = [name for name in snapshots if version in (name, snapshots[name].version)]
    running = [name for name in named if given.observed.state(name).desired > 0]
    good = [name for name in named if name not in status.failed_revisions]
    return next(iter([*sorted(running), *sorted(good), *sorted(named)]), None)
