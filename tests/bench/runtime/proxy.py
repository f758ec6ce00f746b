"""What it costs to have an engine behind the front: direct, through the front, and through one made with aiohttp.

    python -m bench.runtime.proxy        [BENCH_SECONDS=3] [BENCH_ROUNDS=2]

The engine answers at once with 110 bytes of JSON and shares a core with the load; the front has the other core, and is
compiled as it is in the image. `crossing` is a second engine on the front's core, asked directly: what it takes to wake
the other core, front or not. Each runs while it is measured, and no longer.
`cpu` is the front's CPU per request in microseconds. Everything stays on this machine, and ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.runtime import load
from bench.runtime.servers import free_port
from cluster import wheel

_PARTS = Path(__file__).parent / "proxy_parts.py"
_TICKS = os.sysconf("SC_CLK_TCK")
CONNECTIONS = (1, 16, 64)
PATH = "/v2/models/m/infer"
BODY = b'{"inputs":[{"name":"x","shape":[1,30],"datatype":"FP32","data":[' + b",".join([b"0.123456"] * 30) + b"]}]}"


@contextmanager
def _running(command: list[str], port: int, core: int | None, **environment: str) -> Iterator[int]:
    """A process that answers on `port`; its pid."""
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 20
        while True:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", BODY)
            with contextlib.suppress(OSError, urllib.error.HTTPError), urllib.request.urlopen(request, timeout=5):
                break
            if time.monotonic() > until or process.poll() is not None:
                sys.exit(f"it did not come up: {' '.join(command)}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> int:
    """Measures, prints a table; the last line is for machines."""
    seconds, rounds = float(os.environ.get("BENCH_SECONDS") or 3), int(os.environ.get("BENCH_ROUNDS") or 2)
    allowed = sorted(os.sched_getaffinity(0))
    front_core, load_core = (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)
    if load_core is None:
        print("only one core: all share it, and latencies say little")
    engine_port, front_port = free_port(), free_port()
    payloads = load.requests(PATH, [BODY])
    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    python = sys.executable
    front = {
        "PYTHONPATH": str(wheel.unpacked()),
        "SERINUS_ENGINE": "proxy",
        "SERINUS_PROXY_URL": f"http://127.0.0.1:{engine_port}",
        "SERINUS_HOST": "127.0.0.1",
        "SERINUS_HTTP_PORT": str(front_port),
        "SERINUS_METRICS_PORT": str(front_port + 1),
        "SERINUS_MODEL_DIR": "/nowhere/model",
        "SERINUS_DRAIN_DELAY": "0",
        "SERINUS_TERMINATION_LOG": os.devnull,
    }
    fronts = {
        "direct": ([python, str(_PARTS), "engine", str(front_port)], load_core, {}),
        "crossing": ([python, str(_PARTS), "engine", str(front_port)], front_core, {}),
        "serinus": ([python, "-m", "serinus_runtime", "serve"], front_core, front),
        "aiohttp": ([python, str(_PARTS), "aiohttp", str(front_port), str(engine_port)], front_core, {}),
    }
    with _running([python, str(_PARTS), "engine", str(engine_port)], engine_port, load_core):
        for _ in range(rounds):
            for name, (command, core, environment) in fronts.items():
                with _running(command, front_port, core, **environment) as pid:
                    for connections in CONNECTIONS:
                        before = _cpu(pid)
                        outcome = load.closed(front_port, payloads, connections, seconds, load_core)
                        figures = found[name, connections]
                        figures["rps"].append(outcome.rate)
                        figures["p50"].append(outcome.p50)
                        figures["p99"].append(outcome.p99)
                        figures["failed"].append(outcome.failed)
                        figures["cpu"].append((_cpu(pid) - before) / max(outcome.answered, 1) * 1e6)
    middle = {key: {name: statistics.median(values) for name, values in each.items()} for key, each in found.items()}
    print(f"{'':10}{'conns':>6}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'+p50':>8}{'+p99':>8}{'CPU us':>8}{'failed':>8}")
    result = []
    for (name, connections), told in middle.items():
        direct = middle["direct", connections]
        more50, more99 = told["p50"] - direct["p50"], told["p99"] - direct["p99"]
        print(
            f"{name:10}{connections:6}{told['rps']:9,.0f}{told['p50']:9.2f}{told['p99']:9.2f}{more50:8.2f}"
            f"{more99:8.2f}{told['cpu']:8.1f}{told['failed']:8.0f}"
        )
        if name != "direct":
            result += [f"{name}_cpu{connections}={told['cpu']:.1f}", f"{name}_added_p99_{connections}={more99:.2f}"]
            result.append(f"{name}_added_p50_{connections}={more50:.2f}")
    print("RESULT", *result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
