"""The Prometheus port against real HTTP: what is no evidence must never look like evidence."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from serinus.evidence.client import Prometheus, PrometheusUnavailable
from serinus.evidence.counters import Snapshot
from serinus.evidence.mirrored import COUNTS, FIGURES
from serinus.evidence.queries import COUNTERS, RATES


@contextmanager
def server(status: int, body: str, seen: list[str] | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if seen is not None:
                sent = parse_qs(self.path.partition("?")[2])
                seen.extend(sent["query"])
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def ask(url: str) -> Snapshot:
    async def once() -> Snapshot:
        prometheus = Prometheus(url, call_timeout=30.0)
        try:
            return await prometheus.snapshot()
        finally:
            prometheus.close()

    return asyncio.run(once())


def vector(*values: str) -> str:
    labels = {"model_namespace": "ns", "model_deployment": "fraud", "revision": "r", "instance": "i"}
    result = [{"metric": {**labels, "instance": f"i{n}"}, "value": [0, value]} for n, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def test_values_by_owner_and_nan_left_out() -> None:
    with server(200, vector("7", "NaN", "+Inf")) as url:
        snapshot = ask(url)
    assert snapshot.counters["requests"] == {("ns", "fraud", "r", "i0"): 7.0}
    assert snapshot.rates["p99"] == {("ns", "fraud", "r"): 7.0}


def test_one_query_per_metric() -> None:
    seen: list[str] = []
    with server(200, vector(), seen) as url:
        ask(url)
    assert sorted(seen) == sorted([*COUNTERS.values(), *RATES.values(), COUNTS, FIGURES])


@pytest.mark.parametrize(
    ("status", "body"), [(500, "boom"), (400, '{"status":"error"}'), (200, "not json"), (200, '{"status":"success"}')]
)
def test_anything_but_an_answer_is_unavailable(status: int, body: str) -> None:
    with server(status, body) as url, pytest.raises(PrometheusUnavailable):
        ask(url)


def test_nobody_there_is_said_in_plain_words() -> None:
    with pytest.raises(PrometheusUnavailable, match="connection refused"):
        ask("http://127.0.0.1:9")


def own(body: str, status: int = 200) -> object:
    """What a user's query that is answered like this leads to."""

    async def once(url: str) -> Snapshot:
        prometheus = Prometheus(url, call_timeout=30.0)
        try:
            return await prometheus.snapshot(["up", "up"])
        finally:
            prometheus.close()

    with server(status, body) as url:
        return asyncio.run(once(url)).own["up"]


def result(*metrics: dict[str, str]) -> str:
    found = [{"metric": metric, "value": [0, "7"]} for metric in metrics]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}})


LABELS = {"model_namespace": "ns", "model_deployment": "fraud", "revision": "r"}


def test_own_query_by_revision() -> None:
    assert own(result(LABELS, {**LABELS, "revision": "s"})) == {("ns", "fraud", "r"): 7.0, ("ns", "fraud", "s"): 7.0}


def test_own_query_with_several_series_per_revision_is_no_value() -> None:
    assert "several series for revision r" in str(own(result({**LABELS, "code": "1"}, {**LABELS, "code": "2"})))


def test_own_query_without_the_labels_is_no_value() -> None:
    assert "without the labels model_namespace, model_deployment, revision" in str(own(result({"job": "x"})))


def test_a_wrong_own_query_is_its_own_problem_only() -> None:
    class Refusing(Prometheus):
        def _query(self, query: str, at: float) -> list[dict[str, object]]:
            if query == "wrong(":
                raise PrometheusUnavailable("refused a query: parse error")
            return super()._query(query, at)

    async def once(url: str) -> Snapshot:
        prometheus = Refusing(url, call_timeout=30.0)
        try:
            return await prometheus.snapshot(["wrong("])
        finally:
            prometheus.close()

    with server(200, vector("7")) as url:
        snapshot = asyncio.run(once(url))
    assert snapshot.own == {"wrong(": "refused a query: parse error"}
    assert snapshot.rates["p99"] == {("ns", "fraud", "r"): 7.0}
