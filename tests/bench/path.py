"""The whole path on a real node: client, gateway, two replicas of the bundled runtime with all features, and back.

    make bench-path [BENCH_RATES=200,400,800] [BENCH_SECONDS=15] [BENCH_ROUNDS=2]

An open loop: latency counts from when a request was due. `pod` goes to one replica without the gateway. Everything -
API server, kubelet, gateway, Prometheus, operator, both replicas and the client - shares this machine's cores.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import cluster as clusters
from bench.runtime import load
from cluster import ClusterInfo
from fraud.load import Plan, bodies, local_address, request
from support.faults import built
from support.releases import NAME, Operator, Release

NAMESPACE = "bench-path"
PORT = 8080
ROOT = Path(__file__).parents[2]


def _addresses(release: Release) -> list[str]:
    """Of the pods that are ready."""
    pods = json.loads(release.kubectl("get", "pods", "-l", f"serving.serinus.dev/deployment={NAME}", "-o", "json"))
    return [
        pod["status"]["podIP"]
        for pod in pods["items"]
        if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"]["conditions"])
    ]


def _measure(info: ClusterInfo, release: Release, rates: list[float], seconds: float, rounds: int) -> int:
    host, port = local_address(info.gateway_url, allow_remote=False)
    pods = _addresses(release)
    plan = Plan(info.gateway_url, Path(os.devnull), host=release.host)
    payloads = [request(plan, body, keep=True) for body in bodies(1, 500, seed=7)]
    found: dict[tuple[str, float], list[load.Outcome]] = defaultdict(list)
    for _ in range(rounds):
        for rate in rates:
            for name, address, at in (("pod", pods[0], PORT), ("gateway", host, port)):
                outcome = load.open_loop(at, payloads, rate, seconds, None, address)
                found[name, rate].append(outcome)
                print(f"{name:8} {rate:5.0f}/s: p50 {outcome.p50:.2f}, p99 {outcome.p99:.2f} ms", flush=True)
    print(
        f"\n{len(pods)} replicas ready\n{'':8}{'offered/s':>10}{'answered':>10}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}"
    )
    result = [f"replicas={len(pods)}"]
    for (name, rate), outcomes in found.items():
        p50, p99 = (statistics.median(each) for each in ([o.p50 for o in outcomes], [o.p99 for o in outcomes]))
        failed = sum(each.failed for each in outcomes)
        answered = sum(each.answered for each in outcomes)
        print(f"{name:8}{rate:10.0f}{answered:10}{failed:8}{p50:9.2f}{p99:9.2f}")
        result += [f"{name}_p99_ms_{rate:.0f}={p99:.2f}", f"{name}_failed_{rate:.0f}={failed}"]
    print("RESULT", *result)
    return 0


def main() -> int:
    """Measures, prints a table; the last line is for machines."""
    rates = [float(rate) for rate in (os.environ.get("BENCH_RATES") or "200,400,800").split(",")]
    seconds, rounds = float(os.environ.get("BENCH_SECONDS") or 15), int(os.environ.get("BENCH_ROUNDS") or 2)
    provider = clusters.get()
    info = provider.start()
    provider.load_image(provider.build_image("runtime"))
    release = Release(info, NAMESPACE, built())
    release.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    release.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    release.kubectl("create", "namespace", NAMESPACE)
    with tempfile.TemporaryDirectory() as folder:
        operator = Operator(info, NAMESPACE, Path(folder))
        try:
            release.without_other_operators()
            release.install_store()
            operator.start()
            queue = {"maxLength": 512, "timeout": "10s"}
            release.apply("v1", runtime={"queue": queue, "predictionLog": {"target": "Stdout"}})
            release.wait_live("v1")
            return _measure(info, release, rates, seconds, rounds)
        finally:
            operator.stop()
            release.kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


if __name__ == "__main__":
    sys.exit(main())
