"""What the operator costs at rest: CPU, memory, reads and writes with 1 and with 200 settled ModelDeployments.

    make bench-operator [SETTLED=200] [SECONDS_AT_REST=120]

The operator runs against a real API server. What controllers, kubelets and gateways would answer - ready Deployments,
an accepted route - is written into the objects' status by this program, since 400 model pods do not fit on a laptop;
everything the operator itself does is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

import cluster as clusters
from cluster import ClusterInfo
from cluster.commands import output
from support.eventually import eventually

ROOT = Path(__file__).parents[2]
NAMESPACE = "bench-operator"
TICKS = os.sysconf("SC_CLK_TCK")
Object = dict[str, Any]


class Bench:
    """One API server and one operator process."""

    def __init__(self, info: ClusterInfo, folder: Path) -> None:
        self._info = info
        self._kubectl: list[str | Path] = [info.kubectl, "--kubeconfig", info.kubeconfig]
        self._log = (folder / "operator.log").open("wb")
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(info.kubeconfig),
            # Nobody answers there: the evidence loop does its work, and holds.
            "SERINUS_PROMETHEUS_URL": "http://127.0.0.1:9",
            "SERINUS_LEASE_NAMESPACE": "default",
            "SERINUS_LEASE_NAME": "serinus-bench",
            "SERINUS_HTTP_PORT": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serinus"], env=environment, stdout=self._log, stderr=self._log
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return output([*self._kubectl, *arguments], stdin=stdin)

    def items(self, kind: str) -> list[Object]:
        found: list[Object] = json.loads(self.kubectl("-n", NAMESPACE, "get", kind, "-o", "json"))["items"]
        return found

    def declare(self, first: int, last: int) -> None:
        """ModelDeployments number `first` up to `last`."""
        documents = [
            {
                "apiVersion": "serving.serinus.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": f"model-{number:03d}", "namespace": NAMESPACE},
                "spec": {
                    "model": {"version": "v1", "uri": "http://store/v1/", "digest": f"sha256:{number:064x}"},
                    "route": {"parentRefs": [{"name": "public"}]},
                },
            }
            for number in range(first, last)
        ]
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def play_cluster(self) -> None:
        """Answers as controllers and a gateway would, until every ModelDeployment is live."""
        for deployment in self.items("deployments"):
            if deployment.get("status", {}).get("readyReplicas"):
                continue
            replicas = deployment["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "readyReplicas", "availableReplicas", "updatedReplicas"), replicas)
            counts["observedGeneration"] = deployment["metadata"]["generation"]
            self._set_status("deployments", deployment, counts)
        for route in self.items("httproutes"):
            generation = route["metadata"]["generation"]
            parents = route.get("status", {}).get("parents", [])
            if parents and parents[0]["conditions"][0]["observedGeneration"] == generation:
                continue
            conditions = [
                {
                    "type": kind,
                    "status": "True",
                    "reason": "Accepted",
                    "message": "",
                    "observedGeneration": generation,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
                for kind in ("Accepted", "ResolvedRefs")
            ]
            answer = {"parentRef": {"name": "public"}, "controllerName": "bench.dev/gateway", "conditions": conditions}
            self._set_status("httproutes", route, {"parents": [answer]})

    def _set_status(self, kind: str, obj: Object, status: Object) -> None:
        name = obj["metadata"]["name"]
        patch = json.dumps({"status": status})
        self.kubectl("-n", NAMESPACE, "patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)

    def settle(self, count: int) -> float:
        """Waits until `count` are live; returns the seconds that took."""
        started = time.monotonic()

        def look() -> None:
            self.play_cluster()
            phases = Counter(item.get("status", {}).get("phase") for item in self.items("modeldeployments"))
            print(f"  {dict(phases)}", file=sys.stderr)
            assert phases == {"Live": count}

        eventually(look, 900, interval=1)
        return time.monotonic() - started

    def cpu(self) -> float:
        """CPU seconds of the operator so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Resident set in MiB."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def versions(self) -> dict[str, str]:
        """Resource version by object: any write changes one."""
        kinds = "modeldeployments,deployments,services,httproutes,controllerrevisions,poddisruptionbudgets,events"
        return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in self.items(kinds)}

    def rest(self, seconds: float) -> tuple[float, int]:
        """Share of one core and writes per minute over some seconds in which nothing happens."""
        before, cpu, started = self.versions(), self.cpu(), time.monotonic()
        time.sleep(seconds)
        used, wall = self.cpu() - cpu, time.monotonic() - started
        after = self.versions()
        written = sum(after[uid] != before.get(uid) for uid in after) + len(before.keys() - after.keys())
        return used / wall, round(written * 60 / wall)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def gateway_api(info: ClusterInfo) -> Path:
    """The Gateway API's CRDs, from the Envoy Gateway module that the node provider builds from."""
    module = ROOT / "tests" / "cluster" / "tools" / "envoy-gateway"
    folder = output(["go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/gateway"], cwd=module).strip()
    return next(Path(folder).glob("charts/**/gatewayapi-crds.yaml"))


def main() -> None:
    """Prints the table."""
    count, seconds = int(os.environ.get("SETTLED", "200")), float(os.environ.get("SECONDS_AT_REST", "120"))
    provider = clusters.get("apiserver")
    info = provider.start()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kubectl: list[str | Path] = [info.kubectl, "--kubeconfig", info.kubeconfig]
        for path in (ROOT / "crds", gateway_api(info)):
            output([*kubectl, "apply", "--server-side", "-f", str(path)])
        output([*kubectl, "create", "namespace", NAMESPACE])
        bench = Bench(info, Path(folder))
        try:
            done = 0
            for target in (1, count):
                bench.declare(done, target)
                took = bench.settle(target)
                done = target
                load, writes = bench.rest(seconds)
                rows.append((target, took, 100 * load, writes, bench.memory()))
        finally:
            bench.stop()
            provider.stop()
    print(f"{'settled':>8} {'to settle s':>12} {'CPU % of a core':>16} {'writes/min':>11} {'memory MiB':>11}")
    for target, took, load, writes, memory in rows:
        print(f"{target:>8} {took:>12.1f} {load:>16.2f} {writes:>11} {memory:>11.0f}")
    pairs = [
        f"cpu_percent_{target}={load:.2f} writes_per_minute_{target}={writes} memory_mib_{target}={memory:.0f}"
        for target, _, load, writes, memory in rows
    ]
    print("RESULT", *pairs)


if __name__ == "__main__":
    main()
