"""Where the pods of a revision are. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from serinus.objects.context import Object
from serinus.objects.names import REVISION_LABEL


def pod_urls(children: Iterable[Object], revision: str) -> list[str]:
    """Base URLs of the ready pods of a revision, by the pods' names."""
    pods = [child for child in children if child["kind"] == "Pod" and _ready(child, revision)]
    return [_url(pod) for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))]


def _ready(pod: Object, revision: str) -> bool:
    meta, status = pod["metadata"], pod.get("status", {})
    if meta.get("labels", {}).get(REVISION_LABEL) != revision or "deletionTimestamp" in meta or not status.get("podIP"):
        return False
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))


def _url(pod: Object) -> str:
    address = pod["status"]["podIP"]
    ports = [port for container in pod["spec"].get("containers", []) for port in container.get("ports", [])]
    port = next((port["containerPort"] for port in ports if port.get("name") == "http"), 8080)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
