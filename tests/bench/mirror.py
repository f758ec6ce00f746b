"""The live path with and without a mirror: a real Envoy, two real model servers, a real joiner, no cluster.

    python -m bench.mirror [--rate 200] [--seconds 8] [--percent 50]

Envoy gets a static configuration as a gateway would make it from an HTTPRoute with RequestMirror. Requests leave at a
steady rate on kept connections; p50 and p99 of what users see are printed for a run without and one with the mirror,
not judged: on a busy machine they say little. Ends with 1 where a user's request fails, a mirrored request is not
joined, or the joiner finds the same model disagreeing with itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from cluster import node_images
from unit.runtime.support import scorer_model

CONNECTIONS = 16
FILTERS = "type.googleapis.com/envoy.extensions.filters"
COPIES = "serinus_mirrored_requests_total"
Config = dict[str, Any]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def upstream(name: str, port: int) -> Config:
    """A cluster of one address."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def envoy_config(port: int, live: int, candidate: int, percent: int) -> Config:
    """One listener in front of the live server; `percent` of its requests go to the candidate as well."""
    action: Config = {"cluster": "live", "timeout": "10s"}
    if percent:
        share = {"default_value": {"numerator": percent, "denominator": "HUNDRED"}}
        action["request_mirror_policies"] = [{"cluster": "candidate", "runtime_fraction": share}]
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "users",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [upstream("live", live), upstream("candidate", candidate)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def spawn(command: list[str], **settings: str) -> tuple[subprocess.Popen[str], Config]:
    """A process of the runtime, and the first line of its log."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERINUS_")}
    environment = {**kept, "SERINUS_HOST": "127.0.0.1", "SERINUS_METRICS_PORT": "0", **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", "serinus_runtime", *command], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    return process, json.loads(process.stderr.readline())


def server(directory: Path, revision: str) -> tuple[subprocess.Popen[str], int, int]:
    """A model server that is ready: the process, its ports for users and for metrics."""
    settings = {"SERINUS_HTTP_PORT": "0", "SERINUS_GRPC_PORT": "off", "SERINUS_REVISION": revision}
    process, first = spawn(["serve", str(directory)], SERINUS_DRAIN_DELAY="0s", **settings)
    assert process.stderr is not None
    while json.loads(process.stderr.readline())["msg"] != "ready":
        pass
    return process, int(first["http_port"]), int(first["metrics_port"])


async def users(port: int, rate: float, seconds: float) -> tuple[list[float], int]:
    """Latencies in milliseconds of requests that were meant to leave at a steady rate, and how many failed."""
    latencies: list[float] = []
    failed = 0
    began = time.monotonic()

    async def one(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at, draw = number / rate, random.Random(number)
        while at < seconds:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            tensors = [
                {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [draw.random(), 0.0, 0.0]},
                {"name": "category", "shape": [1, 1], "datatype": "BYTES", "data": ["toys"]},
            ]
            body = json.dumps({"inputs": tensors}).encode()
            head = f"POST /v2/models/model/infer HTTP/1.1\r\nhost: users\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(int(line[15:]) for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            latencies.append((time.monotonic() - began - at) * 1e3)
            failed += not answer.startswith(b"http/1.1 200")
            at += CONNECTIONS / rate
        writer.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return sorted(latencies), failed


def through_envoy(
    folder: Path, live: int, candidate: int, percent: int, rate: float, seconds: float
) -> tuple[int, float]:
    """One run; prints what users saw. How many of them failed, and their p99 in ms."""
    port = free_port()
    config = folder / f"envoy-{percent}.json"
    config.write_text(json.dumps(envoy_config(port, live, candidate, percent)))
    command = [str(node_images.envoy_binary()), "-c", str(config), "--concurrency", "1", "--log-level", "error"]
    with subprocess.Popen([*command, "--base-id", str(os.getpid() % 30000 + percent)]) as envoy:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            latencies, failed = asyncio.run(users(port, rate, seconds))
        finally:
            envoy.terminate()
    p50, p99 = (latencies[int(len(latencies) * q)] for q in (0.5, 0.99))
    print(f"mirrored {percent:3}%: {len(latencies)} requests, {failed} failed, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return failed, p99


def report(port: int) -> Config:
    with urlopen(f"http://127.0.0.1:{port}/report", timeout=10) as answer:
        found: Config = json.load(answer)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description="What a mirror costs those who are mirrored.")
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--percent", type=int, default=50)
    options = parser.parse_args()
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = scorer_model(folder / "model")
        try:
            live, live_port, live_tap = server(model, "a")
            processes.append(live)
            candidate, candidate_port, candidate_tap = server(model, "b")
            processes.append(candidate)
            failed, alone = through_envoy(folder, live_port, candidate_port, 0, options.rate, options.seconds)
            pods = f"127.0.0.1:{live_tap},127.0.0.1:{candidate_tap}"
            joiner, first = spawn(["join"], SERINUS_JOIN_LIVE="a", SERINUS_JOIN_CANDIDATE="b", SERINUS_JOIN_PODS=pods)
            processes.append(joiner)
            port = int(first["metrics_port"])
            while set(report(port)["pods"].values()) != {1}:
                time.sleep(0.1)
            more, mirrored = through_envoy(
                folder, live_port, candidate_port, options.percent, options.rate, options.seconds
            )
            failed += more
            with urlopen(f"http://127.0.0.1:{candidate_tap}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            copies = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(COPIES))
            until = time.monotonic() + 15
            while (found := report(port))["pairs"] < copies and time.monotonic() < until:
                time.sleep(0.2)
        finally:
            for process in processes:
                process.terminate()
                process.wait(20)
    told = {key: found[key] for key in ("pairs", "outcomes", "unpaired", "psi", "ks", "latencyRatio")}
    print(json.dumps(told))
    good = failed == 0 and copies > 0 and found["pairs"] == copies and found["outcomes"]["agreed"] == found["pairs"]
    figures = f"joined={found['pairs']} copies={copies:.0f} failed={failed}"
    print(f"RESULT ok={int(good)} {figures} p99_ms_without={alone:.2f} p99_ms_with={mirrored:.2f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
