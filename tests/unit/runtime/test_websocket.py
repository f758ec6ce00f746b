"""Inference over WebSocket, by the clients of `websockets` and aiohttp, and by bytes that are no WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_socket

from serinus_runtime.conversation import WINDOW
from unit.runtime.ports import until
from unit.runtime.support import WAIT, GateEngine, Live, connect, gated, infer, infer_body, request

PATH = "/v2/models/model/stream"


@contextmanager
def _opened(port: int, path: str = PATH, **more: Any) -> Iterator[ClientConnection]:
    with open_socket(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, **more) as client:
        yield client


def _say(client: ClientConnection, *row: float, **more: object) -> None:
    client.send(infer_body(list(row), **more).decode())


def _heard(client: ClientConnection) -> Any:
    return json.loads(client.recv(WAIT))


def test_messages_are_answered_in_order(live: Live) -> None:
    before = live.metrics()['serinus_requests_total{code="200"}']
    with _opened(live.port, additional_headers={"X-Request-Id": "ws-1"}) as client:
        assert client.response is not None
        assert client.response.headers["X-Model-Version"] == "v7"
        assert client.response.headers["X-Request-Id"] == "ws-1"
        for number in range(200):
            _say(client, number, 1, 1, id=f"n{number}")
        for number in range(200):
            answer = _heard(client)
            assert (answer["id"], answer["outputs"][0]["data"]) == (f"n{number}", [number + 2.0])
        client.send(infer_body([1, 2, 3]))
        assert isinstance(client.recv(WAIT), bytes), "bytes are answered by bytes"
    assert live.metrics()['serinus_requests_total{code="200"}'] == before + 201


def test_the_path_with_a_version(live: Live) -> None:
    with _opened(live.port, "/v2/models/model/versions/v7/stream") as client:
        _say(client, 1, 2, 3)
        assert _heard(client)["outputs"][0]["data"] == [6.0]


def test_bad_messages_are_answered_and_the_conversation_goes_on(live: Live) -> None:
    with _opened(live.port) as client:
        client.send('{"id": "a", "inputs": []}')
        answer = _heard(client)
        assert (answer["code"], answer["id"]) == (400, "a")
        assert "missing" in answer["error"]
        client.send("{")
        assert _heard(client)["code"] == 400
        wanted = {"name": "y", "parameters": {"binary_data": True}}
        _say(client, 1, 2, 3, id="raw", outputs=[wanted])
        answer = _heard(client)
        assert (answer["code"], answer["id"]) == (400, "raw")
        client.send("x" * 20_000)
        assert _heard(client)["code"] == 400
        _say(client, 1, 2, 3)
        assert _heard(client)["outputs"][0]["data"] == [6.0]


def test_fragments_pings_and_the_closing_handshake(live: Live) -> None:
    with _opened(live.port) as client:
        body = infer_body([1, 2, 3]).decode()
        client.send(iter([body[:5], "", body[5:50], body[50:]]))
        assert client.ping().wait(WAIT)
        assert _heard(client)["outputs"][0]["data"] == [6.0]
        client.close()
        assert client.close_code == 1000


def test_aiohttp_speaks_with_it_too(live: Live) -> None:
    async def talk() -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{live.port}{PATH}", compress=15) as client,
        ):
            await client.send_str(infer_body([1, 2, 4]).decode())
            return await client.receive_json(timeout=WAIT)

    assert asyncio.run(talk())["outputs"][0]["data"] == [7.0]


def test_too_large_messages_end_it(live: Live) -> None:
    for size, pieces in ((100_001, 1), (60_000, 2)):
        with _opened(live.port) as client:
            with pytest.raises(ConnectionClosedError) as closed:  # noqa: PT012 - sending may fail as well
                client.send(iter(["x" * size] * pieces))
                client.recv(WAIT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009


def test_a_message_in_countless_empty_pieces_ends_it(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes after it is not even looked at: it would keep everybody waiting."""
    monkeypatch.setattr("serinus_runtime.http.websocket.CLOSE_SECONDS", 10 * WAIT)
    with _raw(live.port) as sock:
        with suppress(ConnectionError):
            sock.sendall(_frame(1, b"", fin=False) + _frame(0, b"", fin=False) * 100_000)
        with suppress(ConnectionError):
            sock.sendall(_frame(0, b"", fin=False) * 200_000)
        frame = _until_the_end(sock)
        assert frame[0] == 0x88
        assert struct.unpack("!H", frame[2:4])[0] == 1009
        assert frame[4:] == b"a message in too many pieces"
        assert live.server.receiving() == 0
    assert infer(live.port, [1, 2, 3])[0] == 200


def test_text_must_be_utf8(live: Live) -> None:
    with _raw(live.port) as sock:
        sock.sendall(_frame(1, b"\xff\xfe"))
        assert _read_close(sock) == 1007


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "8"}, 426),
        ({"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}, 400),
        (
            {
                "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "c2hvcnQ=",
            },
            400,
        ),
    ],
)  # fmt: skip
def test_handshakes_that_are_none(live: Live, headers: dict[str, str], status: int) -> None:
    got, _, body = request(live.port, "GET", PATH, headers=headers)
    assert got == status
    assert json.loads(body)["error"]
    assert request(live.port, "POST", PATH, b"{}")[0] == 405
    with pytest.raises(InvalidStatus), _opened(live.port, "/v2/models/other/stream"):
        pass


def test_only_a_window_of_requests_is_under_way(engine: GateEngine) -> None:
    with Live(gated(engine), queue_max_length=1000, batch_max_size=1) as live, _opened(live.port) as client:
        engine.gate.clear()
        for number in range(3 * WINDOW):
            _say(client, number, 0, 0)
        until(lambda: live.metrics()["serinus_inflight_requests"] == WINDOW)
        assert infer_under_way(live) == WINDOW
        engine.gate.set()
        assert [_heard(client)["outputs"][0]["data"] for _ in range(3 * WINDOW)] == [
            [float(number)] for number in range(3 * WINDOW)
        ]


def infer_under_way(live: Live) -> int:
    return int(live.metrics()["serinus_inflight_requests"])


def test_a_client_that_does_not_read_is_not_read_either(live: Live) -> None:
    with _raw(live.port) as sock:
        message = _frame(1, infer_body([1, 2, 3], id="x" * 5000))
        sock.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 400_000_000:
                sent += sock.send(message * 10)
        assert sent < 400_000_000
        assert infer(live.port, [1, 2, 3])[0] == 200


def test_a_client_that_leaves_takes_its_requests_along(engine: GateEngine) -> None:
    with Live(gated(engine), batch_max_size=1) as live:
        engine.gate.clear()
        with _raw(live.port) as sock:
            for number in range(10):
                sock.sendall(_frame(1, infer_body([number, 0, 0])))
            until(lambda: infer_under_way(live) == 10)
        until(lambda: infer_under_way(live) == 0)
        engine.gate.set()
        assert infer(live.port, [1, 2, 3])[0] == 200
        assert len(engine.batches) <= 2


def test_a_drain_answers_what_was_asked_and_says_goodbye(engine: GateEngine) -> None:
    with Live(gated(engine)) as live, _opened(live.port) as client:
        _say(client, 1, 1, 1)
        assert _heard(client)["outputs"][0]["data"] == [3.0]
        engine.gate.clear()
        _say(client, 1, 2, 3)
        until(lambda: infer_under_way(live) == 1)
        drained = asyncio.run_coroutine_threadsafe(live.server.drain(0.0), live._loop)
        until(lambda: live.server.state.refusing)
        engine.gate.set()
        assert _heard(client)["outputs"][0]["data"] == [6.0]
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        drained.result(WAIT)


PING = b"\x89\x07serinus"


def test_a_silent_peer_is_asked_and_then_dropped(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serinus_runtime.http.websocket.PING_SECONDS", 0.05)
    with _raw(live.port) as rude:
        assert _until_the_end(rude) == PING


def test_a_peer_that_answers_a_ping_is_kept(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again and again; it has little time only for the answer that is not waited for."""
    seconds = "serinus_runtime.http.websocket.PING_SECONDS"
    monkeypatch.setattr(seconds, 0.05)
    with _raw(live.port) as polite:
        monkeypatch.setattr(seconds, 10 * WAIT)
        assert _exactly(polite, len(PING)) == PING
        monkeypatch.setattr(seconds, 0.05)
        polite.sendall(_frame(10, b"serinus"))
        assert _exactly(polite, len(PING)) == PING


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := sock.recv(size - len(data))):
        data += chunk
    return data


def _frame(opcode: int, data: bytes, *, fin: bool = True, mask: bytes = b"\1\2\3\4") -> bytes:
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes([opcode | (0x80 if fin else 0)]) + length + mask + masked


@contextmanager
def _raw(port: int) -> Iterator[socket.socket]:
    """A socket after the handshake."""
    with connect(port) as sock:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {PATH} HTTP/1.1", "Host: t", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "", ""]
        sock.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield sock


def _until_the_end(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(1000):
        data += chunk
    return data


def _read_close(sock: socket.socket) -> int:
    data = _until_the_end(sock)
    assert data[0] == 0x88
    return int(struct.unpack("!H", data[2:4])[0])


_pieces = st.one_of(
    st.binary(max_size=300),
    st.builds(
        _frame, st.integers(0, 15), st.binary(max_size=200), fin=st.booleans(), mask=st.binary(min_size=4, max_size=4)
    ),
    st.just(_frame(1, infer_body([1, 2, 3]))),
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(_pieces, max_size=12))
def test_whatever_comes_the_server_lives(live: Live, pieces: list[bytes]) -> None:
    with _raw(live.port) as sock, ExitStack() as leaving:
        leaving.callback(sock.close)
        try:
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
    assert infer(live.port, [1, 2, 3])[0] == 200


def test_a_clean_close_by_the_client(live: Live) -> None:
    with _raw(live.port) as sock:
        sock.sendall(_frame(8, struct.pack("!H", 1000) + b"bye"))
        assert _read_close(sock) == 1000
    with _opened(live.port) as client:
        client.close(4000, "mine")
        with pytest.raises((ConnectionClosedOK, ConnectionClosedError)):
            client.recv(WAIT)
