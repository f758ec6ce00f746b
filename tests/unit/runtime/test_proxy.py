"""Requests that pass to an engine beside the front: real engines, real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from serinus_runtime.failures import FailureError, Reason
from unit.runtime import support
from unit.runtime.engines import AioEngine, FastEngine, Front, RawEngine, Talk, listener
from unit.runtime.ports import Loop, until
from unit.runtime.support import WAIT, Reader, connect


@pytest.fixture(scope="module")
def fast() -> Iterator[FastEngine]:
    with FastEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def front(fast: FastEngine) -> Iterator[Front]:
    with Front(fast.port) as made:
        yield made


def test_a_request_passes_with_its_answer(fast: FastEngine, front: Front) -> None:
    headers = {
        "X-Request-Id": "id-1", "X-Mine": "yes", "Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers",
        "Keep-Alive": "timeout=5", "Via": "1.0 old",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT)
    connection.request("POST", "/echo?a=b", json.dumps({"x": [1, 2]}), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read()) == {"got": {"x": [1, 2]}, "query": "a=b"}
    assert answer.getheader("x-engine") == "fast"
    assert answer.getheader("x-model-version") == "v3"
    assert answer.getheader("x-serinus-revision") == "r3"
    assert answer.getheader("x-request-id") == "id-1"
    assert [value.partition(";")[0] for value in answer.headers.get_all("set-cookie", [])] == ["a=1", "b=2"]
    assert len(answer.headers.get_all("date", [])) == 1
    connection.close()
    _, _, seen = fast.seen.requests[-1]
    assert seen["x-mine"] == "yes"
    assert seen["x-request-id"] == "id-1"
    assert seen["via"] == "1.0 old, 1.1 serinus-runtime"
    assert seen["host"] == f"127.0.0.1:{front.port}"
    assert not {"x-hop", "te", "keep-alive", "connection"} & seen.keys()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/plain", 200, b"plain text"),
        ("HEAD", "/plain", 200, b""),
        ("GET", "/none", 204, b""),
        ("GET", "/absent", 404, b'{"detail":"Not Found"}'),
        ("POST", "/fail", 500, b'{"detail":"no"}'),
    ],
)
def test_answers_of_every_kind_keep_the_connection(
    front: Front, method: str, path: str, status: int, body: bytes
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT)
    before = front.metrics()["serinus_upstream_connects_total"]
    for _ in range(5):
        connection.request(method, path)
        sock = connection.sock
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, body)
        assert answer.getheader("content-length") == (None if status == 204 else str(len(body) or 10))
        assert connection.sock is sock
    connection.close()
    assert front.metrics()["serinus_upstream_connects_total"] - before < 9, "connections to the engine are kept"


def test_health_is_ours_and_trace_is_nobodys(front: Front) -> None:
    assert json.loads(front.ask("GET", "/v2/health/live")[2]) == {"live": True}
    assert json.loads(front.ask("GET", "/v2/health/ready")[2]) == {"ready": True}
    assert front.ask("TRACE", "/echo")[0] == 405


def test_aiohttp_and_chunks() -> None:
    with AioEngine() as engine, Front(engine.port) as front:
        assert json.loads(front.ask("POST", "/echo", {"a": 1})[2]) == {"got": {"a": 1}}
        status, _headers, body = front.ask("GET", "/chunked")
        assert status == 200
        assert body == b"".join(b"%03d" % number * 100 for number in range(100))


def test_our_own_server_behind_the_front(sum_dir: Path) -> None:
    from serinus_runtime.config import Config
    from serinus_runtime.server import load_model

    with support.Live(load_model(Config(model_dir=sum_dir))) as engine, Front(engine.port) as front:
        status, headers, body = support.infer(front.port, [1, 2, 3])
        assert (status, body["outputs"][0]["data"]) == (200, [6.0])
        assert headers["x-model-version"] == "v3"
        assert support.request(front.port, "POST", "/v2/models/model/infer", b"{")[0] == 400


def test_events_pass_as_they_come(fast: FastEngine, front: Front) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT)
    connection.request("POST", "/sse?count=4&gated=true")
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    assert answer.getheader("content-length") is None
    for number in range(4):
        assert answer.fp.readline().endswith(b"\r\n")
        assert answer.fp.readline() == b"data: %d\n" % number
        assert answer.fp.readline() == b"\n"
        assert answer.fp.readline() == b"\r\n"
        fast.let_go()
    assert answer.fp.readline() == b"0\r\n"
    connection.close()
    until(lambda: front.metrics()["serinus_streams_active"] == 0)


@pytest.mark.parametrize("target", ["/sse?count=1000000&gated=true", "/slow"])
def test_a_client_that_leaves_cancels_the_engines_work(fast: FastEngine, front: Front, target: str) -> None:
    before = fast.seen.cancelled
    with connect(front.port) as sock:
        sock.sendall(f"POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".encode())
        until(lambda: fast.seen.requests[-1][1] == target.partition("?")[0])
        if "sse" in target:
            assert b"data: 0" in sock.recv(10000)
    until(lambda: fast.seen.cancelled == before + 1)
    until(lambda: front.metrics()["serinus_inflight_requests"] == 0)
    assert front.metrics()["serinus_upstream_requests"] == 0


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_reader_that_stalls_holds_the_engine_and_not_our_memory(fast: FastEngine, front: Front) -> None:
    fast.seen.sent = 0
    before = _resident()
    with connect(front.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(b"GET /flood?megabytes=200 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        until(lambda: fast.seen.sent > 0)

        def still() -> bool:
            seen = fast.seen.sent
            time.sleep(0.1)
            return seen == fast.seen.sent

        until(still)
        assert fast.seen.sent < 60
        assert _resident() - before < 80 << 20
        total = 0
        while data := sock.recv(1 << 20):
            total += len(data)
        assert 200 << 20 < total < 201 << 20
        assert _resident() - before < 80 << 20


def test_the_front_counts_what_passes(fast: FastEngine) -> None:
    with Front(fast.port, proxy_paths=("/pla*",)) as front:
        for method, path in (("POST", "/echo"), ("POST", "/fail"), ("GET", "/plain"), ("GET", "/none")):
            front.ask(method, path, {} if path == "/echo" else None)
        front.ask("POST", "/sse?count=7")
        counted = front.metrics()
        assert counted['serinus_requests_total{code="200"}'] == 3
        assert counted['serinus_requests_total{code="500"}'] == 1
        assert counted["serinus_request_duration_seconds_count"] == 4
        assert counted["serinus_upstream_duration_seconds_count"] == 5
        assert counted["serinus_time_to_first_token_seconds_count"] == 1
        assert counted["serinus_stream_events_total"] == 7
        assert counted['serinus_streams_total{outcome="whole"}'] == 1
        assert counted["serinus_inflight_requests"] == 0
        assert counted["serinus_circuit_state"] == 0


def test_concurrency_queue_and_deadlines(fast: FastEngine) -> None:
    with (
        Front(fast.port, proxy_concurrency=1, queue_max_length=1, queue_timeout=10 * WAIT) as front,
        ExitStack() as connections,
    ):

        def begin(*headers: str) -> Reader:
            sock = connections.enter_context(connect(front.port))
            lines = ["POST /slow HTTP/1.1", "Host: t", "Content-Length: 0", *headers, "", ""]
            sock.sendall("\r\n".join(lines).encode())
            return connections.enter_context(Reader(sock))

        first = begin()
        until(lambda: front.metrics()["serinus_upstream_requests"] == 1)
        assert begin("X-Request-Timeout: 1s").answer()[0] == 504
        second = begin()
        until(lambda: front.metrics()["serinus_queue_depth"] == 1)
        status, headers, _ = begin().answer()
        assert (status, int(headers["retry-after"]) >= 1) == (429, True)
        fast.let_go()
        assert [first.answer()[0], second.answer()[0]] == [200, 200]
        fast.do(fast.seen.gate.clear)
        hasty = begin("X-Request-Timeout: 3s")
        before = fast.seen.cancelled
        status, _, body = hasty.answer()
        assert (status, json.loads(body)) == (504, {"error": "the client's time is over"})
        until(lambda: fast.seen.cancelled == before + 1)
        counted = front.metrics()
        assert counted['serinus_rejected_total{reason="queue_full"}'] == 1
        assert counted['serinus_rejected_total{reason="timeout"}'] == 2
        assert counted["serinus_circuit_state"] == 0, "a client in a hurry says nothing about the engine"
        assert begin("X-Request-Timeout: soon").answer()[0] == 400


@contextmanager
def _busy(fast: FastEngine, **settings: Any) -> Iterator[Front]:
    """A front whose engine works on one request and takes no second; what waits for it never reaches it."""
    seen = len(fast.seen.requests)
    with Front(fast.port, proxy_concurrency=1, **settings) as front, connect(front.port) as one:
        one.sendall(b"POST /slow HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        until(lambda: front.metrics()["serinus_upstream_requests"] == 1)
        yield front
        fast.let_go()
        with Reader(one) as reader:
            assert reader.answer()[0] == 200
        fast.do(fast.seen.gate.clear)
        assert all(path != "/echo" for _, path, _ in fast.seen.requests[seen:])


def test_what_waits_is_bounded_in_time(fast: FastEngine) -> None:
    with _busy(fast, queue_timeout=0.3) as front:
        assert front.ask("POST", "/echo", {})[0] == 504


def test_what_waits_is_forgotten_when_its_client_leaves(fast: FastEngine) -> None:
    with _busy(fast, queue_timeout=10 * WAIT) as front:
        with connect(front.port) as two:
            two.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}")
            until(lambda: front.metrics()["serinus_queue_depth"] == 1)
        until(lambda: front.metrics()["serinus_queue_depth"] == 0)


def _answering(*answers: bytes) -> Talk:
    left = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        answer = left.pop(0) if len(left) > 1 else left[0]
        writer.write(answer)
        await writer.drain()
        return not answer.endswith(b"<end>")

    return talk


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc<end>", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc<end>", 502),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nabc<end>", 502),
        (b"garbage\r\n\r\n<end>", 502),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n<end>", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n<end>", 502),
        (b"<end>", 502),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200),
        (b"HTTP/1.1 299 Strange Days\r\nContent-Length: 0\r\n\r\n", 299),
        (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200),
        (OK + b"garbage", 200),
    ],
)  # fmt: skip
def test_engines_that_answer_strangely(answer: bytes, status: int) -> None:
    with RawEngine(_answering(answer)) as engine, Front(engine.port) as front:
        for _ in range(3):
            got, headers, body = front.ask("POST", "/x", {})
            assert got == status
            assert b"evil" not in body
            assert b"evil" not in str(headers).encode()
        assert front.metrics()["serinus_upstream_requests"] == 0


def test_an_answer_without_length_ends_with_the_connection() -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\nuntil the end<end>"
    with RawEngine(_answering(answer)) as engine, Front(engine.port) as front:
        assert front.ask("GET", "/x")[2] == b"until the end<end>"


def test_a_stream_that_dies_looks_dead() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawEngine(_answering(head + b"9\r\ndata: 1\n\n\r\n9\r\n<end>")) as engine, Front(engine.port) as front:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT)
        connection.request("POST", "/x")
        with pytest.raises(http.client.IncompleteRead) as cut:
            connection.getresponse().read()
        assert cut.value.partial == b"data: 1\n\n<end>"[: len(cut.value.partial)]
        connection.close()
        counted = front.metrics()
        assert counted['serinus_streams_total{outcome="broken"}'] == 1
        assert counted['serinus_requests_total{code="502"}'] == 1


def test_a_stale_connection_is_tried_again_only_where_that_is_safe() -> None:
    """The engine closes every connection after one answer without saying so."""
    gone = threading.Semaphore(0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        if head.startswith(b"GET /first"):
            writer.write(OK)
            await writer.drain()
            # The next request on this connection is read, and then the connection ends.
            await reader.readuntil(b"\r\n\r\n")
            gone.release()
            return False
        writer.write(OK)
        return True

    with RawEngine(talk) as engine, Front(engine.port) as front:
        for method, status in (("GET", 200), ("PUT", 200), ("POST", 502)):
            assert front.ask("GET", "/first")[0] == 200
            assert front.ask(method, "/second")[0] == status
            assert gone.acquire(timeout=WAIT)
        assert front.metrics()["serinus_upstream_retries_total"] == 2


def test_an_engine_that_is_silent_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        if b"/part" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await reader.read()
        return False

    with RawEngine(talk) as engine, Front(engine.port, proxy_timeout=1.0) as front:
        assert front.ask("POST", "/x")[0] == 504
        with connect(front.port) as sock, sock.makefile("rb") as file:
            sock.sendall(b"POST /part HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
            text = file.read()
            assert text.endswith(b"data: 1\n\n\r\n")
        assert front.metrics()['serinus_requests_total{code="504"}'] == 2


def test_the_circuit_opens_when_the_engine_is_gone_and_closes_when_it_is_back() -> None:
    engine = FastEngine()
    with engine:
        front = Front(engine.port)
        front.__enter__()
        assert front.ask("POST", "/echo", {})[0] == 200
    try:
        until(lambda: front.ask("POST", "/echo", {})[1].get("retry-after"))
        answers = [front.ask("POST", "/echo", {}) for _ in range(8)]
        assert {status for status, _, _ in answers} == {503}
        assert json.loads(answers[-1][2]) == {"error": "the engine does not answer"}
        assert front.metrics()["serinus_circuit_state"] == 1
        until(lambda: front.ask("GET", "/v2/health/ready")[0] == 503)
        assert front.ask("GET", "/v2/health/live")[0] == 200
        with FastEngine(engine.port):
            until(lambda: front.ask("POST", "/echo", {})[0] == 200)
            assert front.metrics()["serinus_circuit_state"] == 0
            until(lambda: front.ask("GET", "/v2/health/ready")[0] == 200)
    finally:
        front.__exit__(None, None, None)


def test_a_drain_waits_for_streams(fast: FastEngine) -> None:
    front = Front(fast.port)
    with front, connect(front.port) as sock, sock.makefile("rb") as file:
        sock.sendall(b"POST /sse?count=3&gated=true HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        while file.readline() != b"data: 0\n":
            pass
        drained = asyncio.run_coroutine_threadsafe(front.server.drain(0.0), front.loop)
        until(lambda: front.server.state.refusing)
        assert not drained.done()
        for _ in range(2):
            fast.let_go()
            until(lambda: not fast.seen.gate.is_set())
        assert file.read().endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        drained.result(WAIT)


def test_a_drain_does_not_wait_for_ever(fast: FastEngine) -> None:
    with Front(fast.port, drain_timeout=0.2) as front, connect(front.port) as sock:
        sock.sendall(b"POST /sse?count=3&gated=true HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        assert sock.recv(10)
        front.call(front.server.drain(0.0))


def test_warm_up_comes_before_ready(tmp_path: Path, fast: FastEngine) -> None:
    warm = [{"path": "/echo", "body": {"warm": True}, "repeat": 2, "headers": {"X-Warm": "1"}}]
    (tmp_path / "warmup.json").write_text(json.dumps(warm))
    before = len(fast.seen.requests)
    with Front(fast.port, model_dir=tmp_path):
        warmed = [headers for _, path, headers in fast.seen.requests[before:] if path == "/echo"]
        assert [headers["x-warm"] for headers in warmed] == ["1", "1"]


@pytest.mark.parametrize("text", ['[{"path": "/fail"}]', "{", '[{"path": "echo"}]', '[{"path": "/echo", "typo": 1}]'])
def test_a_warm_up_that_fails_ends_the_start(tmp_path: Path, fast: FastEngine, text: str) -> None:
    (tmp_path / "warmup.json").write_text(text)
    with pytest.raises(FailureError) as failed, Front(fast.port, model_dir=tmp_path):
        pass
    assert failed.value.reason is Reason.WARMUP_FAILED


def test_not_ready_until_the_engine_is() -> None:
    with FastEngine() as engine:
        engine.seen.ready = False
        front = Front(engine.port)
        opening = threading.Thread(target=front.__enter__)
        opening.start()
        until(lambda: getattr(front, "port", 0))
        assert front.ask("GET", "/v2/health/ready")[0] == 503
        status, headers, _ = front.ask("POST", "/echo", {})
        assert (status, headers["retry-after"]) == (503, "1")
        engine.seen.ready = True
        opening.join(WAIT)
        assert front.ask("POST", "/echo", {})[0] == 200
        front.__exit__(None, None, None)


def test_an_engine_that_knows_no_health_path_is_ready_when_it_answers() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return True

    with RawEngine(talk) as engine, Front(engine.port, proxy_health="/health") as front:
        assert front.ask("GET", "/v2/health/ready")[0] == 200
    with AioEngine() as other, Front(other.port) as front:
        assert front.ask("GET", "/v2/health/ready")[0] == 200


def test_the_log_tells_what_passed(tmp_path: Path, fast: FastEngine) -> None:
    path = tmp_path / "log.jsonl"
    settings = {
        "prediction_log": str(path), "prediction_log_payloads": 1.0, "prediction_log_redact": frozenset({"secret"}),
    }  # fmt: skip
    with Front(fast.port, **settings) as front:
        front.ask("POST", "/echo", {"a": 1, "secret": "s", "deep": [{"secret": [1]}]}, {"X-Request-Id": "r-1"})
        front.ask("POST", "/echo", {"pad": "x" * 20_000})
        front.ask("POST", "/sse?count=2")
        front.ask("GET", "/plain")
        until(lambda: path.exists() and len(path.read_text().splitlines()) == 3)
    first, large, events = (json.loads(line) for line in path.read_text().splitlines())
    assert first["inputs"] == {"a": 1, "secret": "[redacted]", "deep": [{"secret": "[redacted]"}]}
    assert (first["method"], first["path"], first["code"]) == ("POST", "/echo", 200)
    assert (first["request_id"], first["version"], first["revision"]) == ("r-1", "v3", "r3")
    assert len(first["input_hash"]) == 32
    assert 0 < first["ms"]["upstream"] <= first["ms"]["total"]
    assert large["bytes_in"] > 20_000
    assert events["events"] == 2
    assert 'secret":"s"' not in path.read_text()


def test_nobody_is_there_yet() -> None:
    with listener() as taken:
        port = taken.getsockname()[1]
    front = Front(port)
    Loop.__enter__(front)
    front.call(front.listen())
    opening = asyncio.run_coroutine_threadsafe(front.server.load(), front.loop)
    assert front.ask("GET", "/v2/health/live")[0] == 200
    assert front.ask("GET", "/v2/health/ready")[0] == 503
    with FastEngine(port):
        opening.result(WAIT)
        assert front.ask("GET", "/v2/health/ready")[0] == 200
    front.__exit__(None, None, None)
