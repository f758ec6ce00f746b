"""Failures that Kubernetes itself shows, read from pods and Deployments."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from serinus.objects.context import Object
from serinus.release.observed import Failure

FATAL_WAITING = frozenset(
    {
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
FATAL_EXITS = frozenset({"DigestMismatch", "ModelLoadFailed", "WarmupFailed", "InvalidConfig"})
"""Reasons in a termination message that a restart cannot mend."""
PATIENCE = 2
"""Restarts after which any other crash counts as a crash loop."""
MESSAGE_LENGTH = 600


def pod_failure(pod: Object) -> Failure | None:
    """Why a pod will not become ready by waiting, or None."""
    status = pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        failure = _container_failure(container)
        if failure:
            where = f"pod {pod['metadata']['name']}, container {container['name']}"
            return replace(failure, message=f"{failure.message} ({where})")
    return None


def _container_failure(container: dict[str, Any]) -> Failure | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in FATAL_WAITING:
        return Failure(reason, waiting.get("message") or f"the container waits: {reason}")
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    if not ended or ended.get("exitCode", 0) == 0:
        return None
    found = _ending(container, reason, ended)
    over = "running" in container.get("state", {}) and ended.get("finishedAt")
    return replace(found, at=datetime.fromisoformat(over)) if found is not None and over else found


def _ending(container: dict[str, Any], reason: str, ended: dict[str, Any]) -> Failure | None:
    """What the end of a container means; `reason` is why it waits, if it does."""
    if ended.get("reason") == "OOMKilled":
        return Failure("OOMKilled", "the container needed more memory than its limit; raise resources.limits.memory")
    told = _told(ended.get("message", ""))
    if told and told.reason in FATAL_EXITS:
        return told
    restarts = int(container.get("restartCount", 0))
    if restarts < PATIENCE and reason != "CrashLoopBackOff":
        return None
    if told:
        return told
    last = (ended.get("message") or "").strip()[-MESSAGE_LENGTH:]
    return Failure("CrashLoop", f"exit code {ended.get('exitCode')} after {restarts} restarts: {last or 'no message'}")


def _told(message: str) -> Failure | None:
    """The runtime's own word: a JSON object with reason and message, the last line of the termination message."""
    for line in reversed(message.strip().splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("reason"), str):
            return Failure(found["reason"], str(found.get("message", ""))[:MESSAGE_LENGTH])
    return None


def lost_readiness(pod: Object) -> datetime | None:
    """Since when a pod that was ready is not any more, while its containers run on; None for every other pod.

    Not what the cluster takes away: a pod that is being deleted or evicted; one that starts, or starts again, and is
    yet to be ready (its containers are younger than the condition); one whose node is lost, for then nobody reports
    its containers and the node controller changes the condition Ready alone.
    """
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    lost = conditions.get("ContainersReady", {})
    evicted = conditions.get("DisruptionTarget", {}).get("status") == "True"
    if "deletionTimestamp" in pod["metadata"] or evicted or lost.get("status") != "False":
        return None
    since = datetime.fromisoformat(lost["lastTransitionTime"])
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        running = container.get("state", {}).get("running")
        if running and not container.get("ready") and datetime.fromisoformat(running["startedAt"]) < since:
            return since
    return None


def replica_failure(deployment: Object) -> Failure | None:
    """Pods that the API server refuses to create: a quota, a missing service account, pod security."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Failure(condition.get("reason", "FailedCreate"), condition.get("message", "")[:MESSAGE_LENGTH])
    return None


def unschedulable(pod: Object) -> tuple[datetime, str] | None:
    """Since when, and why, the scheduler finds no node."""
    for condition in pod.get("status", {}).get("conditions", []):
        if (
            condition["type"] == "PodScheduled"
            and condition["status"] == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            since = datetime.fromisoformat(condition["lastTransitionTime"])
            return since, condition.get("message", "")[:MESSAGE_LENGTH]
    return None
