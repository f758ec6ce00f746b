"""The gRPC port from its client's side of the socket: answers, limits, flow control, abuse, drain."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serinus_runtime.config import Config
from serinus_runtime.grpc import frames, status
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.server import load_model
from unit.runtime import h2, support
from unit.runtime.h2 import message
from unit.runtime.support import WAIT

_REQUEST = message_class("inference.ModelInferRequest")
_RESPONSE = message_class("inference.ModelInferResponse")
_STREAM_RESPONSE = message_class("inference.ModelStreamInferResponse")
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
_WATCH = "/grpc.health.v1.Health/Watch"


def _ask(*rows: list[float], model: str = "model", request_id: str = "") -> bytes:
    request = _REQUEST(model_name=model, id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[len(rows), 3])
    request.raw_input_contents.append(np.array(rows, dtype="<f4").tobytes())
    data: bytes = request.SerializeToString()
    return data


def _sums(body: bytes) -> list[float]:
    response = _RESPONSE.FromString(body)
    values: list[float] = np.frombuffer(response.raw_output_contents[0], dtype="<f4").tolist()
    return values


@pytest.fixture(scope="module")
def served(sum_dir: Path) -> Iterator[support.Live]:
    """The model of `sum_dir` over gRPC, with small limits."""
    settings = {"max_request_bytes": 200_000, "model_version": "7", "revision": "r1", "model_dir": sum_dir}
    with support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, **settings) as server:
        yield server


def _port(live: support.Live) -> int:
    return live.server.grpc_port


def test_an_answer_says_who_gave_it(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        client.call(1, _ask([1, 2, 3], [4, 5, 6], request_id="a"), more={"x-request-id": "mine-1"})
        answer = client.answer(1)
        client.call(3, _ask([1, 1, 1]), more={"x-request-id": "not sane {}"})
        other = client.answer(3)
    assert answer.status == status.OK
    assert [_sums(body) for body in answer.messages] == [[6.0, 15.0]]
    assert _RESPONSE.FromString(answer.messages[0]).id == "a"
    assert answer.fields["x-model-version"] == "7"
    assert answer.fields["x-model-digest"].startswith("sha256:")
    assert answer.fields["x-serinus-revision"] == "r1"
    assert answer.fields["x-request-id"] == "mine-1"
    assert answer.fields["content-type"] == "application/grpc"
    assert other.fields["x-request-id"] not in ("", "not sane {}")


def test_requests_that_differ_in_their_numbers_only_are_told_apart(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        for index in range(20):
            client.call(2 * index + 1, _ask([index, 0, 0], request_id=str(index)))
            answer = client.answer(2 * index + 1)
            assert _RESPONSE.FromString(answer.messages[0]).id == str(index)
            assert _sums(answer.messages[0]) == [float(index)]


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (_ask([1, 2, 3], model="other"), status.NOT_FOUND, "model 'other' is not served here; this server has 'model'"),
        (b"\xff\xff", status.INVALID_ARGUMENT, "the message is not inference.ModelInferRequest"),
        (_REQUEST(model_name="model").SerializeToString(), status.INVALID_ARGUMENT, "input 'x' is missing"),
        (_ask() + b"\x3a\x00", status.INVALID_ARGUMENT, "raw_input_contents has 2 tensors, but there are 1 inputs"),
        (_ask(), status.INVALID_ARGUMENT, "has no rows; send at least one"),
        (b"\x2a\x00" * 50, status.NOT_FOUND, "model '' is not served here"),
        (b"\x0a\x05model" + b"\x2a\x00" * 5000, status.INVALID_ARGUMENT, "more than 4096 fields"),
    ],
)
def test_what_is_wrong_is_said_with_a_status(served: support.Live, body: bytes, code: int, text: str) -> None:
    with h2.connect(_port(served)) as client:
        client.call(1, body)
        answer = client.answer(1)
    assert (answer.status, text in answer.fields["grpc-message"]) == (code, True), answer.fields
    assert answer.fields["x-request-id"]
    assert answer.fields["x-model-version"] == "7"


def test_an_unknown_method_and_what_is_not_grpc_are_refused(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        client.call(1, b"", path="/inference.GRPCInferenceService/Nothing")
        assert client.answer(1).status == status.UNIMPLEMENTED
        client.send(frames.headers(3, client.block("/", grpc=False), frames.END_STREAM))
        answer = client.answer(3)
        assert answer.fields[":status"] == "415"
    with socket.create_connection(("127.0.0.1", _port(served)), timeout=WAIT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        text = sock.makefile("rb").read()
    assert b"HTTP/1.1 400 Bad Request\r\n" in text
    assert text.endswith(b"ask the HTTP port\n")


def test_compressed_messages_are_taken_when_they_are_gzip_and_small(served: support.Live) -> None:
    def squeezed(body: bytes) -> bytes:
        packed = gzip.compress(body)
        return b"\1" + struct.pack(">I", len(packed)) + packed

    with h2.connect(_port(served)) as client:
        cases = [
            (squeezed(_ask([1, 2, 3])), "gzip", status.OK, ""),
            (squeezed(bytes(50_000_000)), "gzip", status.RESOURCE_EXHAUSTED, "the body is larger than 200000 bytes"),
            (squeezed(_ask([1, 2, 3]))[:-3], "gzip", status.INVALID_ARGUMENT, "a length before it that is right"),
            (b"\1" + struct.pack(">I", 3) + b"abc", "gzip", status.INVALID_ARGUMENT, "not gzip"),
            (squeezed(b""), "zstd", status.UNIMPLEMENTED, "use identity or gzip"),
            (squeezed(b""), "identity", status.INTERNAL, "grpc-encoding does not say how"),
        ]
        for index, (body, encoding, code, text) in enumerate(cases):
            stream = 2 * index + 1
            client.begin(stream, more={"grpc-encoding": encoding})
            client.data(stream, body)
            answer = client.answer(stream)
            assert answer.status == code, answer
            assert text in answer.fields.get("grpc-message", "")
            assert answer.fields["grpc-accept-encoding"] == "identity,gzip"


def test_a_message_that_is_too_large_is_refused_before_it_has_come(served: support.Live) -> None:
    before = served.metrics()
    with h2.connect(_port(served)) as client:
        client.begin(1)
        client.send(frames.head(5, frames.DATA, 0, 1) + b"\0" + struct.pack(">I", 200_001))
        answer = client.answer(1)
        assert answer.status == status.RESOURCE_EXHAUSTED
        assert answer.fields["grpc-message"] == "the body is larger than 200000 bytes"
        client.data(1, bytes(1000), 0)
        client.call(3, _ask([1, 2, 3]))
        assert client.answer(3).status == status.OK
    after = served.metrics()
    assert after['serinus_requests_total{code="413"}'] - before.get('serinus_requests_total{code="413"}', 0) == 1
    assert (
        after['serinus_rejected_total{reason="too_large"}'] - before['serinus_rejected_total{reason="too_large"}'] == 1
    )


@pytest.mark.parametrize("body", [b"", message(b"") * 2, b"\0\0\0\0\5abc", b"\0\0"])
def test_a_plain_call_has_one_whole_message(served: support.Live, body: bytes) -> None:
    with h2.connect(_port(served)) as client:
        client.begin(1)
        client.data(1, body)
        assert client.answer(1).status == status.INVALID_ARGUMENT
    assert served.server.receiving() == 0


def test_a_message_may_come_in_any_pieces(served: support.Live) -> None:
    body = message(_ask([1, 2, 3]))
    with h2.connect(_port(served)) as client:
        client.begin(1)
        for at in range(len(body)):
            client.data(1, body[at : at + 1], 0)
        client.data(1, b"")
        assert _sums(client.answer(1).messages[0]) == [6.0]


def test_requests_are_counted_and_logged_like_those_over_http(sum_dir: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = {"model_dir": sum_dir, "prediction_log": str(log)}
    with support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, **settings) as live:
        with h2.connect(_port(live)) as client:
            client.call(1, _ask([1, 2, 3]), more={"x-request-id": "over-grpc"})
            assert client.answer(1).status == status.OK
            client.call(3, b"\x0a\x05model")
            assert client.answer(3).status == status.INVALID_ARGUMENT
        assert support.request(live.port, "POST", "/v2/models/model/infer", support.infer_body([1, 2, 3]))[0] == 200
        found = live.metrics()
    assert found['serinus_requests_total{code="200"}'] == 2
    assert found['serinus_requests_total{code="400"}'] == 1
    assert found["serinus_inflight_requests"] == 0
    assert found["serinus_request_duration_seconds_count"] == 2
    lines = [support.json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["request_id"] == "over-grpc"
    assert lines[0]["outputs"] == {"y": [[6.0]]}
    assert lines[0]["input_hash"] == lines[2]["input_hash"]


# Flow control.


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.Live]:
    """A model whose answers are as large as its requests."""
    folder = support.echo_model(tmp_path_factory.mktemp("models") / "echo")
    with support.Live(
        load_model(Config(model_dir=folder)), grpc_port=0, model_dir=folder, queue_max_length=20_000
    ) as live:
        yield live


def _wide(rows: int) -> tuple[bytes, bytes]:
    numbers = np.arange(2 * rows, dtype="<f8").tobytes()
    request = _REQUEST(model_name="model")
    kept = ("FP64",)
    for name in support.ECHOED:
        request.inputs.add(name=f"in_{name}", datatype=name, shape=[rows, 2])
        size = 4 if name == "BYTES" else support.NUMPY[name].itemsize
        request.raw_input_contents.append(numbers if name in kept else bytes(2 * rows * size))
    request.outputs.add(name="out_FP64")
    data: bytes = request.SerializeToString()
    return data, numbers


def test_an_answer_larger_than_the_windows_waits_for_them(wide: support.Live) -> None:
    body, numbers = _wide(10_000)
    with h2.connect(_port(wide), {frames.INITIAL_WINDOW_SIZE: 1000}) as client:
        client.call(1, body)
        while client.received(1) < 1000:
            client.take(client.frame() or pytest.fail("closed"))
        client.ping()
        assert client.received(1) == 1000
        client.send(frames.window_update(1, 500))
        client.ping()
        assert client.received(1) == 1500
        client.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 20}))
        client.ping()
        assert client.received(1) == 65535, "the connection's window"
        client.send(frames.window_update(0, 1 << 20))
        answer = client.answer(1)
    assert answer.status == status.OK
    assert _RESPONSE.FromString(answer.messages[0]).raw_output_contents[0] == numbers


def test_answers_that_wait_share_the_window(wide: support.Live) -> None:
    body, numbers = _wide(5_000)
    with h2.connect(_port(wide)) as client:
        for stream in (1, 3, 5):
            client.call(stream, body)
        client.send(frames.window_update(0, 1 << 20))
        for stream in (1, 3, 5):
            client.send(frames.window_update(stream, 1 << 20))
        for stream in (5, 3, 1):
            assert _RESPONSE.FromString(client.answer(stream).messages[0]).raw_output_contents[0] == numbers


def test_a_client_that_takes_no_answer_is_dropped_and_its_memory_freed(sum_dir: Path) -> None:
    engine = support.GateEngine()
    with support.Live(support.gated(engine), grpc_port=0, request_timeout=0.4) as live:
        with h2.connect(_port(live), {frames.INITIAL_WINDOW_SIZE: 0}) as client:
            client.call(1, _ask([1, 2, 3]))
            gone = client.end()
        assert gone is not None
        assert gone.code == frames.ENHANCE_YOUR_CALM
        assert live.server._grpc is not None
        assert live.server._grpc._port.held_bytes == 0


# Deadlines, cancelled calls, full queues.


@pytest.fixture
def held(engine: support.GateEngine) -> Iterator[support.Live]:
    """A server whose engine the test holds up; eight rows may wait."""
    with support.Live(support.gated(engine), grpc_port=0, batch_max_size=1, queue_max_length=8) as live:
        yield live


def _occupied(client: h2.Client, engine: support.GateEngine) -> None:
    """The engine is busy with stream 1."""
    engine.gate.clear()
    client.call(1, _ask([9, 9, 9]))
    assert engine.started.acquire(timeout=WAIT)


def test_a_call_whose_deadline_passes_is_answered_and_not_run(held: support.Live, engine: support.GateEngine) -> None:
    with h2.connect(_port(held)) as client:
        _occupied(client, engine)
        client.call(3, _ask([1, 2, 3]), more={"grpc-timeout": "30m"})
        answer = client.answer(3)
        engine.gate.set()
        assert client.answer(1).status == status.OK
        client.call(5, _ask([1, 1, 1]), more={"grpc-timeout": "60S"})
        assert client.answer(5).status == status.OK
    assert answer.status == status.DEADLINE_EXCEEDED
    # Who looks at the clock first after the time is over, the connection or the queue, is not said.
    words = ("the deadline of the request has passed", "the request's deadline passed while it waited in the queue")
    assert answer.fields["grpc-message"] in words
    assert len(engine.batches) == 2
    found = held.metrics()
    assert found['serinus_requests_total{code="504"}'] == 1
    assert found["serinus_inflight_requests"] == 0


def test_a_call_that_is_cancelled_is_not_run(held: support.Live, engine: support.GateEngine) -> None:
    with h2.connect(_port(held)) as client:
        _occupied(client, engine)
        client.call(3, _ask([1, 2, 3]))
        client.send(frames.rst_stream(3, frames.CANCEL))
        client.ping()
        engine.gate.set()
        client.call(5, _ask([1, 1, 1]))
        assert client.answer(5).status == status.OK
    assert len(engine.batches) == 2
    assert held.metrics()["serinus_inflight_requests"] == 0


def test_a_client_that_is_gone_is_not_worked_for(held: support.Live, engine: support.GateEngine) -> None:
    with h2.connect(_port(held)) as client:
        _occupied(client, engine)
        client.call(3, _ask([1, 2, 3]))
        client.ping()
    while held.metrics()["serinus_inflight_requests"]:
        pass
    engine.gate.set()
    with h2.connect(_port(held)) as client:
        client.call(1, _ask([1, 1, 1]))
        assert client.answer(1).status == status.OK
    assert len(engine.batches) == 2


def test_a_full_queue_says_when_to_come_back(held: support.Live, engine: support.GateEngine) -> None:
    with h2.connect(_port(held)) as client:
        _occupied(client, engine)
        for index in range(8):
            client.call(3 + 2 * index, _ask([1, 2, 3]))
        client.call(31, _ask([1, 2, 3]))
        answer = client.answer(31)
        engine.gate.set()
        assert all(client.answer(3 + 2 * index).status == status.OK for index in range(8))
    assert (answer.status, answer.fields["grpc-message"]) == (
        status.RESOURCE_EXHAUSTED,
        "the queue is full: try again later",
    )
    assert answer.fields["grpc-retry-pushback-ms"] == "1000"
    assert held.metrics()['serinus_requests_total{code="429"}'] == 1


def test_a_request_that_never_ends_is_refused(sum_dir: Path) -> None:
    with (
        support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, request_timeout=0.4) as live,
        h2.connect(_port(live)) as client,
    ):
        client.begin(1)
        client.data(1, b"\0\0", 0)
        answer = client.answer(1)
        assert answer.status == status.DEADLINE_EXCEEDED
        assert "not complete after 0.4 s" in answer.fields["grpc-message"]


def test_a_thousand_calls_at_once(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        client.send(frames.window_update(0, 1 << 20))
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(lambda: [client.call(2 * n + 1, _ask([n, 0, 0])) for n in range(1000)])
            answers = [client.answer(2 * n + 1) for n in range(1000)]
            sending.result()
    found = [_sums(answer.messages[0])[0] if answer.messages else answer.status for answer in answers]
    refused = sum(answer.status == status.RESOURCE_EXHAUSTED for answer in answers)
    assert [value for n, value in enumerate(found) if value != n] == [status.RESOURCE_EXHAUSTED] * refused
    assert refused < 1000 - 512, "one is under way and 512 wait, however slow the engine is"


# Streams of messages.


def test_a_stream_answers_in_order_and_says_what_fails_in_its_place(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        client.begin(1, _STREAM)
        bodies = [_ask([n, 0, 0], request_id=str(n)) if n != 5 else b"\xff" for n in range(300)]
        client.data(1, b"".join(map(message, bodies)))
        answer = client.answer(1)
    assert answer.status == status.OK
    found = [_STREAM_RESPONSE.FromString(body) for body in answer.messages]
    assert len(found) == 300
    for n, response in enumerate(found):
        if n == 5:
            assert "not inference.ModelInferRequest" in response.error_message
        else:
            assert response.infer_response.id == str(n)
            assert np.frombuffer(response.infer_response.raw_output_contents[0], "<f4").tolist() == [n]


def test_a_stream_takes_only_what_it_works_on(held: support.Live, engine: support.GateEngine) -> None:
    engine.gate.clear()
    with h2.connect(_port(held)) as client:
        client.begin(1, _STREAM)
        client.data(1, b"".join(message(_ask([n, 0, 0])) for n in range(5)), 0)
        assert engine.started.acquire(timeout=WAIT)
        client.send(frames.rst_stream(1, frames.CANCEL))
        client.ping()
        engine.gate.set()
        client.call(3, _ask([1, 2, 3]))
        assert client.answer(3).status == status.OK
    assert len(engine.batches) == 2
    assert held.metrics()["serinus_inflight_requests"] == 0


def test_health_is_told_when_it_changes(sum_dir: Path) -> None:
    response = message_class("grpc.health.v1.HealthCheckResponse")
    with (
        support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, request_timeout=0.4) as live,
        h2.connect(_port(live)) as client,
    ):
        client.begin(1, _WATCH)
        client.data(1, message(b""))
        while client.received(1) < 7:
            client.take(client.frame() or pytest.fail("closed"))
        live.server.state.draining = True
        while client.received(1) < 14:
            client.take(client.frame() or pytest.fail("closed"))
        client.call(3, b"", h2.HEALTH)
        assert response.FromString(client.answer(3).messages[0]).status == 2
        client.call(5, b"\x0a\x01x", h2.HEALTH)
        assert client.answer(5).status == status.NOT_FOUND


# Abuse.


def _flood(client: h2.Client, data: bytes, times: int) -> frames.ConnectionFaultError | int:
    """Sends `data` until the server has had enough; the error code that it gives."""

    def send() -> None:
        try:
            for _ in range(times // 100):
                client.send(data * 100)
        except OSError:
            pass

    sender = threading.Thread(target=send)
    sender.start()
    gone = client.end()
    sender.join(WAIT)
    assert gone is not None
    return gone.code


@pytest.mark.parametrize(
    "frame",
    [
        frames.head(8, frames.PING, 0, 0) + bytes(8),
        frames.settings({frames.INITIAL_WINDOW_SIZE: 65535}),
        frames.head(5, frames.PRIORITY, 0, 1) + b"\0\0\0\3\0",
        frames.head(0, 0x77, 0, 0),
        frames.window_update(0, 1),
    ],
    ids=["ping", "settings", "priority", "unknown", "window"],
)
def test_frames_without_use_are_limited(served: support.Live, frame: bytes) -> None:
    with h2.connect(_port(served)) as client:
        assert _flood(client, frame, 100_000) == frames.ENHANCE_YOUR_CALM


def test_rapid_reset_is_limited(held: support.Live, engine: support.GateEngine) -> None:
    engine.gate.clear()
    with h2.connect(_port(held)) as client:
        client.begin(1)
        block = client.block()

        def abuse() -> None:
            try:
                for stream in range(3, 200_003, 2):
                    client.send(frames.headers(stream, block, 0) + frames.rst_stream(stream, frames.CANCEL))
            except OSError:
                pass

        sender = threading.Thread(target=abuse)
        sender.start()
        gone = client.end()
        sender.join(WAIT)
    assert gone is not None
    assert gone.code == frames.ENHANCE_YOUR_CALM
    assert int.from_bytes(gone.payload[:4], "big") < 4000


def test_endless_headers_are_limited(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        client.send(frames.head(0, frames.HEADERS, 0, 1))
        assert _flood(client, frames.head(0, frames.CONTINUATION, 0, 1), 10_000) == frames.ENHANCE_YOUR_CALM
    with h2.connect(_port(served)) as client:
        client.begin(1, more={"x": "y" * 40_000})
        gone = client.end()
        assert gone is not None
        assert gone.code == frames.ENHANCE_YOUR_CALM


def test_a_header_bomb_is_not_unpacked(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        client.begin(1, more={"x": "y" * 3000})
        # One byte each, which stands for three thousand.
        client.send(frames.headers(3, b"\xbe" * 16_000, 0))
        gone = client.end()
    assert gone is not None
    assert gone.code == frames.ENHANCE_YOUR_CALM


def test_more_streams_than_allowed_are_refused_and_may_be_tried_again(served: support.Live) -> None:
    with h2.connect(_port(served)) as client:
        for n in range(1025):
            client.begin(2 * n + 1)
        assert client.answer(2049).reset == frames.REFUSED_STREAM
        client.data(1, message(_ask([1, 2, 3])))
        assert client.answer(1).status == status.OK


def test_too_many_bytes_in_all_are_refused(sum_dir: Path) -> None:
    settings = {"receive_max_bytes": 100_000, "model_dir": sum_dir}
    with (
        support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, **settings) as live,
        h2.connect(_port(live)) as client,
    ):
        for stream in (1, 3, 5):
            client.begin(stream)
            client.data(stream, message(bytes(60_000))[:40_000], 0)
        answer = client.answer(5)
        assert answer.status == status.RESOURCE_EXHAUSTED
        assert answer.fields["grpc-message"] == "too many large requests are being received: try again later"


# Drain.


def test_a_drain_loses_nothing(held: support.Live, engine: support.GateEngine) -> None:
    with h2.connect(_port(held)) as client, h2.connect(_port(held)) as idle:
        _occupied(client, engine)
        idle.ping()
        with ThreadPoolExecutor(1) as pool:
            draining = pool.submit(lambda: held.call(held.server.drain(0.2)))
            warned = next(found for found in client.frames() if found.kind == frames.GOAWAY)
            assert int.from_bytes(warned.payload[:4], "big") == frames.MAX_WINDOW, "new calls are still taken"
            client.call(3, _ask([1, 2, 3]))
            last = idle.end()
            assert last is not None
            assert last.code == frames.NO_ERROR
            while client.goaway is None:
                client.take(client.frame() or pytest.fail("closed"))
            assert int.from_bytes(client.goaway.payload[:4], "big") == 3, "what it has taken, it answers"
            engine.gate.set()
            assert client.answer(1).status == status.OK
            assert client.answer(3).status == status.OK
            assert client.frame() is None
            draining.result(WAIT)


def test_a_frame_that_does_not_come_to_its_end_ends_the_connection(sum_dir: Path) -> None:
    with (
        support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, request_timeout=0.4) as live,
        h2.connect(_port(live)) as client,
    ):
        client.ping()
        client.send(frames.head(100, frames.HEADERS, frames.END_HEADERS, 1) + b"abc")
        gone = client.end()
    assert gone is not None
    assert gone.code == frames.ENHANCE_YOUR_CALM


def test_heads_of_calls_under_way_are_counted(served: support.Live) -> None:
    assert served.server._grpc is not None
    port = served.server._grpc._port
    with h2.connect(_port(served)) as client:
        for stream in range(1, 21, 2):
            client.begin(stream, more={"x": f"{stream:010000}"})
        client.ping()
        assert port.received_bytes > 10 * 5_000
        assert port.calls == 10
        client.send(frames.rst_stream(1, frames.CANCEL))
        client.data(3, message(_ask([1, 2, 3])))
        assert client.answer(3).status == status.OK
        assert port.calls == 8
    while port.calls:
        pass
    assert port.received_bytes == 0
