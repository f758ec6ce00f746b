"""gRPC calls that pass to an engine beside the front: grpcio's server behind it, grpcio's client before it."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.loading import load_model
from serinus_runtime.proxy.settings import parse_url
from serinus_runtime.state import GOING
from unit.runtime.engines import FastEngine, Front
from unit.runtime.grpc_engine import SERVICE, GrpcEngine
from unit.runtime.ports import until
from unit.runtime.support import WAIT, Live
from unit.runtime.test_tracing import PARENT, TRACE, TRACEPARENT, Collector, attributes, collector

__all__ = ["collector"]


@pytest.fixture(scope="module")
def fast() -> Iterator[FastEngine]:
    """The engine's HTTP port, which says that it is ready."""
    with FastEngine() as engine:
        yield engine


@pytest.fixture
def engine() -> Iterator[GrpcEngine]:
    with GrpcEngine() as made:
        yield made


@contextmanager
def fronted(fast: FastEngine, port: int, **settings: Any) -> Iterator[tuple[Front, grpc.Channel]]:
    """A front before both ports, and a channel to it."""
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{port}"
        front = stack.enter_context(Front(fast.port, proxy_grpc_url=url, grpc_port=0, **settings))
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(f"127.0.0.1:{front.server.grpc_port}", options)
        yield front, stack.enter_context(channel)


@pytest.fixture
def channel(fast: FastEngine, engine: GrpcEngine) -> Iterator[grpc.Channel]:
    with fronted(fast, engine.port, max_request_bytes=8 << 20) as (_, made):
        yield made


def _unary(channel: grpc.Channel, name: str) -> Any:
    return channel.unary_unary(SERVICE + name)


def _code(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


def test_a_call_passes_with_its_metadata(engine: GrpcEngine, channel: grpc.Channel) -> None:
    metadata = (("x-mine", "yes"), ("x-mine-bin", b"\x00\x01"), ("x-request-id", "id-1"))
    answer, call = _unary(channel, "Echo").with_call(b"this", metadata=metadata, timeout=WAIT)
    assert answer == b"got this"
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["x-engine"], initial["x-engine-bin"], trailing["x-trailer"]) == ("one", b"\x00\xff", "t")
    assert (initial["x-model-version"], initial["x-serinus-revision"]) == ("v3", "r3")
    assert (initial["x-request-id"], initial["x-model-digest"]) == ("id-1", "unknown")
    name, seen = engine.seen[-1]
    assert (name, seen["x-mine"], seen["x-mine-bin"], seen["x-request-id"]) == ("echo", "yes", b"\x00\x01", "id-1")
    assert "grpc-python" in seen["user-agent"]


def test_errors_pass_as_they_are(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _unary(channel, "Fail")(b"", timeout=WAIT)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "größe 100% missing")
    assert dict(error.trailing_metadata())["x-why-bin"] == b"\x01"
    assert _code(lambda: _unary(channel, "Break")(b"", timeout=WAIT))[0] is grpc.StatusCode.UNKNOWN
    assert _code(lambda: _unary(channel, "Absent")(b"", timeout=WAIT))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_streams_of_every_kind(channel: grpc.Channel) -> None:
    counted = channel.unary_stream(SERVICE + "Count")(b"300", timeout=WAIT)
    assert [int(each) for each in counted] == list(range(300))
    assert list(channel.unary_stream(SERVICE + "Count")(b"0", timeout=WAIT)) == []
    numbers = (b"%d" % number for number in range(500))
    assert channel.stream_unary(SERVICE + "Sum")(numbers, timeout=WAIT) == b"124750"
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    chat = channel.stream_stream(SERVICE + "Chat")(iter(said.get, None), timeout=WAIT)
    for number in range(20):
        said.put(b"%d" % number)
        assert next(chat) == b"you said %d" % number, "answers come while the client goes on"
    said.put(None)
    assert list(chat) == []


def test_large_messages(channel: grpc.Channel) -> None:
    body = b"abcd" * (1 << 19)
    assert _unary(channel, "Echo")(body, timeout=WAIT) == body
    assert sum(len(each) for each in channel.unary_stream(SERVICE + "Pour")(b"24", timeout=WAIT)) == 24 << 20
    code, text = _code(lambda: _unary(channel, "Echo")(bytes(9 << 20), timeout=WAIT))
    assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, f"the body is larger than {8 << 20} bytes")


def test_compressed_messages(channel: grpc.Channel, engine: GrpcEngine) -> None:
    body = b"abcd" * 1000
    assert _unary(channel, "Echo")(body, timeout=WAIT, compression=grpc.Compression.Gzip) == body


def test_many_calls_share_a_connection(fast: FastEngine, engine: GrpcEngine) -> None:
    with fronted(fast, engine.port) as (front, channel):
        echo = _unary(channel, "Echo")
        calls = [echo.future(b"%d" % number, timeout=WAIT) for number in range(400)]
        assert [call.result(WAIT) for call in calls] == [b"got %d" % number for number in range(400)]
        told = front.metrics()
        assert told['serinus_requests_total{code="200"}'] == 400
        assert told["serinus_inflight_requests"] == 0
        assert told["serinus_grpc_upstream_connects_total"] == 1
        assert told["serinus_grpc_upstream_calls"] == 0


def test_who_gives_up_is_given_up_by_the_engine(fast: FastEngine, engine: GrpcEngine) -> None:
    with fronted(fast, engine.port) as (front, channel):
        call = _unary(channel, "Wait").future(b"")
        assert engine.waiting.acquire(timeout=WAIT)
        call.cancel()
        until(lambda: engine.cancelled == 1)
        assert _code(lambda: _unary(channel, "Wait")(b"", timeout=0.3))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert engine.remaining[-1] is not None
        assert engine.remaining[-1] < 1.0, "the engine knows how long it has"
        until(lambda: engine.cancelled == 2)
        until(lambda: front.metrics()["serinus_inflight_requests"] == 0)
        assert front.metrics()["serinus_grpc_upstream_calls"] == 0


def test_the_queue_is_bounded(fast: FastEngine, engine: GrpcEngine) -> None:
    with fronted(fast, engine.port, proxy_concurrency=1, queue_max_length=1) as (front, channel):
        wait = _unary(channel, "Wait")
        first = wait.future(b"")
        assert engine.waiting.acquire(timeout=WAIT)
        second = wait.future(b"")
        until(lambda: front.metrics()["serinus_grpc_queue_depth"] == 1)
        code, text = _code(lambda: wait(b"", timeout=WAIT))
        assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full: try again later")
        assert _unary(channel, "Absent").future(b"").exception(WAIT).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        engine.gate.set()
        assert (first.result(WAIT), second.result(WAIT)) == (b"waited", b"waited")
        told = front.metrics()
        assert told['serinus_rejected_total{reason="queue_full"}'] == 2
        assert told['serinus_requests_total{code="429"}'] == 2


def test_waiting_has_an_end(fast: FastEngine, engine: GrpcEngine) -> None:
    with fronted(fast, engine.port, proxy_concurrency=1, queue_timeout=0.1) as (front, channel):
        first = _unary(channel, "Wait").future(b"")
        assert engine.waiting.acquire(timeout=WAIT)
        code, text = _code(lambda: _unary(channel, "Echo")(b"", timeout=WAIT))
        assert (code, "longer than the queue timeout" in text) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
        assert front.metrics()['serinus_rejected_total{reason="timeout"}'] == 1
        engine.gate.set()
        assert first.result(WAIT) == b"waited"


def test_who_still_comes_when_the_server_goes_is_sent_elsewhere(fast: FastEngine, engine: GrpcEngine) -> None:
    """Over both protocols in the same words, and counted as what it is."""
    with fronted(fast, engine.port) as (front, channel):
        front.server.state.refusing = True
        status, headers, body = front.ask("POST", "/echo", {})
        assert (status, json.loads(body)) == (503, {"error": GOING.message})
        assert (headers["retry-after"], headers["connection"]) == ("1", "close")
        assert _code(lambda: _unary(channel, "Echo")(b"")) == (grpc.StatusCode.UNAVAILABLE, GOING.message)
        assert front.metrics()['serinus_rejected_total{reason="draining"}'] == 2


def test_an_engine_that_is_silent_is_given_up(fast: FastEngine, engine: GrpcEngine) -> None:
    with fronted(fast, engine.port, proxy_timeout=0.2) as (front, channel):
        code, text = _code(lambda: _unary(channel, "Wait")(b"", timeout=WAIT))
        assert (code, text) == (grpc.StatusCode.DEADLINE_EXCEEDED, "the engine did not answer in time")
        until(lambda: engine.cancelled == 1)
        assert front.metrics()['serinus_upstream_errors_total{kind="timeout"}'] == 1


def test_an_engine_that_goes_and_comes_back(fast: FastEngine) -> None:
    with GrpcEngine() as first:
        port = first.port
        with ExitStack() as stack:
            front, channel = stack.enter_context(fronted(fast, port))
            echo = _unary(channel, "Echo")
            assert echo(b"1", timeout=WAIT) == b"got 1"
            waiting = _unary(channel, "Wait").future(b"")
            assert first.waiting.acquire(timeout=WAIT)
            first.__exit__(None, None, None)
            assert waiting.exception(WAIT).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            code, _ = _code(lambda: echo(b"2", timeout=WAIT))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert front.metrics()['serinus_upstream_errors_total{kind="unreachable"}'] >= 1
            with GrpcEngine(port):
                assert echo(b"3", timeout=WAIT) == b"got 3"


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"\xff" * 200, b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\xff", b""],
    ids=["http1", "garbage", "hpack", "nothing"],
)
def test_an_engine_that_does_not_speak_grpc(fast: FastEngine, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def talk() -> None:
            sock, _ = listening.accept()
            sock.recv(65536)
            sock.sendall(said)
            if not said:
                sock.close()
            else:
                sock.settimeout(WAIT)
                with sock:
                    while sock.recv(65536):
                        pass

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with fronted(fast, port) as (front, channel):
            code, text = _code(lambda: _unary(channel, "Echo")(b"", timeout=WAIT))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "not HTTP/2" in text or "closed the connection" in text
            assert front.metrics()['serinus_upstream_errors_total{kind="broken"}'] == 1
        thread.join(WAIT)


def test_a_client_that_does_not_read_holds_the_engine_up(fast: FastEngine, engine: GrpcEngine) -> None:
    with fronted(fast, engine.port) as (front, channel):
        poured = channel.unary_stream(SERVICE + "Pour")(b"512", timeout=60)
        next(poured)
        looks = [-1]

        def stands_still() -> bool:
            looks.append(engine.produced)
            return len(looks) > 100 and len(set(looks[-100:])) == 1

        until(stands_still)
        assert engine.produced < 128 << 20, "512 MiB were not made for a client that took one"
        held = front.server._grpc
        assert held is not None
        assert held._port.held_bytes < 2 << 20
        poured.cancel()
        until(lambda: front.metrics()["serinus_inflight_requests"] == 0)


def test_keys_rates_and_the_log(fast: FastEngine, engine: GrpcEngine, tmp_path: Path) -> None:
    keys, log = tmp_path / "keys", tmp_path / "log.jsonl"
    keys.write_text("shop a-key-for-the-shop rate=1/h burst=2\n")
    with fronted(fast, engine.port, api_keys_file=keys, prediction_log=str(log)) as (_, channel):
        echo, key = _unary(channel, "Echo"), (("authorization", "Bearer a-key-for-the-shop"),)
        assert _code(lambda: echo(b"", timeout=WAIT))[0] is grpc.StatusCode.UNAUTHENTICATED
        _, call = echo.with_call(b"one", metadata=key, timeout=WAIT)
        assert "r=1" in dict(call.initial_metadata())["ratelimit"]
        assert list(channel.unary_stream(SERVICE + "Count")(b"2", metadata=key, timeout=WAIT)) == [b"0", b"1"]
        assert _code(lambda: echo(b"", metadata=key, timeout=WAIT))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        until(lambda: log.exists() and log.read_text().count("\n") == 4)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["code"], line["path"], line.get("client")) for line in lines] == [
        (401, "/test.Engine/Echo", None), (200, "/test.Engine/Echo", "shop"), (200, "/test.Engine/Count", "shop"),
        (429, "/test.Engine/Echo", "shop"),
    ]  # fmt: skip
    assert (lines[1]["bytes_in"], lines[1]["bytes_out"]) == (3, 5 + len(b"got one"))


def test_spans_and_context(fast: FastEngine, engine: GrpcEngine, collector: Collector) -> None:
    with fronted(fast, engine.port, otlp_endpoint=collector.url) as (_, channel):
        _unary(channel, "Echo")(b"", metadata=(("traceparent", TRACEPARENT),), timeout=WAIT)
        until(lambda: any(span.kind == Span.SPAN_KIND_SERVER for span in collector.spans))
    span = next(span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert engine.seen[-1][1]["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert attributes(span)["url.path"] == "/test.Engine/Echo"


def test_health_is_ours(channel: grpc.Channel) -> None:
    asked, answered = (message_class(f"grpc.health.v1.HealthCheck{kind}") for kind in ("Request", "Response"))
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert answered.FromString(check(asked().SerializeToString(), timeout=WAIT)).status == 1


def test_our_own_server_behind_the_front(fast: FastEngine, sum_dir: Path) -> None:
    ask = message_class("inference.ModelInferRequest")(model_name="model")
    ask.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    ask.raw_input_contents.append(np.array([1, 2, 3], "<f4").tobytes())
    answered = message_class("inference.ModelInferResponse")
    with (
        Live(load_model(Config(model_dir=sum_dir)), grpc_port=0) as live,
        fronted(fast, live.server.grpc_port) as (front, channel),
    ):
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        told = answered.FromString(infer(ask.SerializeToString(), timeout=WAIT))
        assert np.frombuffer(told.raw_output_contents[0], "<f4").tolist() == [6.0]
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        assert ready(b"", timeout=WAIT) == b"\x08\x01"
        assert front.metrics()['serinus_requests_total{code="200"}'] == 1, (
            "what only asks about the server is not counted"
        )


@pytest.mark.parametrize("url", ["grpc://h:1", "http://h:1/path", "https://h:1", "h:1"])
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(FailureError, match="SERINUS_PROXY_GRPC_URL"):
        parse_url(url, "SERINUS_PROXY_GRPC_URL")


def test_only_a_key_for_it_changes_which_models_the_engine_serves(
    fast: FastEngine, engine: GrpcEngine, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("shop a-key-for-the-shop\noperator a-key-for-operators scopes=control\n")
    with fronted(fast, engine.port, api_keys_file=keys) as (_, channel):
        for method in (
            "inference.GRPCInferenceService/RepositoryModelLoad",
            "inference.GRPCInferenceService/RepositoryModelUnload",
            "tensorflow.serving.ModelService/HandleReloadConfigRequest",
        ):
            call = channel.unary_unary(f"/{method}")
            for key, code in (
                ("a-key-for-the-shop", grpc.StatusCode.PERMISSION_DENIED),
                ("a-key-for-operators", grpc.StatusCode.UNIMPLEMENTED),
            ):
                metadata = (("x-api-key", key),)
                found = _code(lambda call=call, metadata=metadata: call(b"", metadata=metadata, timeout=WAIT))
                assert found[0] is code, method
