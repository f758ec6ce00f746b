"""How large the runtime is and how fast it starts: `python -m bench.runtime.footprint [MODEL_DIR]`.

Best of a few starts: time from the process' start to an answer on the port, to ready, processor time until ready, and
memory of the idle process (RSS, and PSS, which counts shared pages once). The size of the image is read from the newest
archive in the cache, if there is one. Ends with a RESULT line.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from cluster.paths import REPOSITORY, cache

ROUNDS = 5
_MODULES = (
    "serinus_runtime.server", "numpy", "onnxruntime", "prometheus_client", "msgspec", "uvloop", "google.protobuf",
    "serinus_runtime.drift.monitor", "serinus_runtime.sinks.opening",
)  # fmt: skip
"""Each alone: what they share is counted with each."""
_LIMIT = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


def image_bytes() -> int | None:
    """Bytes of the newest archive of the runtime image."""
    found = sorted((cache() / "images").glob("runtime-*.tar"), key=lambda path: path.stat().st_mtime)
    return found[-1].stat().st_size if found else None


def start(directory: Path) -> dict[str, float]:
    """Starts a server for `directory`, and ends it: seconds to the first answer and to ready, and memory in MiB."""
    port = _free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SERINUS_")},
        "PYTHONPATH": str(REPOSITORY / "runtime-image"), "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "SERINUS_HOST": "127.0.0.1", "SERINUS_HTTP_PORT": str(port),
        "SERINUS_METRICS_PORT": "0", "SERINUS_GRPC_PORT": "0", "SERINUS_DRAIN_DELAY": "0s",
    }  # fmt: skip
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "serinus_runtime", "serve", "--model-dir", str(directory)]
    began = time.monotonic()
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            found = {"answers": _until(port, b"/v2/health/live", process) - began}
            found["ready"] = _until(port, b"/v2/health/ready", process) - began
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            found["cpu"] = (int(fields[11]) + int(fields[12])) / _TICKS
            time.sleep(1.0)
            memory = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            for name in ("Rss", "Pss"):
                told = re.search(rf"^{name}:\s+(\d+) kB", memory, re.MULTILINE)
                assert told is not None
                found[name.lower()] = int(told[1]) / 1024
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_LIMIT)
    return found


def _until(port: int, path: bytes, process: subprocess.Popen[bytes]) -> float:
    limit = time.monotonic() + _LIMIT
    while time.monotonic() < limit:
        assert process.poll() is None, "the server ended: start it by hand to see why"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return time.monotonic()
        except OSError:
            pass
        time.sleep(0.002)
    raise TimeoutError(f"{path.decode()} was not answered with 200 in {_LIMIT:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def imports() -> list[tuple[str, float]]:
    """Processor milliseconds that a Python needs to import each of `_MODULES` beyond starting: the least of a few."""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY / "runtime-image")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)

    def cost(code: str) -> float:
        told = []
        for _ in range(ROUNDS):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], env=environ, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            told.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(told) * 1e3

    empty = cost("pass")
    return [("(python itself)", empty), *((name, cost(f"import {name}") - empty) for name in _MODULES)]


def best(rounds: list[Mapping[str, float]]) -> dict[str, float]:
    """The least of each figure."""
    return {name: round(min(each[name] for each in rounds), 3) for name in rounds[0]}


def main() -> None:
    """Measures and prints."""
    if len(sys.argv) > 1:
        result = best([start(Path(sys.argv[1])) for _ in range(ROUNDS)])
    else:
        sys.path.insert(0, str(REPOSITORY / "tests"))
        from unit.runtime.support import sum_model

        with tempfile.TemporaryDirectory() as made:
            model = sum_model(Path(made) / "m")
            result = best([start(model) for _ in range(ROUNDS)])
    size = image_bytes()
    print(
        f"image            {size / 1e6:.0f} MB, not compressed" if size else "image            no archive in the cache"
    )
    print(f"first answer     {result['answers'] * 1e3:.0f} ms after the process began")
    print(f"ready            {result['ready'] * 1e3:.0f} ms, {result['cpu'] * 1e3:.0f} ms of processor time")
    print(f"idle             {result['rss']:.1f} MiB RSS, {result['pss']:.1f} MiB PSS")
    for name, milliseconds in imports():
        print(f"import           {milliseconds:4.0f} ms of processor time  {name}")
    print("RESULT", *(f"{name}={value}" for name, value in {"image": size, **result}.items()))


if __name__ == "__main__":
    main()
