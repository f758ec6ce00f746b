"""One look at the API server for all lanes, several times a second: routes, ModelDeployments, canaries."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from collections import defaultdict
from typing import Any

from bench.exposure.flagger import NAME
from bench.exposure.measure import Seen
from cluster import ClusterInfo

PERIOD = 0.3
Object = dict[str, Any]
_KINDS = {
    "route": "/apis/gateway.networking.k8s.io/v1/httproutes",
    "mdep": "/apis/serving.serinus.dev/v1alpha1/modeldeployments",
    "canary": "/apis/flagger.app/v1beta1/canaries",
}


class Eyes:
    """Keeps the latest of each namespace, and every change of the candidate's weight."""

    def __init__(self, cluster: ClusterInfo) -> None:
        command = [str(cluster.kubectl), "--kubeconfig", str(cluster.kubeconfig), "proxy", "--port=0"]
        self._proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        # Starting to serve on 127.0.0.1:PORT
        self._url = "http://" + self._proxy.stdout.readline().split()[-1]
        self._latest: dict[tuple[str, str], Object] = {}
        self._weights: dict[str, dict[str, list[Seen]]] = defaultdict(lambda: defaultdict(list))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def latest(self, kind: str, namespace: str) -> Object:
        """The object of a lane as it was a moment ago; empty before there is one."""
        return self._latest.get((kind, namespace), {})

    def weights(self, namespace: str, backend: str) -> list[Seen]:
        """Changes of a backend's percentage in the lane's route."""
        return list(self._weights[namespace][backend])

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._proxy.terminate()
        self._proxy.wait(10)

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            for kind, path in _KINDS.items():
                try:
                    with urllib.request.urlopen(self._url + path, timeout=5) as answer:
                        items = json.load(answer)["items"]
                except OSError:
                    continue
                for item in items:
                    if item["metadata"]["name"] == NAME:
                        self._latest[kind, item["metadata"]["namespace"]] = item
                        if kind == "route":
                            self._note(item, time.time())

    def _note(self, route: Object, now: float) -> None:
        backends = route["spec"]["rules"][0].get("backendRefs", [])
        shares = {each["name"]: each.get("weight", 1) for each in backends}
        total, known = sum(shares.values()), self._weights[route["metadata"]["namespace"]]
        for name in shares.keys() | known.keys():
            weight = round(100 * shares.get(name, 0) / total) if total else 0
            if not known[name] or known[name][-1].weight != weight:
                known[name].append(Seen(now, weight))
