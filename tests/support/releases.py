"""What tests of releases on a real node need: an operator that can be killed, models, load, a record of weights."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

import fraud.store as store
from cluster import ClusterError, ClusterInfo
from cluster.commands import output
from fraud.records import Record, read
from fraud.train import VERSIONS, Built
from support.changes import Watch, watching
from support.eventually import SETTLING, eventually

ROOT = Path(__file__).parents[2]
NAME = store.DEPLOYMENT
LEASE = "3s"
Object = dict[str, Any]


class Operator:
    """The operator as a process on this host, so that a test can kill it."""

    def __init__(self, cluster: ClusterInfo, namespace: str, folder: Path) -> None:
        self.log = folder / "operator.log"
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(cluster.kubeconfig),
            "SERINUS_PROMETHEUS_URL": cluster.prometheus_local_url,
            "SERINUS_RUNTIME_IMAGE": "serinus-runtime:dev",
            "SERINUS_WATCH_NAMESPACES": namespace,
            "SERINUS_LEASE_NAMESPACE": "default",
            "SERINUS_LEASE_NAME": f"serinus-{namespace}",
            "SERINUS_LEASE_DURATION": LEASE,
            "SERINUS_TICK": "1s",
            "SERINUS_HTTP_PORT": "0",
            "SERINUS_LOG_FORMAT": "text",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self.starts = 0
        self.crashes: list[int] = []
        """Exit codes of those that ended by themselves and did not say that they had lost their lease."""

    def start(self) -> None:
        with self._turn:
            self._spawn()
        self.starts += 1

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "serinus"], env=self._environment, stdout=log, stderr=log)
        self._process = process
        threading.Thread(target=self._look_after, args=(process,), daemon=True).start()

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        """Starts it again as the kubelet would: on a slow machine it may fail to renew its short lease, and ends."""
        code = process.wait()
        if "leadership lost" not in self.log.read_text(errors="replace")[-3000:] and self._process is process:
            self.crashes.append(code)
        time.sleep(1)
        with self._turn:
            if self._process is process:
                self._spawn()

    def _taken(self) -> subprocess.Popen[bytes] | None:
        with self._turn:
            process, self._process = self._process, None
        return process

    def kill(self) -> None:
        """kill -9: nothing can be tidied up."""
        if process := self._taken():
            process.kill()
            process.wait()

    def stop(self) -> int:
        """SIGTERM, as Kubernetes does it; returns the exit code."""
        if (process := self._taken()) is None:
            return 0
        process.terminate()
        return process.wait(60)


@dataclass
class Load:
    """The demo's load generator as a process of its own."""

    cluster: ClusterInfo
    host: str
    out: Path
    rate: float
    seconds: float = 600.0
    timeout: float = 20.0
    seed: int = 7
    users: int = 0
    key: str = ""
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "fraud.load", "--url", self.cluster.gateway_url, "--host", self.host]
        command += ["--rate", str(self.rate), "--seconds", str(self.seconds), "--timeout", str(self.timeout)]
        command += ["--seed", str(self.seed), "--users", str(self.users), "--out", str(self.out)]
        command += ["--key", self.key] if self.key else []
        path = os.pathsep.join([str(ROOT / "examples" / "fraud-scoring")])
        self._process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> list[Record]:
        """Ends the load and returns every request."""
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None
        return read(self.out)


class Release:
    """One namespace with a model store, and what a user does to its ModelDeployment."""

    def __init__(self, cluster: ClusterInfo, namespace: str, models: dict[str, Built]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.models = models
        self.host = f"{namespace}.example.com"
        self._kubectl: list[str | Path] = [cluster.kubectl, "--kubeconfig", cluster.kubeconfig, "-n", namespace]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return output([*self._kubectl, *arguments], stdin=stdin)

    def without_other_operators(self) -> None:
        """A demo that was kept leaves an operator behind, which would work on this namespace too."""
        helm: list[str | Path] = [self.cluster.helm, "--kubeconfig", self.cluster.kubeconfig]
        output([*helm, "uninstall", "serinus", "--namespace", "serinus-system", "--ignore-not-found", "--wait"])

    def install_store(self) -> None:
        documents = store.manifests(self.models.values(), "serinus-runtime:dev")
        for document in documents:
            document["metadata"]["namespace"] = self.namespace
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(documents))
        self.kubectl("rollout", "status", f"deployment/{store.NAME}", "--timeout=300s")

    def apply(self, version: str, **changes: Any) -> None:
        """Applies a version's manifest with short steps; `changes` replaces fields of spec."""
        namespace, gateway = self.cluster.gateway
        built = self.models[version]
        # Versions that only tests have are written as the demo's second.
        written = built if version in VERSIONS else replace(built, version="v2")
        document = yaml.safe_load(store.model_deployment(written, gateway, namespace))
        model = document["spec"]["model"]
        model |= {"version": version, "uri": model["uri"].replace(f"/{written.version}/", f"/{version}/")}
        document["metadata"]["namespace"] = self.namespace
        spec = document["spec"]
        spec["model"]["uri"] = spec["model"]["uri"].replace(f".{store.NAMESPACE}.svc", f".{self.namespace}.svc")
        spec["route"]["hostnames"] = [self.host]
        spec["scaling"] = {"min": 2}
        spec["runtime"]["queue"] = {"maxLength": 512, "timeout": "10s"}
        spec["slo"] = {"p99": "2s", "errorRate": "0.1%"}
        spec["release"] = {
            "steps": [
                {"weight": 5, "hold": "3s", "minRequests": 10},
                {"weight": 50, "hold": "3s", "minRequests": 50},
            ],
            "rollbackWindow": "1h",
        }
        spec.update(changes)
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document))

    def get(self, kind: str, name: str = NAME) -> Object | None:
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    def status(self) -> Object:
        owner = self.get("mdep") or {}
        status: Object = owner.get("status", {})
        return status

    def wait(self, check: Callable[[Object], bool], timeout: float = 300) -> Object:
        """The status once `check` holds for it."""

        def look() -> Object:
            status = self.status()
            assert check(status), json.dumps(status, indent=1)
            return status

        try:
            return eventually(look, timeout, errors=(*SETTLING, ClusterError))
        except Exception as error:
            with contextlib.suppress(ClusterError):
                error.add_note(self.known())
            raise

    def wait_live(self, version: str, timeout: float = 300) -> Object:
        return self.wait(
            lambda s: s.get("live", {}).get("version") == version and "release" not in s and s.get("phase") == "Live",
            timeout,
        )

    def wait_ended(self, version: str, timeout: float = 300) -> Object:
        """The status once the release of `version` has ended, however."""
        return self.wait(lambda s: s.get("lastRelease", {}).get("version") == version and "release" not in s, timeout)

    def events(self) -> list[str]:
        found = json.loads(self.kubectl("get", "events", "-o", "json"))["items"]
        mine = [event for event in found if event.get("involvedObject", {}).get("kind") == "ModelDeployment"]
        return [event["reason"] for event in sorted(mine, key=lambda event: event["metadata"]["creationTimestamp"])]

    def watch(self) -> Watch:
        return watching(self.cluster, self.namespace, NAME)

    def known(self) -> str:
        """What a person would look at first: pods and the last events."""
        pods = self.kubectl("get", "pods", "-o", "wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        return "\n".join([pods, *events.splitlines()[-25:]])


def writes(audit_log: Path, namespace: str, since: float) -> list[str]:
    """Writes to a namespace since a moment, from the API server's audit log, other than what Kubernetes itself does."""
    found = []
    for line in audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry.get("objectRef", {}).get("namespace") != namespace or entry["stage"] != "ResponseComplete":
            continue
        if entry["verb"] not in ("create", "update", "patch", "delete", "deletecollection"):
            continue
        at = time.mktime(time.strptime(entry["requestReceivedTimestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        user = entry["user"]["username"]
        if at >= since and not user.startswith(("system:", "kube")):
            ref = entry["objectRef"]
            found.append(f"{entry['verb']} {ref['resource']}/{ref.get('name')} {ref.get('subresource', '')} by {user}")
    return found


def go_live(release: Release, load: Load, **changes: object) -> None:
    """v1 is live and users are being answered."""
    release.apply("v1", **changes)
    release.wait_live("v1")
    load.start()

    def served() -> None:
        assert any(not record.failed for record in read(load.out)), "no user was answered yet"

    eventually(served)


def failed(records: list[Record]) -> list[Record]:
    """Requests that got no answer of a model after the first that did: the route of a first version takes a moment."""
    first = next(i for i, record in enumerate(records) if not record.failed)
    return [record for record in records[first:] if record.failed]
