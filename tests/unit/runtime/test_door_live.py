"""The door of a live server: who is let in, how often, and what is told of it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from serinus_runtime.config import Config, from_environment
from serinus_runtime.engine import EngineError
from serinus_runtime.failures import FailureError
from serinus_runtime.ingress.ratelimit import Rate
from serinus_runtime.server import Server
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer_body, request

INFER = "/v2/models/model/infer"
INDEX = "/v2/repository/index"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("shop shop-key-1\nscraper scraper-key-1 scopes=metrics,read rate=1/s\n")
    return path


def _ask(live: Live, headers: dict[str, str], body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    return request(live.port, "POST", INFER, body or infer_body([1, 2, 3]), headers)


def test_only_those_with_a_key_are_answered(keys: Path) -> None:
    with Live(gated(GateEngine()), api_keys_file=keys, open_paths=frozenset({"documents"})) as live:
        status, headers, body = _ask(live, {})
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="serinus"')
        assert "X-API-Key" in json.loads(body)["error"]
        for shown in ({"Authorization": "Bearer shop-key-1"}, {"X-API-Key": "shop-key-1"}):
            assert _ask(live, shown)[0] == 200
        assert _ask(live, {"X-API-Key": "shop-key-2"})[0] == 401
        assert _ask(live, {"X-API-Key": "scraper-key-1"})[0] == 403
        # Probes and documents are for everybody, the rest for those who may.
        for path, bare in (("/v2/health/ready", 200), ("/openapi.json", 200), ("/v2/models/model", 401)):
            assert request(live.port, "GET", path)[0] == bare
        assert request(live.port, "GET", "/v2/models/model/ready")[0] == 200
        assert request(live.port, "GET", "/v2/models/model", None, {"X-API-Key": "scraper-key-1"})[0] == 200
        metrics = live.server.metrics_port
        assert [request(metrics, "GET", path)[0] for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 401]
        status, _, text = request(metrics, "GET", "/metrics", None, {"Authorization": "Bearer scraper-key-1"})
        assert status == 200
        assert b'serinus_rejected_total{model_deployment="",model_namespace=""' in text
        assert b'reason="unauthenticated",revision=""} 2.0' in text
        assert b'client="shop",model_deployment="",model_namespace="",model_version="local",outcome="admitted"' in text
        assert b"shop-key" not in text


def test_a_secret_that_changes_is_noticed(keys: Path) -> None:
    with Live(gated(GateEngine()), api_keys_file=keys, request_timeout=0.2) as live:
        assert _ask(live, {"X-API-Key": "shop-key-1"})[0] == 200
        fresh = keys.with_name("new")
        fresh.write_text("shop shop-key-2")
        fresh.replace(keys)
        until = time.monotonic() + WAIT
        while _ask(live, {"X-API-Key": "shop-key-2"})[0] != 200:
            assert time.monotonic() < until
        assert _ask(live, {"X-API-Key": "shop-key-1"})[0] == 401
        assert live.metrics()['serinus_api_keys_reloads_total{outcome="ok"}'] == 1


def test_too_many_requests_are_told_when_to_come_back() -> None:
    with Live(gated(GateEngine()), rate_limit=Rate(0.01, 3)) as live:
        began = time.monotonic()
        answers = [_ask(live, {}) for _ in range(4)]
        passed = time.monotonic() - began
        assert [status for status, _, _ in answers] == [200, 200, 200, 429]
        assert [headers["ratelimit"].split(";")[1] for _, headers, _ in answers] == ["r=2", "r=1", "r=0", "r=0"]
        assert answers[3][1]["ratelimit-policy"] == '"requests";q=3;w=300'
        assert 99 - passed <= int(answers[3][1]["retry-after"]) <= 100
        found = live.metrics()
        assert found['serinus_rejected_total{reason="rate_limited"}'] == 1
        assert found['serinus_client_requests_total{client="anonymous",outcome="rate_limited"}'] == 1


def test_rows_can_be_what_is_counted() -> None:
    with Live(gated(GateEngine()), rate_limit=Rate(0.01, 10), rate_limit_cost="rows") as live:
        large = infer_body(*[[1, 2, 3]] * 30)
        assert [_ask(live, {}, body)[0] for body in (infer_body([1, 2, 3]), large, infer_body([1, 2, 3]))] == [
            200, 200, 429,
        ]  # fmt: skip


def test_a_gateway_tells_clients_apart() -> None:
    with Live(gated(GateEngine()), rate_limit=Rate(0.01, 1), client_header="x-forwarded-for") as live:
        told = ["10.0.0.1", "10.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.2"]
        assert [_ask(live, {"X-Forwarded-For": each})[0] for each in told] == [200, 429, 200, 429]


@pytest.mark.parametrize(
    ("headers", "more", "wanted"),
    [
        ({"X-Request-Timeout": "soon"}, {}, "x-request-timeout is 'soon'; write seconds"),
        ({"X-Priority": "11"}, {}, "x-priority is '11'; write 1"),
        ({}, {"parameters": {"timeout": -1}}, "timeout must be a whole number of microseconds"),
        ({}, {"parameters": {"priority": "high"}}, "priority must be from 1"),
    ],
)
def test_what_cannot_be_understood_is_told(headers: dict[str, str], more: dict[str, object], wanted: str) -> None:
    with Live(gated(GateEngine())) as live:
        status, _, body = _ask(live, headers, infer_body([1, 2, 3], **more))
        assert (status, wanted in json.loads(body)["error"]) == (400, True)
        good = infer_body([1, 2, 3], parameters={"timeout": 5_000_000, "priority": 1, "other": "x"})
        assert _ask(live, {"X-Request-Timeout": "5", "X-Priority": "9"}, good)[0] == 200


class BrokenEngine(GateEngine):
    """Fails while it is `broken`."""

    broken = True

    def run(self, inputs, outputs):  # type: ignore[no-untyped-def]
        if self.broken:
            self.batches.append(-1)
            raise EngineError("out of order")
        return super().run(inputs, outputs)


def test_an_engine_that_keeps_failing_is_left_alone_and_tried_again() -> None:
    engine = BrokenEngine()
    with Live(gated(engine), circuit_failures=3) as live:
        assert [_ask(live, {})[0] for _ in range(3)] == [500, 500, 500]
        tries, since = 3, time.monotonic()
        while (answer := _ask(live, {}))[0] == 500:
            assert time.monotonic() - since >= 1, "it is tried again after a pause only"
            tries, since = tries + 1, time.monotonic()
        status, headers, body = answer
        assert (status, len(engine.batches)) == (503, tries)
        assert headers["retry-after"] == "1" or tries > 3
        assert "left alone" in json.loads(body)["error"]
        assert live.metrics()["serinus_engine_circuit_open"] == 1
        engine.broken = False
        until = time.monotonic() + WAIT
        while _ask(live, {})[0] != 200:
            assert time.monotonic() < until
        found = live.metrics()
        assert (found["serinus_engine_circuit_open"], found["serinus_engine_circuit_openings_total"]) == (0, 1)
        assert found['serinus_rejected_total{reason="circuit_open"}'] >= 1


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("RATE_LIMIT", "fast", "SERINUS_RATE_LIMIT: 'fast' is not a rate"),
        ("RATE_LIMIT_COST", "bytes", "write request or rows"),
        ("OPEN_PATHS", "everything", "write some of documents,metadata,metrics, or none"),
        ("PRIORITY_BEST", "0", "a whole number from 1 to 9"),
        ("CLIENT_HEADER", "X Forwarded", "not the name of a header"),
        ("REDIS_URL", "redis://:pw@host", "SERINUS_REDIS_PASSWORD_FILE"),
        ("RESPONSE_CACHE_BY", "item", "write request or row"),
        ("RESPONSE_CACHE_SHARED", "yes", "write true or false"),
    ],
)
def test_settings_that_are_wrong_say_what_to_write(name: str, value: str, wanted: str) -> None:
    with pytest.raises(FailureError) as caught:
        from_environment({f"SERINUS_{name}": value})
    assert wanted in str(caught.value)
    assert "pw" not in str(caught.value)


def test_settings_that_do_not_fit_end_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    for settings, wanted in (
        ({"api_keys_file": tmp_path / "none"}, "SERINUS_API_KEYS_FILE: .*No such file"),
        ({"api_keys_file": tmp_path / "keys"}, "SERINUS_API_KEYS_FILE: the file holds no key: write"),
        ({"response_cache_shared": True}, "SERINUS_RESPONSE_CACHE_SHARED: needs a Redis: set SERINUS_REDIS_URL"),
    ):
        with pytest.raises(FailureError, match=wanted):
            Server(Config(**settings))  # type: ignore[arg-type]


def test_many_clients_at_once_get_no_more_than_their_rate() -> None:
    with Live(gated(GateEngine()), rate_limit=Rate(0.001, 20)) as live, ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: _ask(live, {})[0], range(60)))
        assert (codes.count(200), codes.count(429)) == (20, 40)


def test_the_document_tells_of_keys_jobs_and_headers(keys: Path) -> None:
    with Live(gated(GateEngine()), api_keys_file=keys, async_mode=True) as live:
        document = json.loads(request(live.port, "GET", "/openapi.json")[2])
    validate(document)
    paths = document["paths"]
    wanted = [{"bearer": []}, {"key": []}]
    assert [each["name"] for each in paths[INFER]["post"]["parameters"]] == ["X-Priority", "traceparent"]
    assert "X-Request-Timeout" in paths[INFER]["post"]["description"]
    assert paths[INFER]["post"]["security"] == wanted
    assert paths["/v2/models/model"]["get"]["security"] == wanted
    assert paths[INDEX]["post"]["security"] == wanted
    assert "parameters" not in paths[INDEX]["post"], "it is not queued"
    assert "security" not in paths["/v2/health/ready"]["get"]
    assert {"401", "403", "429"} <= set(paths[INFER]["post"]["responses"])
    assert set(paths["/v2/requests/{id}"]) == {"parameters", "get", "delete"}
    assert paths["/v2/models/model/async"]["post"]["responses"]["202"]
    with Live(gated(GateEngine())) as live:
        document = json.loads(request(live.port, "GET", "/openapi.json")[2])
    validate(document)
    assert "securitySchemes" not in document["components"]
    with Live(gated(GateEngine()), api_keys_file=keys, open_paths=frozenset(("documents", "metadata"))) as live:
        paths = json.loads(request(live.port, "GET", "/openapi.json")[2])["paths"]
        assert request(live.port, "POST", INDEX)[0] == 200
    assert "security" not in paths[INDEX]["post"]
    assert paths[INFER]["post"]["security"] == wanted
    assert "/v2/requests/{id}" not in document["paths"]


def test_the_document_tells_of_loading_and_unloading_where_it_is_on(keys: Path) -> None:
    with Live(gated(GateEngine()), api_keys_file=keys, model_control="explicit", async_mode=True) as live:
        document = json.loads(request(live.port, "GET", "/openapi.json")[2])
    validate(document)
    paths = document["paths"]
    for verb in ("load", "unload"):
        asked = paths[f"/v2/repository/models/model/{verb}"]["post"]
        assert asked["security"] == [{"bearer": []}, {"key": []}]
        assert not asked["requestBody"]["required"]
    assert "unloaded" in paths[INFER]["post"]["responses"]["404"]["description"]
    assert "404" not in paths["/v2/health/ready"]["get"]["responses"]
    assert "404" not in paths[INDEX]["post"]["responses"], "it tells of a model that is unloaded"
    with Live(gated(GateEngine()), api_keys_file=keys) as live:
        document = json.loads(request(live.port, "GET", "/openapi.json")[2])
    assert [path for path in document["paths"] if "/repository/" in path] == [INDEX]
    assert "404" not in document["paths"][INFER]["post"]["responses"]


def test_work_that_nobody_waits_for_any_more_is_not_done(engine: GateEngine) -> None:
    with Live(gated(engine), batch_max_size=1) as live, ThreadPoolExecutor(4) as pool:
        engine.gate.clear()
        first = pool.submit(_ask, live, {})
        assert engine.started.acquire(timeout=WAIT)
        late = [
            pool.submit(_ask, live, {"X-Request-Timeout": "50ms"}),
            pool.submit(_ask, live, {"x-envoy-expected-rq-timeout-ms": "50"}),
            pool.submit(_ask, live, {}, infer_body([4, 5, 6], parameters={"timeout": 50_000})),
        ]
        assert [each.result(WAIT)[0] for each in late] == [504, 504, 504]
        engine.gate.set()
        assert first.result(WAIT)[0] == 200
        assert engine.batches == [1]
        assert live.metrics()['serinus_rejected_total{reason="timeout"}'] == 3
