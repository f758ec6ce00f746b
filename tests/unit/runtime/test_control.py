"""Clients that load and unload the model: who may, what others see meanwhile, and several things at once."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serinus_runtime.config import Config, from_environment
from serinus_runtime.digest import verify
from serinus_runtime.failures import FailureError
from serinus_runtime.loading import Loaded, load_model
from serinus_runtime.server import Server
from unit.runtime.ports import until
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer, request
from unit.runtime.test_clients import answers
from unit.runtime.test_process import _serving
from unit.runtime.test_reload import put

LOAD, UNLOAD = "/v2/repository/models/model/load", "/v2/repository/models/model/unload"
OPERATOR, SHOP = {"X-API-Key": "operator-key-1"}, {"X-API-Key": "shop-key-1"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    put(tmp_path / "model", 0)
    return tmp_path / "model"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("shop shop-key-1\noperator operator-key-1 scopes=control\n")
    return path


@pytest.fixture
def live(place: Path, keys: Path) -> Iterator[Live]:
    settings: dict[str, Any] = {"model_dir": place, "api_keys_file": keys, "grpc_port": 0}
    with Live(load_model(Config(model_dir=place)), model_control="explicit", **settings) as served:
        yield served


def ask(live: Live, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> tuple[int, str]:
    """Status and text of an answer to POST."""
    status, _, told = request(live.port, "POST", path, body, OPERATOR if headers is None else headers)
    return status, json.loads(told).get("error", "")


def sum_of_a_row(live: Live) -> tuple[int, Any]:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    status, _, told = request(live.port, "POST", "/v2/models/model/infer", json.dumps(body).encode(), SHOP)
    answer = json.loads(told)
    return status, answer["outputs"][0]["data"][0] if status == 200 else answer["error"]


class Slowly:
    """Loads models, and hands them out when the test lets it; `began` is released by each that is loaded."""

    def __init__(self, live: Live) -> None:
        self.gate = threading.Event()
        self.began = threading.Semaphore(0)
        live.server._reloader._load = self

    def __call__(self, config: Config) -> Loaded:
        loaded = load_model(config)
        self.began.release()
        assert self.gate.wait(WAIT)
        return loaded


class Later:
    """A call that is under way."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        self.answer = call()

    def result(self) -> Any:
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        return self.answer

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


def test_off_says_what_to_set() -> None:
    with Live(gated(GateEngine())) as live:
        for path in (LOAD, UNLOAD):
            status, text = ask(live, path)
            assert status == 403
            assert "SERINUS_MODEL_CONTROL=explicit" in text
            assert "scopes=control" in text
        assert infer(live.port, [1, 2, 3])[0] == 200


def test_without_keys_nobody_may() -> None:
    with Live(gated(GateEngine()), model_control="explicit") as live:
        for path in (LOAD, UNLOAD):
            status, text = ask(live, path, {})
            assert status == 403
            assert "SERINUS_API_KEYS_FILE" in text
        assert infer(live.port, [1, 2, 3])[0] == 200


def test_tritonclient_over_both_protocols(live: Live) -> None:
    grpc_address = f"127.0.0.1:{live.server.grpc_port}"
    told = answers(Path(sys.executable), "triton_control_client.py", f"127.0.0.1:{live.port}", grpc_address)
    unloaded = "model 'model' is unloaded: POST /v2/repository/models/model/load"
    for protocol, codes in (
        ("http", {"no key": "401", "user": "403", "other": "404", "config": "400", "infer": "404", "metadata": "404"}),
        ("grpc", {
            "no key": "StatusCode.UNAUTHENTICATED", "user": "StatusCode.PERMISSION_DENIED",
            "other": "StatusCode.NOT_FOUND", "config": "StatusCode.INVALID_ARGUMENT",
            "infer": "StatusCode.NOT_FOUND", "metadata": "StatusCode.NOT_FOUND",
        }),
    ):  # fmt: skip
        found = told[protocol]
        assert found["before"] == found["after"] == [True, "READY", "", 6.0], protocol
        assert found["unloaded"] == [False, False, True], protocol
        assert found["index"] == ["UNAVAILABLE", "unloaded"], protocol
        assert {name: found[name].split()[0] for name in codes} == codes, protocol
        assert unloaded in found["infer"], protocol
        assert "is not good for 'control'" in found["user"], protocol
        assert "'config' is not understood" in found["config"], protocol


def test_what_is_in_the_directory_now_is_loaded_and_what_cannot_be_changes_nothing(live: Live, place: Path) -> None:
    assert ask(live, LOAD) == (200, "")
    assert live.metrics()['serinus_model_reloads_total{outcome="unchanged"}'] == 1
    digest = put(place, 1)
    assert ask(live, LOAD) == (200, "")
    assert sum_of_a_row(live) == (200, 7.0)
    (place / "model.onnx").write_bytes(b"not a model")
    status, text = ask(live, LOAD)
    assert status == 400
    assert "could not be loaded: ModelLoadFailed" in text
    assert sum_of_a_row(live) == (200, 7.0)
    # Nor is it there again after an unload, until the files are right.
    assert ask(live, UNLOAD)[0] == 200
    assert ask(live, LOAD)[0] == 400
    assert sum_of_a_row(live)[0] == 404
    put(place, 1)
    assert ask(live, LOAD)[0] == 200
    _, headers, _ = request(live.port, "GET", "/v2/health/ready")
    assert headers["x-model-digest"] == digest
    assert sum_of_a_row(live) == (200, 7.0)


def test_an_unloaded_model_is_told_everywhere_and_costs_no_restart(live: Live, place: Path) -> None:
    metrics = live.server.metrics_port
    assert ask(live, UNLOAD) == ask(live, UNLOAD) == (200, "")
    statuses = [request(metrics, "GET", path)[0] for path in ("/readyz", "/healthz", "/metrics")]
    assert statuses == [503, 200, 200]
    assert request(live.port, "GET", "/v2/models/model/ready")[0] == 503
    status, headers, told = request(live.port, "GET", "/v1/models/model", None, SHOP)
    assert (status, json.loads(told)["model_version_status"][0]["state"]) == (503, "END")
    assert headers["x-model-digest"] == "unknown"
    for path in ("/v2/models/model", "/v2/models/model/stats", "/openapi.json"):
        assert request(live.port, "GET", path, None, SHOP)[0] == 404
    assert b"serinus_model_info" not in request(metrics, "GET", "/metrics")[2]
    assert not live.call(live.server.reload(Config(model_dir=place))), "SIGHUP does not undo what a client asked for"
    assert ask(live, LOAD)[0] == 200
    assert b"serinus_model_info" in request(metrics, "GET", "/metrics")[2]
    assert sum_of_a_row(live) == (200, 6.0)


@contextmanager
def unloading(place: Path, keys: Path) -> Iterator[tuple[Live, GateEngine, Later, Later]]:
    """A server without answers, as a first request keeps its unload waiting: it, its engine, both calls."""
    engine = GateEngine()
    engine.gate.clear()
    with Live(gated(engine), model_dir=place, api_keys_file=keys, model_control="explicit") as live:
        first = Later(lambda: sum_of_a_row(live))
        assert engine.started.acquire(timeout=WAIT)
        unload = Later(lambda: ask(live, UNLOAD))
        until(lambda: sum_of_a_row(live)[0] == 404)
        yield live, engine, first, unload


def test_what_was_under_way_is_answered_before_the_model_goes(place: Path, keys: Path) -> None:
    with unloading(place, keys) as (live, engine, first, unload):
        _, _, index = request(live.port, "POST", "/v2/repository/index", b"", SHOP)
        assert json.loads(index)[0]["state"] == "UNLOADING"
        assert unload.waits
        engine.gate.set()
        assert first.result() == (200, 6.0)
        assert unload.result() == (200, "")


def test_loads_at_once_share_one_and_an_unload_behind_them_has_the_last_word(live: Live, place: Path) -> None:
    slowly = Slowly(live)
    put(place, 1)
    first = Later(lambda: ask(live, LOAD))
    assert slowly.began.acquire(timeout=WAIT)
    put(place, 2)
    control = live.server.state.control
    assert control is not None
    more = [Later(lambda: ask(live, LOAD)) for _ in range(5)]
    until(lambda: control._waiting and len(control._waiting[0].answers) == 5)
    unload = Later(lambda: ask(live, UNLOAD))
    until(lambda: len(control._waiting) == 2)
    assert sum_of_a_row(live) == (200, 6.0), "the old one goes on"
    slowly.gate.set()
    assert [each.result() for each in (first, *more, unload)] == [(200, "")] * 7
    assert sum_of_a_row(live)[0] == 404
    assert live.metrics()['serinus_model_reloads_total{outcome="done"}'] == 2
    assert ask(live, LOAD) == (200, "")
    assert sum_of_a_row(live) == (200, 8.0)


def test_a_load_that_is_asked_for_during_an_unload_comes_after_it(place: Path, keys: Path) -> None:
    with unloading(place, keys) as (live, engine, first, unload):
        load = Later(lambda: ask(live, LOAD))
        control = live.server.state.control
        until(lambda: control is not None and control._waiting)
        engine.gate.set()
        assert (first.result()[0], unload.result()[0], load.result()[0]) == (200, 200, 200)
        assert sum_of_a_row(live) == (200, 6.0)
        assert live.server.serving is not None
        assert live.server.serving.loaded.digest == verify(place, "")


def test_too_many_that_wait_are_refused(live: Live, place: Path) -> None:
    slowly = Slowly(live)
    put(place, 1)
    waiting = [Later(lambda: ask(live, LOAD))]
    assert slowly.began.acquire(timeout=WAIT)
    control = live.server.state.control
    assert control is not None
    for number in range(8):
        path = LOAD if number % 2 else UNLOAD
        waiting.append(Later(lambda path=path: ask(live, path)))  # type: ignore[misc]
        until(lambda number=number: len(control._waiting) == number + 1)  # type: ignore[misc]
    status, text = ask(live, UNLOAD)
    assert (status, "too many" in text) == (429, True)
    slowly.gate.set()
    assert {each.result() for each in waiting} == {(200, "")}
    assert sum_of_a_row(live) == (200, 7.0)


def test_a_drain_does_not_wait_for_a_load(live: Live, place: Path) -> None:
    slowly = Slowly(live)
    put(place, 1)
    load = Later(lambda: ask(live, LOAD))
    assert slowly.began.acquire(timeout=WAIT)
    drain = asyncio.run_coroutine_threadsafe(live.server.drain(0.0), live._loop)
    drain.result(WAIT)
    assert load.result() == (503, "this server is going away: ask another")
    before = live.server.serving
    slowly.gate.set()
    until(lambda: live.server.state.control is not None and not live.server.state.control.under_way)
    assert live.server.serving is before, "a model that would serve nobody is given up"


def test_a_process_that_is_told_to_end_while_it_loads_ends(place: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"modelVersion": "1", "modelControl": "explicit"}))
    settings = {"SERINUS_CONFIG": str(tmp_path / "settings.json"), "SERINUS_API_KEYS_FILE": str(keys)}
    with _serving(place, SERINUS_DRAIN_DELAY="0s", **settings) as served:
        put(place, 1)
        (tmp_path / "settings.json").write_text(json.dumps({"modelVersion": "2", "modelControl": "off"}))
        assert request(served.port, "POST", LOAD, b"", OPERATOR)[0] == 200
        assert request(served.port, "GET", "/v2/models/model/versions/2/ready")[1]["x-model-version"] == "2"
        assert request(served.port, "POST", UNLOAD, b"", OPERATOR)[0] == 200, "what is on is decided at the start"
        (tmp_path / "settings.json").write_text("{")
        status, _, told = request(served.port, "POST", LOAD, b"", OPERATOR)
        assert (status, "settings cannot be read" in told.decode()) == (400, True)
        served.process.send_signal(signal.SIGTERM)
        assert served.end() == 0


@pytest.mark.parametrize("body", [b"[", b"[]", b'{"parameters": 1}', b"[" * 5000, b"\xff"])
def test_bodies_that_cannot_be_read(live: Live, body: bytes) -> None:
    status, text = ask(live, LOAD, body=body)
    assert (status, "the body must be empty" in text) == (400, True)
    assert request(live.port, "GET", LOAD, None, OPERATOR)[0] == 405


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(FailureError, match="SERINUS_MODEL_CONTROL: 'on' is not allowed: write off or explicit"):
        from_environment({"SERINUS_MODEL_CONTROL": "on"})
    with pytest.raises(FailureError, match="no model to load here: leave it off"):
        Server(Config(engine="proxy", model_control="explicit"))
