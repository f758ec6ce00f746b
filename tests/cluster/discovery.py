"""Finding the pods that want to be scraped, for a Prometheus that was built without Kubernetes discovery.

Debian's Prometheus is such a one. This program watches pods and writes the file of targets that Prometheus follows:
``python -m cluster.discovery SERVER CA CERTIFICATE KEY FILE``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from cluster.kube import Api
from cluster.progress import say

_PODS = "/api/v1/pods"
_ANNOTATION = "prometheus.io/"
# Well under the client's time limit for a silent connection.
_WATCH_SECONDS = 60


def target(pod: dict[str, Any]) -> dict[str, Any] | None:
    """The scrape target of a pod, with the labels ``namespace`` and ``pod``; None when it has, or wants, none."""
    metadata, status = pod["metadata"], pod.get("status", {})
    wishes = metadata.get("annotations", {})
    port, address = wishes.get(f"{_ANNOTATION}port"), status.get("podIP")
    if wishes.get(f"{_ANNOTATION}scrape") != "true" or not port or not address or status.get("phase") != "Running":
        return None
    labels = {
        "__metrics_path__": wishes.get(f"{_ANNOTATION}path", "/metrics"),
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
    }
    return {"targets": [f"{address}:{port}"], "labels": labels}


class Targets:
    """The targets of all pods and the file they are written to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, dict[str, Any]] = {}

    def replace(self, pods: list[dict[str, Any]]) -> None:
        """Take these pods for all there are."""
        found = {pod["metadata"]["uid"]: target(pod) for pod in pods}
        self._known = {uid: entry for uid, entry in found.items() if entry is not None}
        self._write()

    def event(self, kind: str, pod: dict[str, Any]) -> None:
        """Take in one event of a watch; writes only what changes something."""
        uid = pod["metadata"]["uid"]
        entry = None if kind == "DELETED" else target(pod)
        if entry == self._known.get(uid):
            return
        if entry is None:
            del self._known[uid]
        else:
            self._known[uid] = entry
        self._write()

    def _write(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(list(self._known.values())))
        partial.replace(self._file)


def follow(api: Api, targets: Targets) -> None:
    """List the pods, then watch them until the watch breaks or has to be begun anew."""
    listed = api.get(_PODS)
    if not listed:
        raise ConnectionError("pods could not be listed")
    targets.replace(listed["items"])
    version = listed["metadata"]["resourceVersion"]
    while True:
        query = f"?watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        for event in api.watch(_PODS + query):
            if event["type"] == "ERROR":
                raise ConnectionError(event["object"].get("message", "the watch is too old"))
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                targets.event(event["type"], event["object"])


def main() -> None:
    """Entry point; runs until it is killed."""
    server, authority, certificate, key, file = sys.argv[1:]
    api = Api(server, Path(authority), Path(certificate), Path(key))
    targets = Targets(Path(file))
    while True:
        try:
            follow(api, targets)
        except OSError as error:
            say(f"{error}; beginning anew")
            time.sleep(0.5)


if __name__ == "__main__":
    main()
