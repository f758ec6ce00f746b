"""gRPC: the runtime beside its peers, same model, same request, one server at a time on core 0, load on core 1.

    make bench-grpc [BENCH_PEERS=serinus,grpc-aio] [BENCH_SECONDS=3] [BENCH_ROUNDS=2]

The load is h2load's: one ModelInfer with a raw tensor of one row, over and over. One row repeated is kind to a tree
model, and to all servers alike. h2load looks at HTTP's status only, so the server is asked by a gRPC client before and
after, and the runtime's own counters must show no failure.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.runtime import models
from bench.runtime.__main__ import reference
from bench.runtime.catalog import Peer
from bench.runtime.servers import CACHE, Running, UnavailableError, free_port

METHOD = "/inference.GRPCInferenceService/ModelInfer"
SCENARIOS = {"rps1": (1, 1), "rps64": (64, 1), "streams64": (1, 64)}
"""By figure: connections, and calls under way on each."""
_ORT = ("onnxruntime>=1.26", "numpy>=2,<3", "tritonclient>=2.60,<2.70", "grpcio", "protobuf")
Figures = dict[str, float]


@dataclass(frozen=True)
class GrpcPeer:
    """A server, and how far its gRPC port is from the one that it is started with."""

    peer: Peer
    offset: int = 0


PEERS = {
    "serinus": GrpcPeer(Peer("serinus", "", ""), 2),
    "serinus-log": GrpcPeer(Peer("serinus-log", "", "", settings=(("SERINUS_PREDICTION_LOG", "LOGFILE"),)), 2),
    "grpc-sync": GrpcPeer(Peer("grpc-sync", "grpc_sync_app.py", "")),
    "grpc-aio": GrpcPeer(Peer("grpc-aio", "grpc_aio_app.py", "")),
    "grpclib": GrpcPeer(Peer("grpclib", "grpclib_app.py", "", ("grpclib>=0.4.8", "uvloop", *_ORT))),
    "pytriton": GrpcPeer(
        Peer(
            "pytriton", "pytriton_app.py", "", ("nvidia-pytriton>=0.7", "onnxruntime"), interpreter="/usr/bin/python3"
        ),
        1,
    ),
}


def request() -> bytes:
    """A ModelInferRequest with one row."""
    from serinus_runtime.grpc.schema import message_class

    made = message_class("inference.ModelInferRequest")(model_name="model", id="1")
    made.inputs.add(name="x", datatype="FP32", shape=[1, models.FEATURES])
    made.raw_input_contents.append(np.array(models.rows(1), dtype="<f4").tobytes())
    body: bytes = made.SerializeToString()
    return body


def ask(port: int) -> bytes:
    """One call by grpcio. Raises grpc.RpcError."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer: bytes = channel.unary_unary(METHOD)(request(), timeout=10)
    return answer


class GrpcRunning(Running):
    """A server that is ready when it answers over gRPC."""

    def __init__(self, peer: GrpcPeer, model: Path, port: int, core: int | None) -> None:
        self.grpc_port = port + peer.offset
        settings = (*peer.peer.settings, ("SERINUS_GRPC_PORT", str(self.grpc_port)))
        super().__init__(replace(peer.peer, settings=settings), model, port, core, b"")

    def _wait(self) -> None:
        import grpc

        until = time.monotonic() + self._peer.seconds_to_start
        last = "no answer"
        while time.monotonic() < until and self._process.poll() is None:
            try:
                ask(self.grpc_port)
            except grpc.RpcError as error:
                last = str(error).replace("\n", " ")[:200]
                time.sleep(0.1)
            else:
                return
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        raise UnavailableError(f"it did not come up: {last}; {' | '.join(lines[-2:])[:300]}")


def closed(port: int, connections: int, calls: int, seconds: float, core: int | None) -> tuple[int, float, list[float]]:
    """A closed loop by h2load: how many calls were answered, how many per second, their times in ms. Raises."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        message = request()
        body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = ["h2load", "-D", f"{seconds:g}", "-c", str(connections), "-m", str(calls), "-t", "1", "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log}"]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{METHOD}"], capture_output=True, text=True, check=True, timeout=120
        )
        found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
        if found is None or int(found[2]) + int(found[3]) + int(found[4]):
            raise UnavailableError(f"h2load: {done.stdout[-300:]} {done.stderr[-300:]}")
        times = [int(line.split()[2]) / 1e3 for line in log.read_text().splitlines()]
    answered = int(found[1])
    return answered, answered / seconds, sorted(times)


def measure(peer: GrpcPeer, model: Path, seconds: float, cores: tuple[int | None, int | None]) -> Figures:
    """One round of one peer. Raises UnavailableError."""
    found: Figures = {}
    port = free_port()
    server = GrpcRunning(peer, model, port, cores[0])
    with server:
        ours = peer.peer.name.startswith("serinus")
        failed_before = _failures(port + 1) if ours else 0.0
        closed(server.grpc_port, 16, 1, 1, cores[1])
        for name, (connections, calls) in SCENARIOS.items():
            before = server.cpu()
            answered, rate, times = closed(server.grpc_port, connections, calls, seconds, cores[1])
            found[name] = rate
            found[f"cpu_{name}"] = (server.cpu() - before) / max(answered, 1) * 1e6
            found[f"p99_{name}"] = times[int(len(times) * 0.99)] if times else 0.0
        ask(server.grpc_port)
        found["mb"] = server.memory()
        if ours and (failed := _failures(port + 1) - failed_before):
            raise UnavailableError(f"{failed:.0f} requests failed")
    return found


def _failures(metrics_port: int) -> float:
    """Requests that the runtime has not answered with 200 so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counted = [line for line in text.splitlines() if line.startswith("serinus_requests_total{")]
    return sum(float(line.split()[-1]) for line in counted if 'code="200"' not in line)


def table(reference_us: float, results: dict[str, Figures]) -> str:
    """The figures, best first."""
    heads = [
        "",
        "1 conn req/s",
        "64 conns",
        "p99 ms",
        "CPU us/req",
        "ratio",
        "64 streams",
        "p99 ms",
        "CPU us/req",
        "MB",
    ]
    rows = [heads]
    for name, figures in sorted(results.items(), key=lambda item: -item[1]["rps64"]):
        cells = [
            f"{figures['rps1']:,.0f}",
            f"{figures['rps64']:,.0f}",
            f"{figures['p99_rps64']:.1f}",
            f"{figures['cpu_rps64']:,.0f}",
            f"{reference_us / figures['cpu_rps64']:.3f}",
            f"{figures['streams64']:,.0f}",
            f"{figures['p99_streams64']:.1f}",
            f"{figures['cpu_streams64']:,.0f}",
            f"{figures['mb']:,.0f}",
        ]
        rows.append([name, *cells])
    widths = [max(len(row[index]) for row in rows) for index in range(len(heads))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _h2load() -> None:
    if shutil.which("h2load"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "nghttp2-client"]
        subprocess.run(install, check=True, capture_output=True)
    else:
        sys.exit("h2load is needed; on Debian: apt-get install nghttp2-client")


def main() -> int:
    """Runs everything, prints the table; the last line is for machines."""
    _h2load()
    seconds, rounds = float(os.environ.get("BENCH_SECONDS") or 3), int(os.environ.get("BENCH_ROUNDS") or 2)
    wanted = (os.environ.get("BENCH_PEERS") or ",".join(PEERS)).split(",")
    if unknown := set(wanted) - PEERS.keys():
        sys.exit(f"unknown peers {sorted(unknown)}; there are {', '.join(PEERS)}")
    allowed = sorted(os.sched_getaffinity(0))
    cores = (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)
    model = models.make("trees", CACHE / "models" / "trees")
    gathered: dict[str, list[Figures]] = defaultdict(list)
    references: list[float] = []
    absent: dict[str, str] = {}
    for number in range(rounds):
        references.append(reference(model, cores[0]))
        for name in wanted:
            if name in absent:
                continue
            try:
                gathered[name].append(measure(PEERS[name], model, seconds, cores))
            except (UnavailableError, subprocess.SubprocessError, OSError) as error:
                absent[name] = str(error).splitlines()[0] if str(error) else repr(error)
                continue
            figures = gathered[name][-1]
            print(f"round {number + 1} {name}: {figures['rps64']:,.0f} req/s at 64", flush=True)
    reference_us = statistics.median(references)
    results = {
        name: {key: statistics.median(figures[key] for figures in rounds_) for key in rounds_[0]}
        for name, rounds_ in gathered.items()
        if rounds_
    }
    print(f"\ntrees over gRPC: ONNX Runtime in one process, one row per call: {reference_us:.1f} us")
    print(table(reference_us, results))
    for missing, reason in absent.items():
        print(f"not measured: {missing}: {reason}")
    result = {"grpc_reference_us": f"{reference_us:.1f}"}
    for name, figures in results.items():
        key = f"grpc_{name.replace('-', '_')}"
        result |= {
            f"{key}_{figure}": f"{figures[figure]:.1f}" for figure in ("rps1", "rps64", "streams64", "cpu_rps64")
        }
    print("RESULT", *(f"{key}={value}" for key, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
