"""The API server by `kubectl proxy`: a look at an object costs no process."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from typing import Any

from cluster import ClusterInfo

Object = dict[str, Any]


class Api:
    """A proxy that is started again when it ends."""

    def __init__(self, cluster: ClusterInfo) -> None:
        self._command = [str(cluster.kubectl), "--kubeconfig", str(cluster.kubeconfig), "proxy", "--port=0"]
        self._turn = threading.Lock()
        self._proxy: subprocess.Popen[str] | None = None
        self._url = ""

    def get(self, path: str) -> Object:
        """The object at a path. Raises OSError where there is none, or nobody answers."""
        with urllib.request.urlopen(self._address() + path, timeout=10) as answer:
            found: Object = json.load(answer)
        return found

    def close(self) -> None:
        with self._turn:
            if self._proxy:
                self._proxy.terminate()
                self._proxy.wait(10)
                self._proxy = None

    def _address(self) -> str:
        with self._turn:
            if self._proxy is None or self._proxy.poll() is not None:
                self._proxy = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
                assert self._proxy.stdout is not None
                # Starting to serve on 127.0.0.1:PORT
                words = self._proxy.stdout.readline().split()
                if not words:
                    raise OSError("kubectl proxy does not start")
                self._url = f"http://{words[-1]}"
            return self._url
