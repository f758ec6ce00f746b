"""Overload: five times what the server can do, for as long as asked, with rude clients beside the polite ones.

    python -m bench.runtime.overload [BENCH_MINUTES=60] [BENCH_FACTOR=5]

The model is the heavy one, one row at a time, so that a few hundred requests a second are all it can do and the load
costs little. Each minute prints what was accepted (and how late), what was refused (and how fast), how late the timers
of the measuring process were, and the memory of the server; the last line is for machines. The rude clients are those
of `bench.runtime.rude`. Everything stays on this machine, and ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bench.runtime import load, models
from bench.runtime.catalog import Peer
from bench.runtime.servers import CACHE, ROOT, Running, free_port

CONNECTIONS = 512
_SETTINGS = (
    ("SERINUS_BATCH_MAX_SIZE", "1"),
    ("SERINUS_QUEUE_MAX_LENGTH", "32"),
    ("SERINUS_QUEUE_TIMEOUT", "1s"),
    ("SERINUS_REQUEST_TIMEOUT", "5s"),
    ("SERINUS_PREDICTION_LOG", "LOGFILE"),
)
_WATCH_SECONDS = 0.005
_TITLES = "minute  accepted/s   p50 ms   p99 ms  refused/s   p50 ms   p99 ms  late p99   lost       MB  codes"
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}).*?content-length: *(\d+)", re.IGNORECASE | re.DOTALL)


@dataclass
class Minute:
    """What was seen in one minute. Latencies in seconds from when a request was due."""

    codes: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """By how much a timer of this process was late, in seconds."""
    lost: int = 0

    def add(self, code: int, seconds: float) -> None:
        """One answer."""
        self.codes[code] += 1
        (self.accepted if code == 200 else self.refused).append(seconds)


History = list[tuple[Minute, float]]
"""Per minute: what was seen, and the server's memory in MB."""


class _Client(asyncio.Protocol):
    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._data = b""
        self._due = 0.0
        self._sent = 0.0
        self._busy = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, payload: bytes) -> None:
        self._busy, self._sent = True, time.monotonic()
        self._transport.write(payload)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _HEAD.match(self._data[:end])
        assert found is not None, self._data[:200]
        if len(self._data) < end + 4 + int(found[2]):
            return
        self._data, self._busy = b"", False
        self._crowd.minute.add(int(found[1]), time.monotonic() - self._sent)
        self._crowd.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._crowd.minute.lost += 1
        with contextlib.suppress(ValueError):
            self._crowd.free.remove(self)
        self._crowd.missing += 1

    def abort(self) -> None:
        self._transport.abort()


class Crowd:
    """Polite clients that send by the clock, whatever the server does."""

    def __init__(self, port: int, payloads: list[bytes]) -> None:
        self._port = port
        self._payloads = payloads
        self.free: deque[_Client] = deque()
        self.minute = Minute()
        self.missing = CONNECTIONS
        self.skipped = 0
        """Requests that were due while every connection was waiting for an answer."""

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while self.missing:
            self.missing -= 1
            try:
                _, client = await loop.create_connection(lambda: _Client(self), "127.0.0.1", self._port)
            except OSError:
                self.missing += 1
                return
            self.free.append(client)

    async def run(self, rate: float, until: float) -> None:
        """`rate` requests a second until `until` on the monotonic clock."""
        await self._connect()
        number, start = 0, time.monotonic()
        while (now := time.monotonic()) < until:
            due = min(int((now - start) * rate) - number, 200)
            for _ in range(due):
                number += 1
                if self.free:
                    self.free.popleft().send(self._payloads[number % len(self._payloads)])
                else:
                    self.skipped += 1
            if self.missing:
                await self._connect()
            await asyncio.sleep(0.002)

    async def watch(self, until: float) -> None:
        """How late this process is itself: no latency is known better than that."""
        due = time.monotonic() + _WATCH_SECONDS
        while due < until:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            self.minute.late.append(max(time.monotonic() - due, 0.0))
            due = max(due, time.monotonic()) + _WATCH_SECONDS


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3 if ordered else 0.0


def _row(number: int, minute: Minute, seconds: float, memory: float) -> str:
    return (
        f"{number:4d}  {len(minute.accepted) / seconds:8.0f}  {_percentile(minute.accepted, 0.5):7.1f}"
        f"  {_percentile(minute.accepted, 0.99):7.1f}  {len(minute.refused) / seconds:8.0f}"
        f"  {_percentile(minute.refused, 0.5):7.2f}  {_percentile(minute.refused, 0.99):7.2f}"
        f"  {_percentile(minute.late, 0.99):8.2f}  {minute.lost:5d}  {memory:7.1f}"
        f"  {dict(sorted(minute.codes.items()))}"
    )


async def _drive(server: Running, port: int, payloads: list[bytes], rate: float, minutes: float) -> History:
    until = time.monotonic() + minutes * 60
    crowd = Crowd(port, payloads)
    rude = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.runtime.rude", str(port), str(minutes * 60)
    )
    tasks = [asyncio.create_task(crowd.run(rate, until)), asyncio.create_task(crowd.watch(until))]
    print(
        "minute  accepted/s   p50 ms   p99 ms  refused/s   p50 ms   p99 ms  late p99   lost       MB  codes", flush=True
    )
    history: History = []
    while time.monotonic() < until:
        begun = time.monotonic()
        crowd.minute = minute = Minute()
        await asyncio.sleep(min(60.0, until - begun))
        history.append((minute, server.memory()))
        print(_row(len(history), minute, time.monotonic() - begun, history[-1][1]), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with contextlib.suppress(ProcessLookupError):
        rude.terminate()
    await rude.wait()
    print(f"requests that found no free connection: {crowd.skipped}")
    return history


def picture(history: History, path: Path) -> None:
    """Memory and latencies by minute."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 5), sharex=True)
    minutes = range(1, len(history) + 1)
    above.plot(minutes, [_percentile(minute.accepted, 0.99) for minute, _ in history], label="accepted, p99 ms")
    above.plot(minutes, [_percentile(minute.refused, 0.99) for minute, _ in history], label="refused, p99 ms")
    above.set_yscale("log")
    above.legend(frameon=False)
    below.plot(minutes, [memory for _, memory in history], color="#2a6f97")
    below.set_ylim(bottom=0)
    below.set_ylabel("memory, MB")
    below.set_xlabel("minute")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> int:
    """Runs it; the last line is for machines."""
    minutes, factor = float(os.environ.get("BENCH_MINUTES") or 60), float(os.environ.get("BENCH_FACTOR") or 5)
    model = models.make("mlp", CACHE / "models" / "mlp")
    bodies = [
        json.dumps({"inputs": [{"name": "x", "shape": [1, models.FEATURES], "datatype": "FP32", "data": row}]}).encode()
        for row in models.rows(200)
    ]
    peer = Peer("serinus", "", "/v2/models/model/infer", settings=_SETTINGS)
    payloads = load.requests(peer.path, bodies)
    cores = sorted(os.sched_getaffinity(0))
    port = free_port()
    with Running(peer, model, port, cores[0], bodies[0]) as server:
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores[1:]))
        capacity = load.closed(port, payloads, 8, 5, cores[-1]).rate
        print(f"capacity {capacity:.0f} requests/s; offered {capacity * factor:.0f} for {minutes:g} min", flush=True)
        history = uvloop.run(_drive(server, port, payloads, capacity * factor, minutes))
    codes = sum((minute.codes for minute, _ in history), Counter[int]())
    accepted = [value for minute, _ in history for value in minute.accepted]
    refused = [value for minute, _ in history for value in minute.refused]
    late = [value for minute, _ in history for value in minute.late]
    memory = [value for _, value in history]
    settled = memory[min(2, len(memory) - 1) :]
    plot = ROOT / "build" / "bench" / "overload.png"
    picture(history, plot)
    print(f"plot: {plot.relative_to(ROOT)}")
    print(
        f"RESULT minutes={minutes:g} capacity={capacity:.0f} offered={capacity * factor:.0f} accepted={len(accepted)}"
        f" accepted_p99_ms={_percentile(accepted, 0.99):.1f} refused={len(refused)}"
        f" refused_p50_ms={_percentile(refused, 0.5):.2f} refused_p99_ms={_percentile(refused, 0.99):.2f}"
        f" measuring_late_p99_ms={_percentile(late, 0.99):.2f}"
        f" server_errors={sum(count for code, count in codes.items() if code >= 500)}"
        f" lost={sum(minute.lost for minute, _ in history)}"
        f" memory_first_mb={settled[0]:.1f} memory_last_mb={settled[-1]:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
