"""What Kubernetes itself warned of lately about the objects of a ModelDeployment, and status does not tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from serinus.cli.output import age
from serinus.cli.picture import Picture
from serinus.objects.context import Object

RECENT = timedelta(minutes=15)
"""Older ones say nothing of today; Kubernetes itself forgets events after an hour."""
MOST = 5
ADVICE: Mapping[str, tuple[str, str]] = {
    "FailedMount": (
        "a Secret, a ConfigMap or a claim that the pod mounts is not there, or cannot be attached to its node",
        "create what the message names, or correct its name in spec.runtime or spec.model",
    ),
    "FailedAttachVolume": (
        "the volume is attached to another node, or its driver does not answer",
        "use a claim that several nodes may read (ReadOnlyMany), or look at the storage driver's pods",
    ),
    "FailedScheduling": (
        "no node has the room, the GPU, the labels or the taints' consent that the pod asks for",
        "compare runtime.resources, accelerator, nodeSelector and tolerations with `kubectl describe nodes`",
    ),
    "FailedCreate": (
        "the API server refuses the pod: a quota, a limit range, a webhook or pod security",
        "read the message; raise the quota, or change runtime.resources",
    ),
    "Unhealthy": (
        "a probe fails: the model is busy, hangs, or has not loaded yet",
        "read the pod's log; where the CPU is short, raise runtime.resources or scaling.min",
    ),
    "BackOff": (
        "a container ends again and again, or its image cannot be pulled",
        "run `kubectl logs POD -c model --previous`, and check the image's name and its pull secret",
    ),
    "Failed": (
        "the image cannot be pulled, or the container cannot be started",
        "check the image's name, its registry and its pull secret",
    ),
    "Evicted": (
        "the node ran short of memory or disk",
        "raise the requests in runtime.resources to what the model needs, so that its node has it",
    ),
    "FailedGetResourceMetric": (
        "the autoscaler gets no CPU or memory figures: metrics-server does not answer, or pods have no requests",
        "run `kubectl top pods`; until it answers the number of pods stays as it is",
    ),
    "FailedGetPodsMetric": (
        "the autoscaler gets no figures of the model's own: a metrics adapter is missing or does not know the metric",
        "install a metrics adapter for Prometheus, or scale by CPU (docs/operations.md)",
    ),
    "FailedComputeMetricsReplicas": (
        "the autoscaler cannot tell how many pods are wanted, since its figures are missing",
        "see the message for which; until they come the number of pods stays as it is",
    ),
}


def warned(picture: Picture) -> list[tuple[str, str]]:
    """Reason and a line of text of each kind of warning, the newest first."""
    newest: dict[tuple[str, str], Object] = {}
    for event in sorted(picture.warnings, key=_seen):
        newest[event.get("reason", ""), event.get("regarding", {}).get("kind", "")] = event
    found = [
        (
            reason,
            f"{_about(event)}: {event.get('note', '').strip()} ({_times(event)}{age(_seen(event), picture.now)} ago)",
        )
        for (reason, _), event in newest.items()
        if picture.now - _seen(event) <= RECENT
    ]
    return found[::-1][:MOST]


def of_children(events: Iterable[Object], children: Iterable[Object]) -> tuple[Object, ...]:
    """The warnings among `events` that are about one of `children`, unless that is well by now: every pod fails its
    readiness probe while the model is loading, and every autoscaler misses its figures at first."""
    known = {child["metadata"].get("uid") for child in children if not _well(child)} - {None}
    return tuple(
        event for event in events
        if event.get("type") == "Warning" and (event.get("regarding") or {}).get("uid") in known
    )  # fmt: skip


def _well(child: Object) -> bool:
    conditions = {each["type"]: each["status"] for each in child.get("status", {}).get("conditions", [])}
    return "True" in (conditions.get("Ready"), conditions.get("ScalingActive"))


def _about(event: Object) -> str:
    regarding = event.get("regarding", {})
    return f"{regarding.get('kind', 'object')} {regarding.get('name', '')}".strip()


def _seen(event: Object) -> datetime:
    """When it was seen last: series of one event tell it apart, and older clients in a field of their own."""
    at = (
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("deprecatedLastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )
    return datetime.fromisoformat(at)


def _times(event: Object) -> str:
    count = (event.get("series") or {}).get("count") or event.get("deprecatedCount") or 1
    return f"{count} times, last " if count > 1 else ""
