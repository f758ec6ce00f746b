"""The load generator counts what happened: every request, every failure, every wait.

Generator and server share a loop whose clock stands still while they work, so latencies are what the server made of
them and not what the machine had to do besides.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fraud import load
from fraud.load import Generator, Plan
from fraud.records import Reader, Record, figures, parse, percentile, read, window
from support import virtualtime

Behaviour = Callable[[int], Awaitable[bytes | None]]


class Server:
    """An HTTP server that answers as told; None closes the connection without a word."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self.requests: list[dict[str, object]] = []
        self.connections = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.requests.append({"line": lines[0], "host": headers["host"], "body": body})
                answer = await self._behave(len(self.requests))
                if answer is None:
                    break
                writer.write(answer)
                if headers["connection"] == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ok(version: str = "v1", code: int = 200, *, close: bool = False) -> bytes:
    end = "Connection: close\r\n" if close else ""
    return (
        f"HTTP/1.1 {code} X\r\nContent-Length: 2\r\nX-Model-Version: {version}\r\n"
        f"X-Serinus-Revision: rev-{version}\r\n{end}\r\n{{}}"
    ).encode()


async def always_ok(_number: int) -> bytes:
    return ok()


async def go(behave: Behaviour, out: Path, **settings: object) -> tuple[list[Record], Server]:
    async with Server(behave) as server:
        values = {"rate": 400.0, "seconds": 1.0, "timeout": 0.5, **settings}
        plan = Plan(url=f"http://127.0.0.1:{server.port}", out=out, **values)  # type: ignore[arg-type]
        return await Generator(plan).run(), server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "requests.csv"


def test_every_request_is_sent_answered_and_written(out: Path) -> None:
    records, server = virtualtime.run(go(always_ok, out, arrivals="constant"))
    assert len(records) == len(server.requests) == 400
    assert read(out) == sorted_as_written(records)
    assert {(r.code, r.error, r.version, r.revision) for r in records} == {(200, "", "v1", "rev-v1")}
    spacing = [b - a for a, b in zip(*two_shifts(sorted(r.at for r in records)), strict=True)]
    assert max(spacing) == pytest.approx(1 / 400, abs=1e-5)


def test_poisson_arrivals_keep_the_rate_and_the_count_is_bounded(out: Path) -> None:
    records, _ = virtualtime.run(go(always_ok, out))
    assert 320 < len(records) < 480
    records, _ = virtualtime.run(go(always_ok, out, max_requests=25))
    assert len(records) == 25


def test_clients_are_mixed_and_reuse_connections_or_not(out: Path) -> None:
    records, server = virtualtime.run(go(always_ok, out, seconds=1.5))
    kinds = Counter(r.client for r in records)
    assert set(kinds) == {"keepalive", "reconnect", "batch4"}
    assert kinds["reconnect"] <= server.connections <= kinds["reconnect"] + 40
    rows = Counter(len(item["body"]["inputs"][1]["data"]) for item in server.requests)  # type: ignore[index]
    assert rows == {1: kinds["keepalive"] + kinds["reconnect"], 4: kinds["batch4"]}
    first = server.requests[0]
    assert first["line"] == "POST /v2/models/fraud-scorer/infer HTTP/1.1"
    assert first["host"] == "fraud.example.com"


def test_failures_are_counted_by_what_they_are(out: Path) -> None:
    async def behave(number: int) -> bytes | None:
        if number % 10 == 3:
            return ok("v3", 503)
        if number % 10 == 6:
            return None
        if number % 50 == 9:
            await asyncio.sleep(5)
        return ok(close=number % 10 == 1)

    records, server = virtualtime.run(go(behave, out, arrivals="constant"))
    numbers = range(1, len(server.requests) + 1)
    found = Counter(r.error or str(r.code) for r in records)
    assert found["503"] == sum(n % 10 == 3 for n in numbers)
    assert found["reset"] == sum(n % 10 == 6 for n in numbers)
    assert found["timeout"] == sum(n % 50 == 9 for n in numbers)
    assert sum(found.values()) == len(records) == len(server.requests) == 400
    assert {r.version for r in records if r.code == 503} == {"v3"}
    assert {r.version for r in records if r.error} == {""}
    assert all(r.latency_ms >= 490 for r in records if r.error == "timeout")


def test_nobody_listening_is_a_connect_failure(out: Path) -> None:
    plan = Plan(url="http://127.0.0.1:9", out=out, rate=100, seconds=0.3)
    records = virtualtime.run(Generator(plan).run())
    assert {(r.code, r.error) for r in records} == {(0, "connect")}


def test_a_stall_shows_in_every_request_that_was_meant_to_be_sent_meanwhile(out: Path) -> None:
    """Coordinated omission: the clients must not wait politely until the server is well again."""

    stalled_until = 0.0

    async def behave(number: int) -> bytes:
        nonlocal stalled_until
        loop = asyncio.get_running_loop()
        if number == 100:
            stalled_until = loop.time() + 0.4
        await asyncio.sleep(max(0.0, stalled_until - loop.time()))
        return ok()

    records, _ = virtualtime.run(go(behave, out, arrivals="constant", timeout=3.0))
    slow = [r for r in records if r.latency_ms > 40]
    assert len(slow) > 0.8 * 0.36 * 400
    assert figures(records).p50 < 100


def test_more_than_the_limit_in_flight_is_a_failure_and_not_a_secret(out: Path) -> None:
    async def behave(_number: int) -> bytes:
        await asyncio.sleep(0.4)
        return ok()

    records, _ = virtualtime.run(go(behave, out, max_in_flight=10, seconds=0.3, timeout=3.0))
    found = Counter(r.error or str(r.code) for r in records)
    assert found["200"] == 10
    assert found["client_limit"] == len(records) - 10


def test_sigterm_lets_it_finish_and_sum_up(out: Path) -> None:
    async def run() -> tuple[int, Server]:
        async with Server(always_ok) as server:
            command = [sys.executable, "-m", "fraud.load", "--url", f"http://127.0.0.1:{server.port}"]
            process = await asyncio.create_subprocess_exec(
                *command, "--rate", "200", "--seconds", "600", "--timeout", "60", "--out", str(out),
                stdout=subprocess.DEVNULL, cwd=Path(load.__file__).parents[1],
            )  # fmt: skip
            while len(server.requests) < 50:
                assert process.returncode is None
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            return await asyncio.wait_for(process.wait(), 30), server

    code, server = asyncio.run(run())
    assert code == 0
    summary = json.loads(out.with_suffix(".csv.summary.json").read_text())
    assert summary["requests"] == len(read(out)) == len(server.requests)
    assert summary["failed"] == 0
    assert summary["versions"]["v1"]["requests"] == summary["requests"]


@pytest.mark.parametrize("url", ["http://8.8.8.8", "https://127.0.0.1", "127.0.0.1:80"])
def test_only_local_addresses_by_default(url: str) -> None:
    with pytest.raises(load.RefusedError):
        load.local_address(url, allow_remote=False)


def test_local_and_allowed_addresses() -> None:
    assert load.local_address("http://10.96.3.4:8080", allow_remote=False) == ("10.96.3.4", 8080)
    assert load.local_address("http://8.8.8.8", allow_remote=True) == ("8.8.8.8", 80)


def test_a_log_can_be_followed_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    reader = Reader(path)
    assert reader.poll() == []
    one = Record(time.time(), 12.5, 200, "", "v1", "abc", "keepalive", 1)
    half = one.line()[:10]
    path.write_text("at,latency_ms\n" + one.line() + half)
    assert [r.version for r in reader.poll()] == ["v1"]
    assert reader.poll() == []
    with path.open("a") as file:
        file.write(one.line()[10:])
    assert len(reader.poll()) == 1


def test_a_record_survives_its_line() -> None:
    record = Record(1700000000.25, 3.125, 0, "reset", "", "", "batch4", 4)
    assert parse(record.line()) == record


def test_window_and_percentile() -> None:
    records = [Record(100.0 + i, 0.0, 200, "", "v1", "", "keepalive", 1) for i in range(20)]
    assert len(window(records, 5, until=119.0)) == 6
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile(list(map(float, range(1, 101))), 0.99) == 99.0


def sorted_as_written(records: list[Record]) -> list[Record]:
    return [parse(record.line()) for record in records]


def two_shifts(values: list[float]) -> tuple[list[float], list[float]]:
    return values[:-1], values[1:]
