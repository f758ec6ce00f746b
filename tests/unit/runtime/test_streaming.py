"""Streamed answers: chunks, order, back-pressure, clients that leave or stall, producers that fail."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serinus_runtime.http import Exchange
from serinus_runtime.http.exchange import status_line
from serinus_runtime.http.streaming import BUFFER_BYTES, Stream, Successor
from unit.runtime.ports import Port, until
from unit.runtime.support import WAIT, Reader, connect

OK = status_line(200)
TEXT = b"content-type: text/plain\r\n"


class Script:
    """A producer that the test holds: what it was told, and the stream it writes to."""

    def __init__(self, exchange: Exchange, length: int | None = None) -> None:
        self.told: list[str] = []
        self.target = exchange.target
        self.stream: Stream | None = exchange.stream(self, OK, TEXT, length)

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def gone(self) -> None:
        self.told.append("gone")


class Flood(Script):
    """Writes `total` bytes as fast as the client takes them."""

    def __init__(self, exchange: Exchange, total: int, piece: int = 32768) -> None:
        self.left, self.piece, self.most = total, b"x" * piece, 0
        self.flowing = True
        super().__init__(exchange)
        if self.flowing:
            self.flow()

    def pause(self) -> None:
        super().pause()
        self.flowing = False

    def resume(self) -> None:
        super().resume()
        self.flowing = True
        self.flow()

    def flow(self) -> None:
        assert self.stream is not None
        while self.flowing and self.left > 0 and self.told[-1:] != ["gone"]:
            self.stream.write(self.piece[: self.left])
            self.left -= len(self.piece)
        if self.left <= 0:
            self.stream.end()


class Stage:
    """A port whose `/stream...` targets become scripts, and whose other targets are answered at once."""

    def __init__(self, make: Callable[[Exchange], Script] = Script, **limits: object) -> None:
        self.scripts: list[Script] = []
        self.began = threading.Semaphore(0)

        def handle(exchange: Exchange) -> None:
            if exchange.target.startswith(b"/stream"):
                self.scripts.append(make(exchange))
                self.began.release()
            else:
                exchange.respond(200, b'{"at":"%b"}' % exchange.target)

        self.port = Port(handle, **limits)

    def __enter__(self) -> Stage:
        self.port.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.port.__exit__(None, None, None)

    def script(self) -> Script:
        """The next script that begins."""
        assert self.began.acquire(timeout=WAIT)
        return self.scripts[-1]

    def write(self, script: Script, *pieces: bytes, end: bool = False) -> None:
        def work() -> None:
            assert script.stream is not None
            for piece in pieces:
                script.stream.write(piece)
            if end:
                script.stream.end()

        self.port.do(work)


def _get(target: str, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: t", *headers, "", ""]).encode()


def test_pieces_arrive_as_they_are_made() -> None:
    with Stage() as stage, connect(stage.port.port) as sock, sock.makefile("rb") as file:
        sock.sendall(_get("/stream", "X-Request-Id: abc"))
        script = stage.script()
        head = b"".join(iter(file.readline, b"\r\n")).lower()
        assert head.startswith(b"http/1.1 200 ok\r\n")
        for line in (b"transfer-encoding: chunked", b"x-test: yes", b"x-request-id: abc", b"content-type: text/plain"):
            assert line + b"\r\n" in head
        assert b"content-length" not in head
        for piece in (b"one", b"two" * 1000):
            stage.write(script, piece)
            assert file.readline() == b"%x\r\n" % len(piece)
            assert file.read(len(piece) + 2) == piece + b"\r\n"
        stage.write(script, b"", end=True)
        assert file.read(5) == b"0\r\n\r\n"
        sock.sendall(_get("/next"))
        with Reader(sock) as reader:
            assert json.loads(reader.answer()[2]) == {"at": "/next"}
        assert script.told == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=20), st.booleans())
def test_any_pieces_make_the_same_body(pieces: list[bytes], known: bool) -> None:
    body = b"".join(pieces)

    def make(exchange: Exchange) -> Script:
        script = Script(exchange, len(body) if known else None)
        assert script.stream is not None
        for piece in pieces:
            script.stream.write(piece)
        script.stream.end()
        return script

    with Stage(make) as stage:
        connection = http.client.HTTPConnection("127.0.0.1", stage.port.port, timeout=WAIT)
        for _ in range(2):
            connection.request("GET", "/stream")
            answer = connection.getresponse()
            assert answer.getheader("content-length") == (str(len(body)) if known else None)
            assert answer.read() == body
        connection.close()


def test_old_clients_get_the_body_until_the_end_of_the_connection() -> None:
    with Stage() as stage, connect(stage.port.port) as sock, sock.makefile("rb") as file:
        sock.sendall(_get("/stream", "Connection: keep-alive", version="1.0"))
        stage.write(stage.script(), b"one", b"two", end=True)
        head, _, body = file.read().partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == b"onetwo"


def test_head_has_no_body() -> None:
    with Stage() as stage, connect(stage.port.port) as sock, Reader(sock) as reader:
        sock.sendall(_get("/stream", method="HEAD"))
        stage.write(stage.script(), b"one", end=True)
        sock.sendall(_get("/next"))
        assert reader.answer()[1]["transfer-encoding"] == "chunked"
        assert json.loads(reader.answer()[2]) == {"at": "/next"}


def test_what_is_asked_behind_a_stream_is_answered_behind_it() -> None:
    with Stage() as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream/1") + _get("/a") + _get("/stream/2") + _get("/b"))
        stage.script()
        second = stage.script()
        first = stage.scripts[0]
        assert (first.target, second.target) == (b"/stream/1", b"/stream/2")
        stage.write(second, b"2" * BUFFER_BYTES)
        assert second.told == ["pause"], "what cannot be sent yet is bounded"
        stage.write(first, b"1", end=True)
        until(lambda: second.told == ["pause", "resume"])
        stage.write(second, b"2", end=True)
        bodies = []
        with sock.makefile("rb") as file:
            for _ in range(4):
                answer = http.client.HTTPResponse(_Borrowed(file))  # type: ignore[arg-type]
                answer.begin()
                bodies.append(answer.read())
        assert bodies == [b"1", b'{"at":"/a"}', b"2" * (BUFFER_BYTES + 1), b'{"at":"/b"}']


class _Borrowed:
    def __init__(self, file: object) -> None:
        self._file = file

    def makefile(self, *_: object) -> object:
        return _Unclosed(self._file)


class _Unclosed:
    def __init__(self, file: object) -> None:
        self._file = file

    def close(self) -> None:
        """Other answers follow."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def test_a_reader_that_stalls_stops_the_producer_and_one_that_goes_on_gets_everything() -> None:
    total = 50_000_000
    with Stage(lambda exchange: Flood(exchange, total)) as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream", version="1.0"))
        script = stage.script()
        until(lambda: script.told)
        assert isinstance(script, Flood)

        def still() -> bool:
            before = script.left
            time.sleep(0.05)
            return before == script.left

        until(still)
        assert script.left > total - 20_000_000, "the kernel's buffers are all that may be full"
        with sock.makefile("rb") as file:
            body = file.read().partition(b"\r\n\r\n")[2]
        assert len(body) == total
        assert "gone" not in script.told


def test_a_reader_that_never_goes_on_is_dropped() -> None:
    with (
        Stage(lambda exchange: Flood(exchange, 1 << 40), request_seconds=0.3) as stage,
        connect(stage.port.port) as sock,
    ):
        sock.sendall(_get("/stream"))
        script = stage.script()
        until(lambda: script.told[-1:] == ["gone"])
        assert script.told.count("gone") == 1


def test_a_silent_stream_is_not_a_slow_one() -> None:
    with Stage(request_seconds=0.1, keep_alive_seconds=0.1) as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream"))
        script = stage.script()
        time.sleep(0.5)
        stage.write(script, b"late", end=True)
        with sock.makefile("rb") as file:
            assert file.read().endswith(b"4\r\nlate\r\n0\r\n\r\n")


@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_a_client_that_leaves_is_told_of(how: str) -> None:
    def make(exchange: Exchange) -> Script:
        exchange.cancel_on_eof = True
        return Script(exchange)

    with Stage(make) as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream/1") + _get("/stream/2"))
        stage.script()
        stage.script()
        if how == "half":
            sock.shutdown(socket.SHUT_WR)
        else:
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        for script in stage.scripts:
            until(lambda: all(script.told == ["gone"] for script in stage.scripts))
            stage.write(script, b"into the void", end=True)


@pytest.mark.parametrize(("length", "version"), [(None, "1.1"), (100, "1.1"), (None, "1.0")])
def test_a_stream_that_fails_looks_broken(length: int | None, version: str) -> None:
    with Stage(lambda exchange: Script(exchange, length)) as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream", version=version) + _get("/next"))
        script = stage.script()
        stage.write(script, b"some")
        assert script.stream is not None
        with sock.makefile("rb") as file:
            while file.readline() != b"\r\n":
                pass
            stage.port.do(script.stream.fail)
            try:
                rest = file.read()
            except ConnectionResetError:
                assert version == "1.0"
            else:
                assert version == "1.1"
                assert b"0\r\n\r\n" not in rest
                assert b"next" not in rest
        assert script.told == ["gone"]


@pytest.mark.parametrize("pieces", [[b"123", b"456"], [b"12"]])
def test_a_length_that_lies_ends_the_connection(pieces: list[bytes]) -> None:
    with Stage(lambda exchange: Script(exchange, 4)) as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream") + _get("/next"))
        stage.write(stage.script(), *pieces, end=True)
        with sock.makefile("rb") as file:
            assert file.read().partition(b"\r\n\r\n")[2] == pieces[0]


def test_a_failure_behind_another_stream_comes_in_its_turn() -> None:
    with Stage() as stage, connect(stage.port.port) as sock:
        sock.sendall(_get("/stream/1") + _get("/stream/2"))
        stage.script()
        stage.script()
        first, second = stage.scripts
        assert second.stream is not None
        stage.port.do(second.stream.fail)
        stage.write(first, b"whole", end=True)
        with sock.makefile("rb") as file:
            text = file.read()
        assert b"whole\r\n0\r\n\r\n" in text
        assert text.count(b"HTTP/1.1 200") == 2
        assert text.count(b"0\r\n\r\n") == 1


def test_the_port_counts_a_stream_as_work_when_it_closes() -> None:
    with Stage() as stage, connect(stage.port.port) as sock, sock.makefile("rb") as file:
        sock.sendall(_get("/stream"))
        script = stage.script()

        stage.port.do(stage.port.site.close_idle)
        stage.write(script, b"all of it", end=True)
        stage.port.do(stage.port.site.close_idle)
        assert file.read().endswith(b"all of it\r\n0\r\n\r\n")


class Shout(Successor):
    """Answers in capitals, without HTTP."""

    def connection_made(self, transport: object) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())  # type: ignore[attr-defined]

    def abort(self) -> None:
        self.transport.abort()  # type: ignore[attr-defined]


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(["now", "later", "declined now", "declined later"]), st.integers(0, 30), st.booleans())
def test_upgrades_are_granted_or_not_and_lose_no_byte(answer: str, cut: int, behind: bool) -> None:
    """Whatever comes right behind the request goes to the successor, or is the next request."""
    waiting: list[Exchange] = []
    came = threading.Event()

    def decide(exchange: Exchange) -> None:
        if answer.startswith("declined"):
            exchange.respond(404, b"no")
        else:
            assert exchange.take_over(b"upgrade: shouting\r\n", Shout())

    def handle(exchange: Exchange) -> None:
        if not exchange.upgrade:
            exchange.respond(200, exchange.target)
        elif answer.endswith("now"):
            decide(exchange)
            came.set()
        else:
            waiting.append(exchange)
            came.set()

    declined = answer.startswith("declined")
    more = _get("/next", "Connection: close") if declined else b"hello"
    data = (_get("/before") if behind else b"") + _get("/ws", *UPGRADE) + more
    at = len(data) - min(cut, len(more))
    with Port(handle) as port, connect(port.port) as sock, sock.makefile("rb") as file:
        sock.sendall(data[:at])
        assert came.wait(WAIT)
        if waiting:
            port.do(lambda: decide(waiting[0]))
        sock.sendall(data[at:])
        if not declined:
            sock.shutdown(socket.SHUT_WR)
        text = file.read()
    assert (b"/before" in text) == behind
    if declined:
        assert b" 404 " in text
        assert text.endswith(b"/next")
    else:
        head, _, rest = text.partition(b"HTTP/1.1 101 Switching Protocols\r\n")[2].partition(b"\r\n\r\n")
        assert rest == b"HELLO"
        assert {b"upgrade: shouting", b"connection: Upgrade", b"x-test: yes"} < set(head.split(b"\r\n"))


def test_thousands_of_declined_upgrades_in_one_go() -> None:
    with (
        Port(lambda exchange: exchange.respond(404, b"no")) as port,
        connect(port.port) as sock,
        Reader(sock) as reader,
    ):
        threading.Thread(target=lambda: sock.sendall(_get("/ws", *UPGRADE) * 5000), daemon=True).start()
        assert {reader.answer()[0] for _ in range(5000)} == {404}
