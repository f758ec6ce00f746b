"""What our own models have before and behind them, for an engine beside us: keys, rates, log, spans, jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from unit.runtime.engines import FastEngine, Front
from unit.runtime.ports import until
from unit.runtime.support import request
from unit.runtime.test_tracing import PARENT, TRACE, TRACEPARENT, Collector, attributes, collector

__all__ = ["collector"]

KEY = "a-key-for-the-shop"


@pytest.fixture(scope="module")
def fast() -> Iterator[FastEngine]:
    with FastEngine() as engine:
        yield engine


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"shop {KEY} rate=1/h burst=3\nother another-key-here\n")
    return file


def _lines(log: Path, count: int) -> list[dict[str, Any]]:
    until(lambda: log.exists() and log.read_text().count("\n") >= count)
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_client_has_a_name_in_the_log_and_is_told_how_it_stands(
    fast: FastEngine, keys: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    key = {"X-API-Key": KEY}
    with Front(fast.port, api_keys_file=keys, prediction_log=str(log)) as front:
        found = [front.ask("POST", "/echo", {"n": n}, key) for n in range(4)]
        assert [status for status, _, _ in found] == [200, 200, 200, 429]
        assert [headers["ratelimit"].partition("r=")[2].partition(";")[0] for _, headers, _ in found] == list("2100")
        assert all("ratelimit-policy" in headers for _, headers, _ in found)
        assert front.ask("POST", "/echo", {})[0] == 401
        streamed = front.ask("POST", "/sse?count=2", {}, {"X-API-Key": "another-key-here"})
        assert (streamed[0], "ratelimit" in streamed[1]) == (200, False)
        lines = _lines(log, 6)
    assert [(line["code"], line.get("client")) for line in lines] == [
        (200, "shop"), (200, "shop"), (200, "shop"), (429, "shop"), (401, None), (200, "other"),
    ]  # fmt: skip


def test_a_stream_says_how_its_client_stands(fast: FastEngine, keys: Path) -> None:
    with Front(fast.port, api_keys_file=keys) as front:
        _, headers, body = front.ask("POST", "/sse?count=3", {}, {"X-API-Key": KEY})
        assert "r=2" in headers["ratelimit"]
        assert body.count(b"data:") == 3


def test_the_engine_is_asked_within_our_span(fast: FastEngine, collector: Collector, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with Front(fast.port, otlp_endpoint=collector.url, prediction_log=str(log)) as front:
        headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=x"}
        status, answered, _ = front.ask("POST", "/echo", {"a": 1}, headers)
        seen = fast.seen.requests[-1][2]
        assert front.ask("GET", "/plain")[0] == 200, "what is no inference has no span"
        assert front.ask("POST", "/fail", {})[0] == 500
        until(lambda: sum(span.kind == Span.SPAN_KIND_SERVER for span in collector.spans) == 2)
        lines = _lines(log, 2)
    first, second = sorted(
        (span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER),
        key=lambda span: span.start_time_unix_nano,
    )
    assert (status, first.trace_id.hex(), first.parent_span_id.hex()) == (200, TRACE, PARENT)
    assert seen["traceparent"] == f"00-{TRACE}-{first.span_id.hex()}-01"
    assert seen["tracestate"] == "vendor=x"
    assert answered["traceresponse"] == f"00-{TRACE}-{first.span_id.hex()}-01"
    assert attributes(first)["url.path"] == "/echo"
    assert {span.name for span in collector.spans if span.parent_span_id == first.span_id} == {
        "decode", "queue", "infer", "encode",
    }  # fmt: skip
    assert (attributes(second)["http.response.status_code"], second.status.code) == (500, 2)
    assert [line["trace_id"] for line in lines] == [TRACE, second.trace_id.hex()]


def test_without_spans_the_clients_context_passes_as_it_is(fast: FastEngine) -> None:
    with Front(fast.port) as front:
        front.ask("POST", "/echo", {}, {"traceparent": TRACEPARENT})
        assert fast.seen.requests[-1][2]["traceparent"] == TRACEPARENT


def _job(front: Front, path: str, body: object, headers: dict[str, str]) -> str:
    status, answered, told = front.ask("POST", path, body, {"Prefer": "respond-async", **headers})
    assert (status, answered["preference-applied"]) == (202, "respond-async"), told
    return answered["location"]


def _result(front: Front, location: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    until(lambda: front.ask("GET", location, None, headers)[0] != 202)
    return front.ask("GET", location, None, headers)


def test_jobs(fast: FastEngine, keys: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    key = {"X-API-Key": "another-key-here"}
    settings: dict[str, Any] = {"api_keys_file": keys, "async_mode": True, "async_max_bytes": 4096}
    with Front(fast.port, prediction_log=str(log), **settings) as front:
        location = _job(front, "/echo?a=b", {"x": 1}, key)
        assert fast.seen.requests[-1][2].get("prefer") is None
        status, headers, body = _result(front, location, key)
        assert (status, headers["content-type"], headers["x-engine"]) == (200, "application/json", "fast")
        assert json.loads(body) == {"got": {"x": 1}, "query": "a=b"}
        assert front.ask("GET", location, None, {"X-API-Key": KEY})[0] == 404, "it is somebody else's"
        assert _result(front, _job(front, "/fail", {}, key), key)[0] == 500
        status, headers, body = _result(front, _job(front, "/sse?count=5", {}, key), key)
        assert (status, body.count(b"data:")) == (200, 5)
        assert headers["content-type"].startswith("text/event-stream")
        status, _, body = _result(front, _job(front, "/sse?count=5000", {}, key), key)
        assert (status, "larger than what may be kept" in body.decode()) == (502, True)
        until(lambda: front.metrics()["serinus_upstream_requests"] == 0)
        assert front.ask("DELETE", location, None, key)[0] == 200
        assert front.ask("GET", location, None, key)[0] == 404
        assert front.ask("POST", "/echo", {"x": 2}, {**key, "Prefer": "wait=5"})[0] == 200
        told = front.metrics()
        assert told['serinus_async_jobs_total{outcome="accepted"}'] == 4
        assert told["serinus_inflight_requests"] == 0
        assert {line["path"] for line in _lines(log, 5)} == {"/echo", "/fail", "/sse"}


def test_a_job_that_is_deleted_is_not_worked_on(fast: FastEngine) -> None:
    before = fast.seen.cancelled
    with Front(fast.port, async_mode=True) as front:
        location = _job(front, "/slow", {}, {})
        until(lambda: front.metrics()["serinus_upstream_requests"] == 1 and fast.seen.requests[-1][1] == "/slow")
        assert request(front.port, "DELETE", location)[0] == 200
        until(lambda: fast.seen.cancelled == before + 1)


def test_without_jobs_the_wish_is_the_engines(fast: FastEngine) -> None:
    with Front(fast.port) as front:
        assert front.ask("POST", "/echo", {}, {"Prefer": "respond-async"})[0] == 200
        assert fast.seen.requests[-1][2]["prefer"] == "respond-async"


_LOADS = (
    "/v2/repository/models/m/load", "/v2/repository/models/m/unload", "/v2/repository/here/models/m/load",
    "/v2/repository/models/m/unload/", "/v2/repository/models/m/%6coad", "//v2//repository//models/m//load",
    "/v2/repository/models/m/load?x=1", "/v2/repository/models/m/load#x", "http://engine/v2/repository/models/m/load",
)  # fmt: skip


def test_only_a_key_for_it_changes_which_models_the_engine_serves(fast: FastEngine, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("shop a-key-for-the-shop\noperator a-key-for-operators scopes=control\n")
    shop, operator = {"X-API-Key": "a-key-for-the-shop"}, {"X-API-Key": "a-key-for-operators"}
    with Front(fast.port, api_keys_file=keys, async_mode=True) as front:
        before = len([path for _, path, _ in fast.seen.requests if "load" in path])
        for path in _LOADS:
            for more in ({}, {"Prefer": "respond-async"}):
                assert front.ask("POST", path, {}, {**shop, **more})[0] == 403, path
                assert front.ask("POST", path, {}, more)[0] == 401, path
        assert len([path for _, path, _ in fast.seen.requests if "load" in path]) == before, "the engine saw none"
        assert front.ask("POST", _LOADS[0], {}, operator)[0] not in (401, 403), "passed on"
        assert front.ask("POST", "/echo", {}, operator)[0] == 403
        assert front.ask("POST", "/v2/repository/index", {}, shop)[0] not in (401, 403)
    with Front(fast.port) as front:
        assert front.ask("POST", _LOADS[0], {})[0] not in (401, 403), "without keys it is the engine's own affair"
