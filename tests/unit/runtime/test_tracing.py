"""Spans as a collector receives them: a real HTTP endpoint that reads real protobuf."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serinus_runtime.config import from_environment
from serinus_runtime.failures import FailureError
from serinus_runtime.tracing import endpoint, trace_id
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer_body, request

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """Takes OTLP over HTTP; while `gate` is not set it does not answer."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.paths: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.gate.wait(WAIT)
                collector.paths.add(self.path)
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    collector.resource = {each.key: each.value.string_value for each in group.resource.attributes}
                    for scope in group.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    made = Collector()
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def ask(live: Live, *rows: list[float], **headers: str) -> tuple[int, dict[str, str], bytes]:
    return request(live.port, "POST", "/v2/models/model/infer", infer_body(*(rows or ([1, 2, 3],))), headers)


def test_an_inference_is_a_span_with_its_stages_under_the_clients_trace(collector: Collector, tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = {"otlp_endpoint": collector.url, "revision": "r1", "model_version": "v7", "deployment": "fraud",
                "prediction_log": str(log)}  # fmt: skip
    with Live(gated(GateEngine()), **settings) as live:
        before = time.time_ns()
        status, headers, _ = ask(
            live, [1, 2, 3], [4, 5, 6], traceparent=TRACEPARENT, tracestate="vendor=x", **{"X-Request-Id": "abc"}
        )
        after = time.time_ns()
        assert (status, headers["traceparent"]) == (200, TRACEPARENT)
        until(lambda: len(collector.spans) == 5)
        found = live.metrics()
        until(lambda: live.metrics()['serinus_trace_spans_total{outcome="sent"}'] == 5)
        assert found['serinus_trace_spans_total{outcome="dropped"}'] == 0
    server = next(span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER)
    assert (server.name, server.trace_id.hex(), server.parent_span_id.hex()) == ("infer model", TRACE, PARENT)
    assert server.trace_state == "vendor=x"
    assert headers["traceresponse"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    told = attributes(server)
    assert told == {
        "serinus.model.name": "model", "serinus.model.version": "v7", "serinus.model.digest": "sha256:" + "0" * 64,
        "serinus.revision": "r1", "serinus.rows": 2, "serinus.request_id": "abc", "http.response.status_code": 200,
        "http.request.method": "POST", "url.path": "/v2/models/model/infer",
    }  # fmt: skip
    stages = sorted(
        (span for span in collector.spans if span is not server), key=lambda span: span.start_time_unix_nano
    )
    assert [span.name for span in stages] == ["decode", "queue", "infer", "encode"]
    assert all(span.parent_span_id == server.span_id and span.trace_id == server.trace_id for span in stages)
    edges = [server.start_time_unix_nano, *(span.end_time_unix_nano for span in stages)]
    assert edges == sorted(edges)
    assert [span.start_time_unix_nano for span in stages] == edges[:-1]
    assert before - 10_000_000 < edges[0] <= edges[-1] < after + 10_000_000
    assert collector.resource["service.name"] == "fraud"
    assert collector.paths == {"/v1/traces"}
    (line,) = [json.loads(text) for text in log.read_text().splitlines()]
    assert (line["trace_id"], line["request_id"]) == (TRACE, "abc")


def test_errors_and_refusals_are_spans_too(collector: Collector) -> None:
    with Live(gated(GateEngine()), otlp_endpoint=collector.url) as live:
        assert ask(live, [666, 0, 0])[0] == 500
        assert ask(live, [1, 2, 3], **{"Content-Encoding": "gzip"})[0] == 415
        until(lambda: len([span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]) == 2)
    codes = {attributes(span)["http.response.status_code"]: span for span in collector.spans if span.kind == 2}
    assert codes[500].status.code == 2
    assert codes[415].status.code == 0
    assert codes[500].trace_id != codes[415].trace_id
    assert not codes[500].parent_span_id


def test_the_clients_choice_not_to_sample_is_kept(collector: Collector, tmp_path: Path) -> None:
    settings = {"otlp_endpoint": collector.url, "prediction_log": str(tmp_path / "log")}
    with Live(gated(GateEngine()), **settings) as live:
        headers = ask(live, traceparent=TRACEPARENT[:-1] + "0")[1]
        assert headers["traceresponse"].split("-")[1::2] == [TRACE, "00"]
        assert ask(live, traceparent=TRACEPARENT)[0] == 200
        until(lambda: len(collector.spans) == 5)
        assert live.metrics()['serinus_trace_spans_total{outcome="sent"}'] == 5
    assert [json.loads(line)["trace_id"] for line in (tmp_path / "log").read_text().splitlines()] == [TRACE, TRACE]


def test_the_sampler_of_the_environment_is_used(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    with Live(gated(GateEngine()), otlp_endpoint=collector.url) as live:
        assert ask(live)[0] == 200
        assert ask(live, traceparent=TRACEPARENT)[0] == 200
        until(lambda: len(collector.spans) == 5)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


@pytest.mark.parametrize("given", ["nonsense", "00-" + "0" * 32 + f"-{PARENT}-01", "ff" + TRACEPARENT[2:], "x" * 5000])
def test_a_broken_traceparent_begins_a_trace_of_its_own(collector: Collector, given: str) -> None:
    with Live(gated(GateEngine()), otlp_endpoint=collector.url) as live:
        status, headers, _ = ask(live, traceparent=given)
        assert (status, "traceparent" in headers) == (200, False)
        until(lambda: len(collector.spans) == 5)
    assert headers["traceresponse"].split("-")[1] == collector.spans[0].trace_id.hex()


def test_a_collector_that_hangs_costs_spans_and_no_request(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")
    collector.gate.clear()
    with Live(gated(GateEngine()), otlp_endpoint=collector.url) as live:
        assert all(ask(live)[0] == 200 for _ in range(10))
        found = live.metrics()
        assert 35 <= found['serinus_trace_spans_total{outcome="dropped"}'] <= 40
        collector.gate.set()
        until(lambda: live.metrics()['serinus_trace_spans_total{outcome="sent"}'] + found[
            'serinus_trace_spans_total{outcome="dropped"}'] == 50)  # fmt: skip


def test_a_collector_that_is_away_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with Live(gated(GateEngine()), otlp_endpoint="http://127.0.0.1:9/v1/traces") as live:
        assert ask(live)[0] == 200
        until(lambda: live.metrics()['serinus_trace_spans_total{outcome="failed"}'] == 5)


def test_without_an_endpoint_nothing_is_traced_but_the_log_knows_the_trace(tmp_path: Path) -> None:
    with Live(gated(GateEngine()), prediction_log=str(tmp_path / "log")) as live:
        headers = ask(live, traceparent=TRACEPARENT)[1]
        assert "traceresponse" not in headers
        assert ask(live)[0] == 200
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("trace_id") for line in lines] == [TRACE, None]


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/x"}, "http://c:4318/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_the_standard_variables_say_where_spans_go(environ: dict[str, str], url: str) -> None:
    assert endpoint(environ) == url
    assert from_environment(environ).otlp_endpoint == url


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "write http://HOST:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "write http/protobuf"),
    ],
)
def test_variables_that_are_wrong_say_what_to_write(environ: dict[str, str], wanted: str) -> None:
    with pytest.raises(FailureError, match=wanted):
        from_environment(environ)


@pytest.mark.parametrize(
    ("given", "found"),
    [(TRACEPARENT, TRACE), ("cc" + TRACEPARENT[2:] + "-more", TRACE), ("ff" + TRACEPARENT[2:], ""), ("", ""),
     (TRACEPARENT.upper(), ""), ("00-" + "0" * 32 + f"-{PARENT}-01", "")],
)  # fmt: skip
def test_ids_of_traces_are_read_without_the_sdk(given: str, found: str) -> None:
    assert trace_id({b"traceparent": given.encode()}).decode() == found
