"""The connection: keep-alive, pipelining, limits, slow clients, nonsense."""

from __future__ import annotations

import json
import random
import socket
import time
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.runtime.support import WAIT, GateEngine, Live, Reader, connect, gated, infer, infer_body, post, request

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"


def _exchange(port: int, data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Sends `data` and the end of it; every answer until the server closes."""
    answers = []
    with connect(port) as sock, Reader(sock) as reader:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while True:
            try:
                answers.append(reader.answer())
            except (AssertionError, ConnectionResetError):
                return answers


def test_keep_alive(live: Live) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        for number in range(20):
            sock.sendall(post(infer_body([number, 1, 1])))
            status, headers, body = reader.answer()
            assert status == 200
            assert "connection" not in headers
            assert json.loads(body)["outputs"][0]["data"] == [number + 2.0]


def test_pipelined_requests_are_answered_in_order(engine: GateEngine) -> None:
    with Live(gated(engine)) as live, connect(live.port) as sock, Reader(sock) as reader:
        engine.gate.clear()
        sock.sendall(post(infer_body([1, 0, 0])) + GET + post(infer_body([2, 0, 0])) + GET + post(b"{"))
        assert engine.started.acquire(timeout=WAIT)
        engine.gate.set()
        answers = [reader.answer() for _ in range(5)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 200, 400]
    assert [json.loads(answers[index][2])["outputs"][0]["data"] for index in (0, 2)] == [[1.0], [2.0]]
    assert json.loads(answers[1][2]) == {"live": True}


def test_a_thousand_pipelined_requests(live: Live) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(GET * 1000)
        assert {reader.answer()[0] for _ in range(1000)} == {200}


def test_a_client_that_does_not_read_is_not_read_either(live: Live) -> None:
    """Megabytes of requests whose answers nobody takes: the server stops reading, and others are served."""
    with connect(live.port) as sock:
        sock.setblocking(False)
        sent, stuck_since = 0, time.monotonic()
        while time.monotonic() - stuck_since < 0.5 and sent < 200_000_000:
            try:
                sent += sock.send(GET * 1000)
                stuck_since = time.monotonic()
            except BlockingIOError:
                pass
        assert sent < 200_000_000
        assert infer(live.port, [1, 2, 3])[0] == 200


def test_body_in_chunks(live: Live) -> None:
    body = infer_body([1, 2, 3])
    head = b"POST /v2/models/model/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:8], body[8:]))
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(head + chunks + b"0\r\nTrailer: x\r\n\r\n" + GET)
        assert json.loads(reader.answer()[2])["outputs"][0]["data"] == [6.0]
        assert reader.answer()[0] == 200


def test_a_request_byte_by_byte(live: Live) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(infer_body([1, 2, 3])):
            sock.sendall(bytes((byte,)))
        assert reader.answer()[0] == 200


def test_expect_continue(live: Live) -> None:
    body = infer_body([1, 2, 3])
    with connect(live.port) as sock, Reader(sock) as reader:
        for _ in range(2):
            sock.sendall(post(body, "Expect: 100-continue")[: -len(body)])
            assert reader.answer()[0] == 100
            sock.sendall(body)
            assert reader.answer()[0] == 200
        sock.sendall(post(body, "Expect: a-miracle"))
        assert reader.answer()[0] == 417
        assert reader.end()


def test_expect_continue_is_not_sent_for_what_is_too_large(live: Live) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(
            b"POST /v2/models/model/infer HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n"
        )
        assert reader.answer()[0] == 413
        assert reader.end()


def test_connection_close_and_http_1_0(live: Live) -> None:
    for data, kept in (
        (b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "close"),
        (b"GET /v2/health/live HTTP/1.0\r\n\r\n", "close"),
    ):
        with connect(live.port) as sock, Reader(sock) as reader:
            sock.sendall(data)
            status, headers, _ = reader.answer()
            assert (status, headers["connection"]) == (200, kept)
            assert reader.end()
    with connect(live.port) as sock, Reader(sock) as reader:
        for _ in range(2):
            sock.sendall(b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert reader.answer()[1]["connection"] == "keep-alive"


def test_what_was_asked_before_the_client_closed_its_side_is_answered(engine: GateEngine) -> None:
    with Live(gated(engine)) as live, connect(live.port) as sock, Reader(sock) as reader:
        engine.gate.clear()
        sock.sendall(post(infer_body([1, 2, 3])))
        sock.shutdown(socket.SHUT_WR)
        assert engine.started.acquire(timeout=WAIT)
        engine.gate.set()
        assert reader.answer()[0] == 200
        assert reader.end()


def test_head(live: Live) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(b"HEAD /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n" + b"HEAD /none HTTP/1.1\r\nHost: t\r\n\r\n")
        head = b"".join(iter(reader._file.readline, b"\r\n"))
        assert b"content-length: 13" in head
        assert head.startswith(b"HTTP/1.1 200")
        assert reader._file.readline().startswith(b"HTTP/1.1 404")


def test_an_offer_to_upgrade_is_declined_with_the_body_intact(live: Live) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    with connect(live.port) as sock, Reader(sock) as reader:
        whole = post(infer_body([1, 2, 3]), *offer)
        sock.sendall(whole + GET)
        assert json.loads(reader.answer()[2])["outputs"][0]["data"] == [6.0]
        assert reader.answer()[0] == 200
        sock.sendall(whole[:-20])
        time.sleep(0.01)
        sock.sendall(whole[-20:])
        assert reader.answer()[0] == 200
        sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert reader.answer()[0] == 200


def test_a_body_that_is_too_large_is_refused_early_and_the_answer_arrives(live: Live) -> None:
    body = b" " * 5_000_000
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(post(body)[:300_000])
        status, headers, answer = reader.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(answer) == {"error": "the body is larger than 100000 bytes"}
    head = b"POST /v2/models/model/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(head + (b"4e20\r\n" + b" " * 20_000 + b"\r\n") * 6)
        assert reader.answer()[0] == 413
    assert live.metrics()['serinus_rejected_total{reason="too_large"}'] >= 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 400_000, 431),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: t\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: t\r\nA\x00: b\r\n\r\n", 400),
    ],
)
def test_malformed_requests_are_refused_and_harm_nobody(live: Live, data: bytes, status: int) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        sock.sendall(GET + data)
        assert reader.answer()[0] == 200
        got, headers, _ = reader.answer()
        assert (got, headers["connection"]) == (status, "close")
        assert headers["x-model-version"] == "v7"
        assert headers["x-request-id"]
        assert reader.end()
    assert infer(live.port, [1, 2, 3])[0] == 200


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_damaged_requests_never_kill_the_server(live: Live, seed: int, damages: int) -> None:
    rng = random.Random(seed)
    data = bytearray(post(infer_body([1, 2, 3]), "Expect: 100-continue") + GET)
    for _ in range(damages):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(3)] = rng.choice([b"", b"\r\n", b"\x00", b"[", b"9", rng.randbytes(3)])
    _exchange(live.port, bytes(data))
    status, headers, _ = infer(live.port, [1, 2, 3])
    assert (status, headers["x-model-version"]) == (200, "v7")


def test_slow_clients_are_ended_and_idle_ones_are_not(engine: GateEngine) -> None:
    with Live(gated(engine), request_timeout=0.4) as live:
        with connect(live.port) as idle, Reader(idle) as idle_reader:
            idle.sendall(GET)
            assert idle_reader.answer()[0] == 200
            for start in (b"GET /v2 HTT", GET[:-2], post(infer_body([1, 2, 3]))[:-5]):
                with connect(live.port) as sock, Reader(sock) as reader:
                    sock.sendall(start)
                    status, headers, _ = reader.answer()
                    assert (status, headers["connection"]) == (408, "close")
                    assert reader.end()
            with connect(live.port) as sock, Reader(sock) as reader:
                assert reader.end()
            idle.sendall(GET)
            assert idle_reader.answer()[0] == 200
        engine.gate.clear()
        with connect(live.port) as sock, Reader(sock) as reader:
            sock.sendall(post(infer_body([1, 2, 3])))
            assert engine.started.acquire(timeout=WAIT)
            time.sleep(0.7)
            engine.gate.set()
            assert reader.answer()[0] == 200


def test_bodies_under_way_are_bounded_together(engine: GateEngine) -> None:
    """Many clients that each send almost a whole body must not fill the memory."""
    body = infer_body([1, 2, 3]) + b" " * 40_000
    with Live(gated(engine), receive_max_bytes=100_000) as live, ExitStack() as open_until_the_end:
        slow = [open_until_the_end.enter_context(connect(live.port)) for _ in range(2)]
        for sock in slow:
            sock.sendall(post(body)[:-10])
        while live.server.receiving() < 2 * (len(body) - 10):
            time.sleep(0.001)
        status, headers, _ = request(live.port, "POST", "/v2/models/model/infer", body)
        assert (status, headers["retry-after"], headers["connection"]) == (429, "1", "close")
        assert infer(live.port, [1, 2, 3])[0] == 200
        slow.pop().close()
        while live.server.receiving() > len(body):
            time.sleep(0.001)
        assert request(live.port, "POST", "/v2/models/model/infer", body)[0] == 200
        slow[0].sendall(body[-10:])
        with Reader(slow[0]) as reader:
            assert reader.answer()[0] == 200
        assert live.server.receiving() == 0


def test_too_many_connections_are_told_so(engine: GateEngine) -> None:
    with Live(gated(engine), max_connections=2) as live, connect(live.port) as one, connect(live.port) as two:
        for sock in (one, two):
            sock.sendall(GET)
            with Reader(sock) as reader:
                assert reader.answer()[0] == 200
        with connect(live.port) as three, Reader(three) as reader:
            assert reader.answer()[0] == 503
            assert reader.end()


def test_request_ids(live: Live) -> None:
    def given_back(text: str) -> str:
        return request(live.port, "GET", "/v2/health/live", headers={"X-Request-Id": text})[1]["x-request-id"]

    assert given_back("abc-123_x.Y:/+=@~") == "abc-123_x.Y:/+=@~"
    made = {given_back(bad) for bad in ("a b", "<script>", "a" * 129, "é", "", "a;b")}
    assert len(made) == 6
    assert all(len(text) < 40 and text.isascii() for text in made)


def test_the_second_port(live: Live) -> None:
    port = live.server.metrics_port
    assert request(port, "GET", "/healthz")[0] == 200
    assert json.loads(request(port, "GET", "/readyz")[2]) == {"ready": True}
    status, headers, body = request(port, "GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"# TYPE serinus_requests_total counter" in body
    assert request(port, "GET", "/v2")[0] == 404
    assert request(port, "POST", "/metrics", b"")[0] == 405
