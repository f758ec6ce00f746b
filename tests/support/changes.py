"""Every change of an object in the order it happened, from the API server's own watch: polling misses what is short."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from cluster import ClusterInfo

Object = dict[str, Any]
MODEL_DEPLOYMENTS = ("serving.serinus.dev", "v1alpha1", "modeldeployments")
ROUTES = ("gateway.networking.k8s.io", "v1", "httproutes")
SECONDS = 2
"""How long one call watches; the next goes on where it ended."""


@dataclass
class Watch:
    """Notes each change of status and route while a test does other things. Use as a context."""

    api: client.ApiClient
    namespace: str
    name: str
    states: list[tuple[str, int, int]] = field(default_factory=list)
    """Phase, step and weight as status shows them."""
    routes: list[dict[str, int]] = field(default_factory=list)
    """Weights by revision as the route has them."""
    on_change: Callable[[tuple[str, int, int]], None] = lambda state: None
    problems: list[str] = field(default_factory=list)
    """Why the API server could not be watched now and then."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Watch:
        for kind, note in ((MODEL_DEPLOYMENTS, self._note_status), (ROUTES, self._note_route)):
            thread = threading.Thread(target=self._follow, args=(kind, note, self._now(kind, note)), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self.api.rest_client.pool_manager.clear()
        self.api.close()
        print(f"watched: {self.states}, {self.routes}, {self.problems[-3:]}")

    def _now(self, kind: tuple[str, str, str], note: Callable[[Object], None]) -> dict[str, str]:
        """Notes how things stand before anything is done. A watch that is to begin "now" may be answered seconds late:
        the API server waits until its cache has caught up with etcd, and says 504 where that takes too long."""
        group, version, plural = kind
        read = client.CustomObjectsApi(self.api).get_namespaced_custom_object
        try:
            found = read(group, version, self.namespace, plural, self.name, _request_timeout=30)
        except ApiException as error:
            if error.status != 404:
                raise
            return {}
        note(found)
        return {"resource_version": found["metadata"]["resourceVersion"]}

    def _follow(self, kind: tuple[str, str, str], note: Callable[[Object], None], since: dict[str, str]) -> None:
        group, version, plural = kind
        listing = client.CustomObjectsApi(self.api).list_namespaced_custom_object
        while not self._stop.is_set():
            only = {"field_selector": f"metadata.name={self.name}", "timeout_seconds": SECONDS, "_request_timeout": 30}
            try:
                for event in watch.Watch().stream(listing, group, version, self.namespace, plural, **only, **since):
                    since = {"resource_version": event["object"]["metadata"]["resourceVersion"]}
                    if event["type"] != "DELETED":
                        note(event["object"])
            except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                if isinstance(error, ApiException) and error.status == 410:
                    since = {}
                self.problems.append(f"{plural}: {error}"[:300])
                self._stop.wait(0.5)

    def _note_status(self, owner: Mapping[str, Any]) -> None:
        status = owner.get("status", {})
        release = status.get("release") or {}
        state = (status.get("phase", ""), release.get("step", 0), release.get("weight", 0))
        if not self.states or self.states[-1] != state:
            self.states.append(state)
            self.on_change(state)

    def _note_route(self, route: Mapping[str, Any]) -> None:
        backends = route["spec"]["rules"][0]["backendRefs"]
        weights = {ref["name"].rpartition("-")[2]: ref["weight"] for ref in backends}
        if not self.routes or self.routes[-1] != weights:
            self.routes.append(weights)


def watching(cluster: ClusterInfo, namespace: str, name: str) -> Watch:
    """A `Watch` of the ModelDeployment and the HTTPRoute of that name."""
    return Watch(config.new_client_from_config(str(cluster.kubeconfig)), namespace, name)
