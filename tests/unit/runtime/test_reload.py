"""Another model in the place of the one that is served: under load, broken, and as the process is asked for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serinus_runtime.config import Config
from serinus_runtime.digest import verify
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.loading import Loaded, load_model
from unit.runtime.ports import until
from unit.runtime.support import WAIT, GateEngine, Live, gated, infer, infer_body, request
from unit.runtime.test_process import _serving


def adding_model(directory: Path, more: float) -> Path:
    """x FP32 [-1, 3] -> y FP32 [-1, 1], the sum of the row and `more`."""
    directory.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axis"], ["s"], keepdims=1),
            helper.make_node("Add", ["s", "more"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("more", TensorProto.FLOAT, [1], [more]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(directory / "model.onnx"))
    return directory


def put(directory: Path, more: float) -> str:
    """The model in `directory` is `adding_model(more)` from now on; its digest."""
    fresh = adding_model(directory.with_name("fresh"), more)
    old = directory.with_name("old")
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return verify(directory, "")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    put(tmp_path / "model", 0)
    return tmp_path / "model"


class Load:
    """Clients in a loop, each on a connection of its own; `answers` has digest, version and y for each client."""

    def __init__(self, port: int, clients: int) -> None:
        self.answers: list[list[tuple[str, str, float]]] = [[] for _ in range(clients)]
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port, each)) for each in self.answers]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT)

    def wait(self, more: int) -> None:
        """Until every client has had `more` answers from now on."""
        wanted = [len(each) + more for each in self.answers]
        until(lambda: self.failures or all(len(a) >= n for a, n in zip(self.answers, wanted, strict=True)))

    def _ask(self, port: int, answers: list[tuple[str, str, float]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        try:
            while not self._over.is_set():
                connection.request("POST", "/v2/models/model/infer", infer_body([1, 2, 3]))
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {body!r}")
                    return
                told = json.loads(body)
                version = answer.headers["x-model-version"]
                if told["model_version"] != version:
                    self.failures.append(f"{told['model_version']} in the body, {version} in the head")
                answers.append((answer.headers["x-model-digest"], version, told["outputs"][0]["data"][0]))
        except Exception as error:
            self.failures.append(repr(error))
        finally:
            connection.close()


def test_under_load_nothing_fails_and_every_answer_says_who_gave_it(place: Path) -> None:
    digests = {0.0: verify(place, "")}
    with Live(load_model(Config(model_dir=place)), model_dir=place, model_version="v0") as live:
        with Load(live.port, 8) as load:
            load.wait(20)
            for number in (1, 2, 3):
                digests[float(number)] = put(place, number)
                assert live.call(live.server.reload(Config(model_dir=place, model_version=f"v{number}")))
                load.wait(20)
        assert load.failures == []
        for answers in load.answers:
            for digest, version, y in answers:
                number = y - 6.0
                assert (digest, version) == (digests[number], f"v{number:g}")
            assert [y for _, _, y in answers] == sorted(y for _, _, y in answers), "it never goes back"
            assert {y for _, _, y in answers} == {6.0, 7.0, 8.0, 9.0}
        told = live.metrics()
        assert told['serinus_model_reloads_total{outcome="done"}'] == 3
        assert told['serinus_requests_total{code="200"}'] == sum(map(len, load.answers))
        _, _, text = request(live.server.metrics_port, "GET", "/metrics")
        assert f'digest="{digests[3.0]}"' in text.decode()
        assert 'model_version="v3"' in text.decode()
        assert 'model_version="v0"' not in text.decode()
        assert request(live.port, "POST", "/v2/models/model/versions/v3/infer", infer_body([1, 2, 3]))[0] == 200
        assert request(live.port, "POST", "/v2/models/model/versions/v0/infer", infer_body([1, 2, 3]))[0] == 404


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda place: (place / "model.onnx").write_bytes(b"not a model"), "ModelLoadFailed"),
        (lambda place: (place / "model.onnx").unlink(), "ModelLoadFailed"),
        (lambda place: shutil.rmtree(place), "ModelLoadFailed"),
    ],
    ids=["damaged", "empty", "gone"],
)
def test_a_broken_model_leaves_the_old_one_where_it_is(
    place: Path, break_it: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = verify(place, "")
    with Live(load_model(Config(model_dir=place)), model_dir=place) as live:
        break_it(place)
        assert not live.call(live.server.reload(Config(model_dir=place, model_version="v1")))
        status, headers, told = infer(live.port, [1, 2, 3])
        assert (status, headers["x-model-digest"], headers["x-model-version"]) == (200, digest, "local")
        assert told["outputs"][0]["data"] == [6.0]
        assert live.metrics()['serinus_model_reloads_total{outcome="failed"}'] == 1
        put(place, 5)
        assert live.call(live.server.reload(Config(model_dir=place)))
        assert infer(live.port, [1, 2, 3])[2]["outputs"][0]["data"] == [11.0]
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "could not be loaded" in line]
    assert [line["digest"] for line in lines] == [digest]
    assert lines[0]["why"]


def test_a_digest_that_is_not_the_wanted_one_is_refused(place: Path) -> None:
    with Live(load_model(Config(model_dir=place)), model_dir=place) as live:
        put(place, 1)
        assert not live.call(live.server.reload(Config(model_dir=place, model_digest="sha256:" + "1" * 64)))
        assert infer(live.port, [1, 2, 3])[2]["outputs"][0]["data"] == [6.0]


def test_the_same_model_is_not_loaded_again(place: Path) -> None:
    with Live(load_model(Config(model_dir=place)), model_dir=place) as live:
        before = live.server.serving
        assert not live.call(live.server.reload(Config(model_dir=place)))
        assert live.server.serving is before
        assert live.metrics()['serinus_model_reloads_total{outcome="unchanged"}'] == 1


def _held(place: Path) -> tuple[GateEngine, Loaded]:
    engine = GateEngine()
    engine.gate.clear()
    return engine, gated(engine)


def test_what_the_old_model_took_it_answers_and_what_comes_waits_for_the_new_one(place: Path) -> None:
    engine, loaded = _held(place)
    with Live(loaded, model_dir=place, prediction_log="off") as live:
        answers: list[tuple[int, dict[str, str], Any]] = []
        first = threading.Thread(target=lambda: answers.append(infer(live.port, [1, 2, 3])))
        first.start()
        assert engine.started.acquire(timeout=WAIT)
        reload = asyncio.run_coroutine_threadsafe(live.server.reload(Config(model_dir=place)), live._loop)
        until(lambda: live.server.state.model is not None and live.server.state.model.platform == "onnx_onnxv1")
        late: list[tuple[int, dict[str, str], Any]] = []
        second = threading.Thread(target=lambda: late.append(infer(live.port, [1, 2, 4])))
        second.start()
        until(lambda: live.server.metrics.inflight == 2)
        assert not reload.done()
        assert late == []
        engine.gate.set()
        assert reload.result(WAIT)
        first.join(WAIT)
        second.join(WAIT)
        assert answers[0][1]["x-model-digest"] == loaded.digest
        assert late[0][1]["x-model-digest"] == verify(place, "")
        assert late[0][2]["outputs"][0]["data"] == [7.0]


def test_log_and_cache_are_the_new_models(place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    settings: dict[str, Any] = {"prediction_log": str(log), "response_cache": 1 << 20, "model_dir": place}
    old = verify(place, "")
    with Live(load_model(Config(model_dir=place)), **settings) as live:
        for _ in range(2):
            assert infer(live.port, [1, 2, 3])[2]["outputs"][0]["data"] == [6.0]
        new = put(place, 1)
        assert live.call(live.server.reload(Config(model_dir=place)))
        for _ in range(2):
            assert infer(live.port, [1, 2, 3])[2]["outputs"][0]["data"] == [7.0], "not what the old model had said"
        assert live.metrics()['serinus_response_cache_requests_total{outcome="hit"}'] == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["digest"] for line in lines) == sorted([old, old, new, new])
    assert {(line["digest"], line["outputs"]["y"][0][0]) for line in lines} == {(old, 6.0), (new, 7.0)}


def test_over_grpc(place: Path) -> None:
    ask = message_class("inference.ModelInferRequest")(model_name="model")
    ask.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    ask.raw_input_contents.append(np.array([1, 2, 3], "<f4").tobytes())
    answered = message_class("inference.ModelInferResponse")
    with Live(load_model(Config(model_dir=place)), model_dir=place, grpc_port=0, model_version="1") as live:
        with grpc.insecure_channel(f"127.0.0.1:{live.server.grpc_port}") as channel:
            infer_over = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            seen = []
            for number in range(3):
                answer, call = infer_over.with_call(ask.SerializeToString(), timeout=WAIT)
                told = answered.FromString(answer)
                meta = dict(call.initial_metadata())
                y = np.frombuffer(told.raw_output_contents[0], "<f4")[0]
                seen.append(
                    (told.model_version, meta["x-model-version"], meta["x-model-digest"] == verify(place, ""), y)
                )
                put(place, number + 1)
                assert live.call(live.server.reload(Config(model_dir=place, model_version=str(number + 2))))
        assert seen == [("1", "1", True, 6.0), ("2", "2", True, 7.0), ("3", "3", True, 8.0)]


@pytest.fixture
def process(place: Path, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "settings.json").write_text(json.dumps({"modelVersion": "1"}))
    with _serving(place, SERINUS_CONFIG=str(tmp_path / "settings.json"), SERINUS_DRAIN_DELAY="0s") as served:
        yield served


def test_sighup_reads_the_settings_and_the_model_again(process: Any, place: Path, tmp_path: Path) -> None:
    assert infer(process.port, [1, 2, 3])[1]["x-model-version"] == "1"
    digest = put(place, 1)
    (tmp_path / "settings.json").write_text(json.dumps({"modelVersion": "2", "batchMaxSize": 4}))
    process.process.send_signal(signal.SIGHUP)
    until(lambda: infer(process.port, [1, 2, 3])[1]["x-model-version"] == "2")
    _, headers, told = infer(process.port, [1, 2, 3])
    assert (headers["x-model-digest"], told["outputs"][0]["data"]) == (digest, [7.0])
    (tmp_path / "settings.json").write_text("{")
    process.process.send_signal(signal.SIGHUP)
    until(lambda: any("settings cannot be read" in str(line["msg"]) for line in process.log))
    assert infer(process.port, [1, 2, 3])[0] == 200
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 0
