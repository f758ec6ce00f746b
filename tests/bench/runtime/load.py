"""Load on a server: a closed loop by wrk, an open loop of our own. This machine only, and bounded in time."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_GIVE_UP = 3.0
"""Seconds after the last request of an open loop at which what is not answered counts as failed."""


@dataclass(frozen=True)
class Outcome:
    """What a client saw. Latencies are in milliseconds; `failed` are answers other than 2xx, and none at all."""

    answered: int
    failed: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return self.answered / self.seconds


def requests(path: str, bodies: list[bytes], headers: Mapping[str, str] | None = None) -> list[bytes]:
    """The bytes on the wire, one per body."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {"Content-Type": "application/json"}).items())
    return [
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for body in bodies
    ]


def closed(port: int, payloads: list[bytes], connections: int, seconds: float, core: int | None) -> Outcome:
    """`connections` clients that send their next request when they have their answer."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "requests.lua"
        lines = ["local all = {"]
        lines += [f"{_lua(payload)}," for payload in payloads]
        lines += ["}", "local at = 0", "request = function() at = at % #all + 1; return all[at] end"]
        lines += [
            "done = function(s, latency, r)",
            "  local e = s.errors",
            '  io.write(string.format("\\nOUTCOME %d %d %f %f %f\\n", s.requests, '
            "e.connect + e.read + e.write + e.status + e.timeout, s.duration / 1e6, "
            "latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))",
            "end",
        ]
        script.write_text("\n".join(lines))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "5s",
            "-s",
            str(script),
        ]
        command.append(f"http://127.0.0.1:{port}/")
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        text = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True).stdout
    found = re.search(r"OUTCOME (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+)", text)
    if found is None:
        raise RuntimeError(f"wrk said something unknown: {text}")
    total, failed = int(found[1]), int(found[2])
    return Outcome(max(total - failed, 0), failed, float(found[3]), float(found[4]), float(found[5]))


def _lua(payload: bytes) -> str:
    return (
        '"'
        + "".join(f"\\{byte:03d}" if byte < 32 or byte > 126 or byte in b'"\\' else chr(byte) for byte in payload)
        + '"'
    )


class _Connection(asyncio.Protocol):
    """One keep-alive connection that carries one request at a time."""

    def __init__(self, loop: _OpenLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self.intended: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, payload: bytes, intended: float) -> None:
        """Sends a request that should have left at `intended` (time.monotonic)."""
        assert self._transport is not None
        self.intended = intended
        self._transport.write(payload)

    def abort(self) -> None:
        """Drops the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._data[:head].lower()
        found = re.search(rb"content-length: *(\d+)", lower)
        if found is not None:
            if len(self._data) < head + 4 + int(found[1]):
                return
        elif not self._data.endswith(b"0\r\n\r\n"):
            return
        good = lower[9:10] == b"2"
        self._data = b""
        self._loop.answered(self, good)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.lost(self)


class _OpenLoop:
    def __init__(self, address: str, port: int, connections: int) -> None:
        self._address = address
        self._port = port
        self._limit = connections
        self._free: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self.latencies: list[float] = []
        self.failed = 0
        self.lag = 0.0

    async def run(self, payloads: list[bytes], rate: float, seconds: float) -> int:
        """Sends by the clock; returns how many requests were due."""
        loop = asyncio.get_running_loop()
        for _ in range(self._limit):
            _, connection = await loop.create_connection(lambda: _Connection(self), self._address, self._port)
            self._all.add(connection)
            self._free.append(connection)
        start, total = time.monotonic() + 0.05, int(rate * seconds)
        for number in range(total):
            due = start + number / rate
            while (wait := due - time.monotonic()) > 0:  # noqa: ASYNC110 - time is what is waited for
                # The timer's own resolution is a millisecond: the last stretch is spent asking.
                await asyncio.sleep(wait - 0.001 if wait > 0.0015 else 0)
            self.lag = max(self.lag, -wait)
            self._send(payloads[number % len(payloads)], due)
            if wait < -0.001:
                await asyncio.sleep(0)
        until = time.monotonic() + _GIVE_UP
        while len(self.latencies) + self.failed < total and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for connection in list(self._all):
            connection.abort()
        return total

    def _send(self, payload: bytes, due: float) -> None:
        if self._free:
            self._free.pop().send(payload, due)
        else:
            self._waiting.append((payload, due))

    def answered(self, connection: _Connection, good: bool) -> None:
        if connection.intended is None:
            return
        if good:
            self.latencies.append(time.monotonic() - connection.intended)
        else:
            self.failed += 1
        connection.intended = None
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection.intended is not None:
            connection.intended = None
            self.failed += 1
        elif connection in self._free:
            self._free.remove(connection)


def open_loop(
    port: int, payloads: list[bytes], rate: float, seconds: float, core: int | None, address: str = "127.0.0.1"
) -> Outcome:
    """`rate` requests per second by the clock, however long answers take; latency counts from when each was due."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        load = _OpenLoop(address, port, 128)
        total = asyncio.run(load.run(payloads, rate, seconds))
    finally:
        os.sched_setaffinity(0, before)
    latencies = sorted(load.latencies)
    lost = total - len(latencies)
    # What was never answered took for ever, as far as a percentile is concerned.
    ranked = latencies + [_GIVE_UP] * lost
    return Outcome(
        len(latencies),
        lost,
        seconds,
        ranked[len(ranked) // 2] * 1e3,
        ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] * 1e3,
    )
