"""Traces of our own models over gRPC, as grpcio's client sees them and a collector receives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serinus_runtime.grpc.schema import message_class
from unit.runtime.support import WAIT, GateEngine, Live, gated
from unit.runtime.test_tracing import PARENT, TRACE, TRACEPARENT, Collector, attributes, collector, until

__all__ = ["collector"]

_REQUEST = message_class("inference.ModelInferRequest")
_STREAM_RESPONSE = message_class("inference.ModelStreamInferResponse")
_SERVICE = "/inference.GRPCInferenceService/"
_STAGES = ["decode", "queue", "infer", "encode"]


def _ask(*rows: list[float]) -> bytes:
    request = _REQUEST(model_name="model")
    request.inputs.add(name="x", datatype="FP32", shape=[len(rows), 3])
    request.raw_input_contents.append(np.array(rows, dtype="<f4").tobytes())
    data: bytes = request.SerializeToString()
    return data


@contextmanager
def _served(**settings: Any) -> Iterator[tuple[Live, grpc.Channel]]:
    with (
        Live(gated(GateEngine()), grpc_port=0, **settings) as live,
        grpc.insecure_channel(f"127.0.0.1:{live.server.grpc_port}") as channel,
    ):
        yield live, channel


def _one(spans: list[Span]) -> tuple[Span, list[Span]]:
    (server,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    parts = sorted((span for span in spans if span is not server), key=lambda span: span.start_time_unix_nano)
    return server, parts


def test_a_call_is_a_span_with_its_stages_under_the_clients_trace(collector: Collector, tmp_path: Path) -> None:
    settings = {"otlp_endpoint": collector.url, "model_version": "v7", "prediction_log": str(tmp_path / "log")}
    metadata = (("traceparent", TRACEPARENT), ("tracestate", "vendor=x"), ("x-request-id", "abc"))
    with _served(**settings) as (_, channel):
        infer = channel.unary_unary(_SERVICE + "ModelInfer")
        _, call = infer.with_call(_ask([1, 2, 3], [4, 5, 6]), metadata=metadata, timeout=WAIT)
        until(lambda: len(collector.spans) == 5)
    server, stages = _one(collector.spans)
    assert (server.name, server.trace_id.hex(), server.parent_span_id.hex()) == ("infer model", TRACE, PARENT)
    assert server.trace_state == "vendor=x"
    told = attributes(server)
    assert (told["url.path"], told["serinus.rows"], told["serinus.request_id"]) == (_SERVICE + "ModelInfer", 2, "abc")
    assert told["http.response.status_code"] == 200
    assert [span.name for span in stages] == _STAGES
    assert all(span.parent_span_id == server.span_id and span.trace_id == server.trace_id for span in stages)
    edges = [server.start_time_unix_nano, *(span.end_time_unix_nano for span in stages)]
    assert edges == sorted(edges)
    assert [span.start_time_unix_nano for span in stages] == edges[:-1]
    answered = dict(call.initial_metadata())
    assert answered["traceparent"] == TRACEPARENT
    assert answered["traceresponse"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    assert answered["x-request-id"] == "abc"
    (line,) = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()]
    assert (line["trace_id"], line["request_id"]) == (TRACE, "abc")


def test_a_call_that_fails_is_a_span_too_and_says_which(collector: Collector) -> None:
    with _served(otlp_endpoint=collector.url) as (_, channel):
        infer = channel.unary_unary(_SERVICE + "ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            infer(_ask([666, 0, 0]), metadata=(("traceparent", TRACEPARENT),), timeout=WAIT)
        until(lambda: any(span.kind == Span.SPAN_KIND_SERVER for span in collector.spans))
    error: Any = caught.value
    server, _ = _one(collector.spans)
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.status.code) == (TRACE, PARENT, 2)
    said = [*error.initial_metadata(), *error.trailing_metadata()]
    assert [value for name, value in said if name == "traceresponse"] == [f"00-{TRACE}-{server.span_id.hex()}-01"]


def test_each_request_of_a_stream_is_a_span_of_the_clients_trace(collector: Collector) -> None:
    with _served(otlp_endpoint=collector.url) as (_, channel):
        infer = channel.stream_stream(_SERVICE + "ModelStreamInfer")
        asked = iter([_ask([n, 0, 0]) for n in range(3)])
        answers = list(infer(asked, metadata=(("traceparent", TRACEPARENT),), timeout=WAIT))
        until(lambda: len(collector.spans) == 15)
    assert not any(_STREAM_RESPONSE.FromString(answer).error_message for answer in answers)
    servers = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in servers} == {(TRACE, PARENT)}
    assert len({attributes(span)["serinus.request_id"] for span in servers}) == 3
    for server in servers:
        stages = [span.name for span in collector.spans if span.parent_span_id == server.span_id]
        assert sorted(stages) == sorted(_STAGES)


def test_without_an_endpoint_an_answer_says_nothing_of_traces(tmp_path: Path) -> None:
    with _served(prediction_log=str(tmp_path / "log")) as (_, channel):
        infer = channel.unary_unary(_SERVICE + "ModelInfer")
        _, call = infer.with_call(_ask([1, 2, 3]), metadata=(("traceparent", TRACEPARENT),), timeout=WAIT)
    assert "traceresponse" not in dict(call.initial_metadata())
    (line,) = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()]
    assert line["trace_id"] == TRACE
