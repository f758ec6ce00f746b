"""`serinus status`: what is live, what is happening, is it well, and what comes next."""

from __future__ import annotations

from datetime import datetime

from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus, Phase, RevisionRef
from serinus.api.steps import StepKind
from serinus.cli.output import age, table
from serinus.cli.picture import Picture
from serinus.objects.read import observe
from serinus.release.steps import STEP_PHASES

_BAR = 40
_VALUES = 8
"""Values that are shown of a step's result."""


def parse(picture: Picture) -> tuple[ModelDeploymentSpec, ModelDeploymentStatus]:
    """Spec and status of the ModelDeployment.

    Raises:
        pydantic.ValidationError: another version of the operator wrote something this one does not know.
    """
    owner = picture.owner
    status = ModelDeploymentStatus.model_validate(owner.get("status") or {})
    return ModelDeploymentSpec.model_validate(owner["spec"]), status


def lines(picture: Picture) -> list[str]:
    """The whole view."""
    spec, status = parse(picture)
    ready = next((each for each in status.conditions if each.type == "Ready"), None)
    told = f"  ({ready.message})" if ready and ready.status != "True" else ""
    shown = [
        f"{picture.owner['metadata']['namespace']}/{picture.name}   {status.phase}{told}",
        f"SLO      p99 <= {spec.slo.p99}, errors <= {spec.slo.error_rate}",
        *([f"frozen   {picture.frozen}"] if picture.frozen else []),
        "",
        *_revisions(picture, spec, status),
    ]
    if status.held is not None:
        shown += ["", f"waits   {status.held.reason}: {status.held.message}"]
    if status.release is not None:
        shown += ["", *_release(picture, spec, status)]
    elif status.last_release is not None:
        last = status.last_release
        shown += [
            "",
            f"last release   {last.version}: {last.outcome} {age(last.finished_at, picture.now)} ago after "
            f"{age(last.started_at, last.finished_at)}, {last.requests} requests",
            f"               {last.reason}: {last.message}",
        ]
    stalled = next((each for each in status.conditions if each.type == "Stalled"), None)
    if stalled is not None:
        shown += ["", f"stalled   {stalled.reason}: {stalled.message}"]
    shown += ["", *_events(picture)]
    return shown


def _revisions(picture: Picture, spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> list[str]:
    observed = observe(picture.name, picture.children)
    roles = (("live", status.live), ("candidate", status.candidate), ("previous", status.previous))
    rows = [["ROLE", "VERSION", "REVISION", "WEIGHT", "PODS", "P99", "ERRORS", "REQ/S", "SINCE"]]
    for role, ref in roles:
        if ref is None:
            continue
        state = observed.state(ref.revision)
        seen = status.metrics if role == "live" else status.candidate_metrics if role == "candidate" else None
        rows.append(
            [
                role, ref.version, ref.revision, _weight(status, ref), f"{state.ready}/{state.desired}",
                (seen and seen.p99) or "-", (seen and seen.error_rate) or "-",
                (seen and seen.requests_per_second) or "-", age(ref.since, picture.now),
            ]
        )  # fmt: skip
    if len(rows) == 1:
        return ["nothing is live yet"]
    return table(rows).splitlines()


def _weight(status: ModelDeploymentStatus, ref: RevisionRef) -> str:
    release = status.release
    if status.live is not None and ref.revision == status.live.revision:
        return f"{100 - release.weight if release else 100}%"
    return f"{release.weight}%" if release and ref.revision == release.revision else "0%"


def _release(picture: Picture, spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> list[str]:
    release = status.release
    assert release is not None
    steps = spec.release.plan_steps()
    path = []
    for number, step in enumerate(steps):
        if step.needs_route and not spec.route:
            continue
        passed = release.phase is Phase.PROMOTING or number < release.step
        here = release.phase in STEP_PHASES and number == release.step
        name = f"{step.weight}%" if step.kind is StepKind.WEIGHT else str(step.kind)
        path.append(f"[{name}]" if here else name + (" ok" if passed else ""))
    path.append("[100%]" if release.phase is Phase.PROMOTING else "100%")
    filled = round(_BAR * release.weight / 100)
    shown = [
        f"release   {release.phase}   " + " > ".join(path),
        f"          |{'#' * filled}{'.' * (_BAR - filled)}| {release.weight}%",
    ]
    if release.phase is Phase.CANARY and steps:
        step = steps[min(release.step, len(steps) - 1)]
        held = age(release.serving_since, picture.now)
        shown.append(
            f"          held {held} of {step.hold}, {release.candidate.requests} of {step.min_requests} requests"
        )
    shown += _results(picture)
    if release.message:
        shown.append(f"          {release.reason}: {release.message}")
    if release.evidence and release.evidence != release.message:
        shown.append(f"          {release.evidence}")
    return shown


def _results(picture: Picture) -> list[str]:
    """What steps of other kinds have found so far: the plain values of their part of the status."""
    raw = (picture.owner.get("status") or {}).get("release") or {}
    shown = []
    for kind in StepKind:
        found = raw.get(kind)
        if isinstance(found, dict):
            values = [f"{name} {value}" for name, value in found.items() if isinstance(value, (str, int, float))]
            shown.append(f"          {kind}: {', '.join(values[:_VALUES])}")
    return shown


def _events(picture: Picture, count: int = 6) -> list[str]:
    rows = []
    for event in picture.events[-count:]:
        at = event.get("eventTime") or event["metadata"].get("creationTimestamp")
        when = datetime.fromisoformat(at) if at else None
        rows.append([age(when, picture.now), event.get("reason", ""), event.get("note", "")])
    return table([["AGE", "EVENT", ""], *rows]).splitlines() if rows else []
