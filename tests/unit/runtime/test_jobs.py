"""Jobs: submitted, polled, cancelled, bounded, drained, called back; in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serinus_runtime.failures import FailureError
from serinus_runtime.jobs.callbacks import check_callback
from serinus_runtime.jobs.http import prefers_async
from serinus_runtime.jobs.memory import MemoryStore
from serinus_runtime.jobs.records import Record, Result, new_id
from serinus_runtime.jobs.redis import RedisStore
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.redislink import RedisLink
from unit.runtime.redis_server import RedisServer, redis_server
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer, infer_body, request

INFER = "/v2/models/model/infer"
ASYNC = {"Prefer": "respond-async"}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def submit(live: Live, body: bytes, path: str = INFER, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, answered, text = request(live.port, "POST", path, body, {**ASYNC, **headers})
    return status, answered, json.loads(text)


def poll(live: Live, location: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    return request(live.port, method, location, None, headers)


def fetch(live: Live, location: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The result, as soon as it is there."""
    until(lambda: poll(live, location, **headers)[0] != 202)
    return poll(live, location, **headers)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, redis: RedisServer) -> dict[str, Any]:
    """Settings of either store."""
    return {"async_mode": True, **({"redis_url": redis.url} if request.param == "redis" else {})}


def test_a_job_is_accepted_at_once_and_fetched_when_it_is_done(engine: GateEngine, store: dict[str, Any]) -> None:
    with Live(gated(engine), **store) as live:
        engine.gate.clear()
        status, headers, body = submit(live, infer_body([1, 2, 3], id="mine"))
        location = headers["location"]
        assert (status, headers["preference-applied"], location) == (202, "respond-async", f"/v2/requests/{body['id']}")
        status, headers, text = poll(live, location)
        assert (status, headers["retry-after"]) == (202, "1")
        assert json.loads(text) == {"id": body["id"], "status": "pending"}
        engine.gate.set()
        for _ in range(2):
            status, headers, text = fetch(live, location)
            assert (status, headers["content-type"]) == (200, "application/json")
            answer = json.loads(text)
            assert (answer["id"], answer["outputs"][0]["data"]) == ("mine", [6.0])
        assert poll(live, location, "DELETE")[0] == 200
        assert poll(live, location)[0] == 404
        found = live.metrics()
        assert [found[f'serinus_async_jobs_total{{outcome="{each}"}}'] for each in ("accepted", "succeeded")] == [1, 1]
        assert [found[f"serinus_async_{each}"] for each in ("pending", "kept", "bytes")] == [0, 0, 0]


def test_every_way_to_ask_can_be_a_job_and_its_errors_are_results(store: dict[str, Any]) -> None:
    with Live(gated(GateEngine()), **store) as live:
        _, headers, _ = submit(live, infer_body([1, 2, 3]), "/v2/models/model/async")
        assert json.loads(fetch(live, headers["location"])[2])["outputs"][0]["data"] == [6.0]
        _, headers, _ = submit(live, b'{"instances": [[1, 2, 3]]}', "/v1/models/model:predict")
        assert json.loads(fetch(live, headers["location"])[2]) == {"predictions": [[6.0]]}
        _, headers, _ = submit(live, b"nonsense")
        status, _, text = fetch(live, headers["location"])
        assert (status, "not JSON" in json.loads(text)["error"]) == (400, True)
        binary = infer_body([1, 2, 3], parameters={"binary_data_output": True})
        _, headers, _ = submit(live, binary)
        status, headers, text = fetch(live, headers["location"])
        assert (status, len(text) - int(headers["inference-header-content-length"])) == (200, 4)
        assert request(live.port, "GET", "/v2/models/model/async")[0] == 405


def test_what_is_not_known_is_not_found(store: dict[str, Any]) -> None:
    with Live(gated(GateEngine()), **store) as live:
        for name in ("x", new_id(), "a" * 200, "%2e%2e", ""):
            assert poll(live, f"/v2/requests/{name}")[0] == 404
        assert poll(live, "/v2/requests/x", "POST")[0] == 405


def test_results_are_kept_for_their_time(store: dict[str, Any]) -> None:
    with Live(gated(GateEngine()), **store, async_ttl=0.3) as live:
        location = submit(live, infer_body([1, 2, 3]))[1]["location"]
        until(lambda: poll(live, location)[0] == 200)
        until(lambda: poll(live, location)[0] == 404)
        until(lambda: live.metrics()["serinus_async_bytes"] == 0)


def test_a_cancelled_job_is_not_run(engine: GateEngine, store: dict[str, Any]) -> None:
    with Live(gated(engine), **store, async_concurrency=1) as live:
        engine.gate.clear()
        running = submit(live, infer_body([1, 2, 3]))[1]["location"]
        assert engine.started.acquire(timeout=WAIT)
        waiting = submit(live, infer_body([4, 5, 6]))[1]["location"]
        for location in (waiting, running):
            status, _, text = poll(live, location, "DELETE")
            assert (status, json.loads(text)["status"]) == (200, "cancelled")
            assert poll(live, location)[0] == 404
        engine.gate.set()
        assert infer(live.port, [7, 8, 9])[0] == 200
        assert len(engine.batches) == 2
        found = live.metrics()
        assert found['serinus_async_jobs_total{outcome="cancelled"}'] == 2
        assert (found["serinus_async_pending"], found["serinus_async_bytes"]) == (0, 0)
        assert found["serinus_inflight_requests"] == 0


def test_jobs_and_bytes_are_bounded(engine: GateEngine, store: dict[str, Any]) -> None:
    with Live(gated(engine), **store, async_max_jobs=2) as live:
        engine.gate.clear()
        locations = [submit(live, infer_body([1, 2, 3]))[1]["location"] for _ in range(2)]
        status, headers, body = submit(live, infer_body([1, 2, 3]))
        assert (status, int(headers["retry-after"]) >= 1) == (429, True)
        assert "fetch or delete" in body["error"]
        engine.gate.set()
        for location in locations:
            assert fetch(live, location)[0] == 200
        assert submit(live, infer_body([1, 2, 3]))[0] == 429
        assert poll(live, locations[0], "DELETE")[0] == 200
        assert submit(live, infer_body([1, 2, 3]))[0] == 202
    with Live(gated(engine), **store, async_max_bytes=1000) as live:
        assert submit(live, infer_body(*[[1.5, 2.5, 3.5]] * 100))[0] == 429
        assert submit(live, infer_body([1, 2, 3]))[0] == 202


def test_jobs_wait_for_a_full_queue_and_are_not_refused(engine: GateEngine) -> None:
    with Live(gated(engine), async_mode=True, queue_max_length=2, batch_max_size=1) as live:
        engine.gate.clear()
        locations = [submit(live, infer_body([n, 0, 0]))[1]["location"] for n in range(8)]
        assert engine.started.acquire(timeout=WAIT)
        engine.gate.set()
        answers = [json.loads(fetch(live, location)[2])["outputs"][0]["data"] for location in locations]
        assert answers == [[float(n)] for n in range(8)]


def test_a_drain_finishes_what_was_accepted(engine: GateEngine, redis: RedisServer) -> None:
    settings = {"async_mode": True, "redis_url": redis.url}
    with Live(gated(engine), **settings) as first, Live(gated(GateEngine()), **settings) as second:
        engine.gate.clear()
        locations = [submit(first, infer_body([n, 0, 0]))[1]["location"] for n in range(6)]
        threading.Timer(0.2, engine.gate.set).start()
        first.call(first.server.drain(0.0))
        for n, location in enumerate(locations):
            status, _, text = fetch(second, location)
            assert (status, json.loads(text)["outputs"][0]["data"]) == (200, [float(n)])


def test_any_replica_can_answer_and_cancel(engine: GateEngine, redis: RedisServer) -> None:
    settings = {"async_mode": True, "redis_url": redis.url}
    with Live(gated(engine), **settings) as first, Live(gated(GateEngine()), **settings) as second:
        engine.gate.clear()
        location = submit(first, infer_body([1, 2, 3]))[1]["location"]
        assert poll(second, location)[0] == 202
        assert poll(second, location, "DELETE")[0] == 200
        engine.gate.set()
        until(lambda: first.metrics()["serinus_async_pending"] == 0)
        assert [poll(live, location)[0] for live in (first, second)] == [404, 404]


def test_a_redis_that_is_gone_stops_jobs_and_nothing_else(tmp_path: Path, engine: GateEngine) -> None:
    with redis_server(tmp_path) as server, Live(gated(engine), async_mode=True, redis_url=server.url) as live:
        engine.gate.clear()
        location = submit(live, infer_body([1, 2, 3]))[1]["location"]
        server.kill()
        status, headers, body = submit(live, infer_body([1, 2, 3]))
        assert (status, headers["retry-after"]) == (503, "1")
        assert "does not answer" in body["error"]
        engine.gate.set()
        assert infer(live.port, [1, 2, 3])[0] == 200
        # This replica knows the result though it cannot store it.
        assert fetch(live, location)[0] == 200
        server.start()
        until(lambda: submit(live, infer_body([1, 2, 3]))[0] == 202)
        until(lambda: live.metrics()["serinus_async_pending"] == 0)
        assert poll(live, location)[0] == 200


def test_only_the_client_who_asked_may_fetch(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("shop shop-key-1\nother other-key-1\nsync sync-key-1 scopes=infer\n")
    with Live(gated(GateEngine()), async_mode=True, api_keys_file=keys) as live:
        assert submit(live, infer_body([1, 2, 3]))[0] == 401
        assert submit(live, infer_body([1, 2, 3]), **{"X-API-Key": "sync-key-1"})[0] == 403
        location = submit(live, infer_body([1, 2, 3]), **{"X-API-Key": "shop-key-1"})[1]["location"]
        assert fetch(live, location, **{"X-API-Key": "shop-key-1"})[0] == 200
        assert poll(live, location)[0] == 401
        assert poll(live, location, **{"X-API-Key": "other-key-1"})[0] == 404


class Hook:
    """A client's server, which fails `failures` times before it takes a callback."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(500 if len(hook.calls) <= failures else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_callback_is_signed_and_tried_again(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n")
    with (
        Hook(failures=1) as hook,
        Live(
            gated(GateEngine()), async_mode=True, async_callback_hosts=frozenset({hook.host}),
            async_callback_secret_file=secret,
        ) as live,
    ):  # fmt: skip
        url = f"http://{hook.host}/done?order=7"
        status, _, body = submit(live, infer_body([1, 2, 3]), **{"X-Callback-URL": url})
        assert status == 202
        until(lambda: live.metrics()['serinus_async_callbacks_total{outcome="sent"}'] == 1)
        assert len(hook.calls) == 2
        headers, text = hook.calls[1]
        assert (headers["webhook-id"], headers["x-serinus-status"]) == (body["id"], "200")
        assert json.loads(text)["outputs"][0]["data"] == [6.0]
        signed = f"{body['id']}.{headers['webhook-timestamp']}.".encode() + text
        digest = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    "url",
    [b"https://elsewhere.example/", b"http://a.example:81/", b"ftp://a.example/", b"a.example",
     b"http://u:p@a.example/",
     b"http://a.example/\r\nX: y", b"http://a.example\\@b.example/", b"http://[::1/",
     b"http://a.example/" + b"x" * 3000],
)  # fmt: skip
def test_only_named_hosts_are_called_back(url: bytes) -> None:
    hosts = frozenset({"a.example", "b.example:8443"})
    with pytest.raises(InvalidRequestError, match="x-callback-url: "):
        check_callback(url, hosts)
    with pytest.raises(InvalidRequestError, match="callbacks are off"):
        check_callback(b"https://a.example/", frozenset())
    for good in ("https://a.example/x?y=z", "http://A.example", "https://b.example:8443/"):
        assert check_callback(good.encode(), hosts) == good


def test_callbacks_that_are_off_are_told(tmp_path: Path) -> None:
    with Live(gated(GateEngine()), async_mode=True) as live:
        status, _, body = submit(live, infer_body([1, 2, 3]), **{"X-Callback-URL": "http://127.0.0.1/"})
        assert (status, "callbacks are off" in body["error"]) == (400, True)
    (tmp_path / "short").write_text("short")
    with (
        pytest.raises(FailureError, match="SERINUS_ASYNC_CALLBACK_SECRET_FILE: the secret is shorter"),
        Live(gated(GateEngine()), async_mode=True, async_callback_secret_file=tmp_path / "short"),
    ):
        pass


def test_without_jobs_the_preference_is_not_followed() -> None:
    with Live(gated(GateEngine())) as live:
        assert submit(live, infer_body([1, 2, 3]))[0] == 200
        assert request(live.port, "POST", "/v2/models/model/async", b"{}")[0] == 404
        assert request(live.port, "GET", "/v2/requests/x")[0] == 404


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(b"respond-async", True), (b"wait=10, Respond-Async", True), (b'respond-async; x="y"', True), (b"wait=10", False),
     (b"respond-asynchronously", False)],
)  # fmt: skip
def test_preferences_are_read(value: bytes, wanted: bool) -> None:
    assert prefers_async({b"prefer": value}) == wanted
    assert not prefers_async({})


def test_ids_are_not_guessed() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(job) == 32 for job in ids)


def test_stores_agree(redis: RedisServer) -> None:
    """The same calls, the same answers; and a heartbeat that comes late does not undo a result."""

    async def main() -> None:
        link = RedisLink(redis.url)
        result = Record("shop", Result(200, b"application/json", b"", b"{}"))
        for store in (MemoryStore(60.0, time.monotonic), RedisStore(link, "agree", 60.0)):
            assert await store.get("a") is None
            await store.begin("a", Record("shop"))
            assert await store.get("a") == Record("shop")
            assert await store.keep({"a": Record("shop")}) == []
            assert await store.finish("a", result)
            assert await store.keep({"a": Record("shop")}) == []
            assert await store.get("a") == result
            await store.cancel("a", "shop")
            assert await store.get("a") is None
            await store.begin("b", Record("shop"))
            await store.cancel("b", "shop")
            assert not await store.finish("b", result)
            assert await store.get("b") is None
        await store.begin("c", Record("shop"))
        await store.cancel("c", "shop")
        assert await store.keep({"c": Record("shop")}) == ["c"]
        await link.close()

    asyncio.run(asyncio.wait_for(main(), WAIT))
