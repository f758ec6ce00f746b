"""WebSockets that pass to an engine beside the front."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_socket

from unit.runtime.engines import FastEngine, Front, RawEngine
from unit.runtime.ports import until
from unit.runtime.support import WAIT, connect


@pytest.fixture(scope="module")
def engine() -> Iterator[FastEngine]:
    with FastEngine() as made:
        yield made


@pytest.fixture
def front(engine: FastEngine) -> Iterator[Front]:
    with Front(engine.port, proxy_concurrency=1) as made:
        yield made


def _open(front: Front, path: str = "/ws", **more: object) -> ClientConnection:
    return open_socket(f"ws://127.0.0.1:{front.port}{path}", max_size=None, proxy=None, **more)  # type: ignore[arg-type]


def test_messages_pass_both_ways(engine: FastEngine, front: Front) -> None:
    before = engine.seen.finished
    with _open(front, subprotocols=["chat"]) as client, _open(front) as other:
        assert client.subprotocol == "chat"
        assert client.response is not None
        assert client.response.headers["X-Model-Version"] == "v3"
        for number in range(50):
            client.send(f"m{number}")
            other.send(b"b%d" % number)
        assert [client.recv(WAIT) for _ in range(50)] == [f"echo m{number}" for number in range(50)]
        assert [other.recv(WAIT) for _ in range(50)] == [b"b%d" % number for number in range(50)]
        large = "x" * 900_000
        client.send(large)
        assert client.recv(WAIT) == "echo " + large
        counted = front.metrics()
        assert counted["serinus_streams_active"] == 2
        assert counted["serinus_upstream_requests"] == 0, "tunnels take no turn from requests"
    until(lambda: engine.seen.finished == before + 2)
    until(lambda: front.metrics()["serinus_streams_active"] == 0)


def test_a_refused_handshake_is_an_answer_like_others(front: Front) -> None:
    with pytest.raises(InvalidStatus) as refused:
        _open(front, "/refused")
    assert refused.value.response.status_code == 403
    with connect(front.port) as sock, sock.makefile("rb") as file:
        sock.sendall(
            b"GET /plain HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"GET /plain HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        )
        text = file.read()
        assert text.count(b"HTTP/1.1 ") == 2
        assert text.endswith(b"plain text")


def test_a_client_that_is_gone_ends_the_engines_side(engine: FastEngine, front: Front) -> None:
    before = engine.seen.finished
    with _open(front) as client:
        client.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: engine.seen.finished == before + 1)
    until(lambda: front.metrics()["serinus_streams_active"] == 0)


def test_an_engine_that_is_gone_ends_the_clients_side() -> None:
    with FastEngine() as engine, Front(engine.port) as front, _open(front) as client:
        client.send("a")
        assert client.recv(WAIT) == "echo a"
        engine.drop()
        with pytest.raises(ConnectionClosed):
            client.recv(WAIT)
        until(lambda: front.metrics()["serinus_streams_active"] == 0)


def test_a_tunnel_in_which_nothing_passes_is_ended(engine: FastEngine) -> None:
    """One in which something passes lives on, unless this machine paused for as long as the front waits."""
    with Front(engine.port, proxy_idle_timeout=1.0, request_timeout=0.2) as front:
        for _ in range(20):
            with _open(front, ping_interval=None) as client:
                lived = _talks(client, 2.0, pause=0.5)
                with pytest.raises(ConnectionClosed):
                    client.recv(WAIT)
            if lived:
                return
    pytest.fail("this machine is too slow to tell")


def _talks(client: ClientConnection, seconds: float, pause: float) -> bool:
    """Says something now and then for so long; False when `pause` seconds passed in which nothing did."""
    began = last = time.monotonic()
    while last - began < seconds:
        time.sleep(0.05)
        try:
            client.send("still here")
            assert client.recv(WAIT) == "echo still here"
        except ConnectionClosed:
            assert time.monotonic() - last > pause, "ended while something passed"
            return False
        now = time.monotonic()
        if now - last > pause:
            return False
        last = now
    return True


UPGRADE = b"GET /x HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def test_a_slow_engine_slows_the_client() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        writer.write(GRANTED)
        await asyncio.sleep(WAIT)
        return False

    with RawEngine(talk) as engine, Front(engine.port) as front, connect(front.port) as sock:
        sock.sendall(UPGRADE)
        sock.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 400_000_000:
                sent += sock.send(b"x" * 500_000)
        assert sent < 60_000_000
        assert front.ask("GET", "/v2/health/ready")[0] == 200


def test_a_slow_client_slows_the_engine_and_loses_nothing() -> None:
    drained = [0]
    total = 100_000_000

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        writer.write(GRANTED)
        while drained[0] < total:
            writer.write(b"y" * 100_000)
            await writer.drain()
            drained[0] += 100_000
        return False

    with RawEngine(talk) as engine, Front(engine.port) as front, connect(front.port) as sock:
        sock.sendall(UPGRADE)

        def still() -> bool:
            before = drained[0]
            time.sleep(0.1)
            return 0 < before == drained[0]

        until(still)
        assert drained[0] < 60_000_000
        with sock.makefile("rb") as file:
            body = file.read().partition(b"\r\n\r\n")[2]
        assert len(body) == total
