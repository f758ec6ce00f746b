"""The Open Inference Protocol over HTTP: answers, refusals, overload, concurrency, metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.support import WAIT, GateEngine, Live, Reader, connect, gated, infer, infer_body, post, request


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server for `support.columns_model`."""
    directory = support.columns_model(tmp_path_factory.mktemp("models") / "columns")
    with Live(load_model(Config(model_dir=directory)), model_name="fraud", model_version="2") as server:
        yield server


def _column(name: str, datatype: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(values), 1], "datatype": datatype, "data": values}


AMOUNT = _column("amount", "FP32", [1.5, 2.5])
COUNT = _column("count", "INT64", [10, 20])
CATEGORY = _column("category", "BYTES", ["travel", "groß"])


def _ask(server: Live, body: Any, path: str = "/v2/models/fraud/infer") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, headers, answer = request(server.port, "POST", path, data)
    assert headers["content-type"] == "application/json"
    return status, json.loads(answer)


def test_metadata_and_health(live: Live, columns: Live) -> None:
    def get(path: str) -> tuple[int, Any]:
        status, headers, body = request(columns.port, "GET", path)
        assert headers["x-model-version"] == "2"
        return status, json.loads(body)

    assert get("/v2/health/live") == (200, {"live": True})
    assert get("/v2/health/ready") == (200, {"ready": True})
    assert get("/v2/models/fraud/ready") == (200, {"name": "fraud", "ready": True})
    assert get("/v2/models/fraud/versions/2/ready?x=1") == (200, {"name": "fraud", "ready": True})
    assert get("/v2")[1]["name"] == "serinus-runtime"
    status, model = get("/v2/models/fraud")
    assert status == 200
    assert model == get("/v2/models/fraud/versions/2")[1] == get("/v2/models/fra%75d")[1]
    assert (model["name"], model["versions"], model["platform"]) == ("fraud", ["2"], "onnx_onnxv1")
    assert model["inputs"] == [
        {"name": "amount", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "count", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "category", "datatype": "BYTES", "shape": [-1, 1]},
    ]
    assert [output["name"] for output in model["outputs"]] == ["score", "label", "seen"]
    assert get("/v2/models/other")[0] == get("/v2/models/fraud/versions/3")[0] == get("/nothing")[0] == 404
    assert "'other' is not served here; this server has 'fraud'" in get("/v2/models/other")[1]["error"]
    assert request(columns.port, "POST", "/v2/health/ready", b"")[0] == 405
    assert request(columns.port, "GET", "/v2/models/fraud/infer")[0] == 405


def test_several_inputs_of_several_types(columns: Live) -> None:
    expected = {
        "model_name": "fraud",
        "model_version": "2",
        "id": "é-1",
        "outputs": [
            _column("score", "FP32", [11.5, 22.5]),
            _column("label", "INT64", [20, 40]),
            _column("seen", "BYTES", ["travel", "groß"]),
        ],
    }
    body = {"id": "é-1", "inputs": [CATEGORY, AMOUNT, COUNT], "parameters": {"trace": True}}
    assert _ask(columns, body) == (200, expected)
    assert _ask(columns, body, "/v2/models/fraud/versions/2/infer") == (200, expected)
    nested = {**AMOUNT, "data": [[1.5], [2.5]]}
    assert _ask(columns, {**body, "inputs": [nested, COUNT, CATEGORY]}) == (200, expected)


def test_only_the_outputs_asked_for(columns: Live) -> None:
    inputs = [AMOUNT, COUNT, CATEGORY]
    _, answer = _ask(columns, {"inputs": inputs, "outputs": [{"name": "label"}, {"name": "score"}]})
    assert [output["name"] for output in answer["outputs"]] == ["label", "score"]
    assert "id" not in answer
    status, answer = _ask(columns, {"inputs": inputs, "outputs": [{"name": "sscore"}]})
    assert (status, answer["error"]) == (
        400,
        "output 'sscore': the model has no such output; it gives 'score', 'label', 'seen'",
    )


BAD: list[tuple[Any, str]] = [
    (b"", "the body is not JSON: Input data was truncated"),
    (b"{", "the body is not JSON: Input data was truncated"),
    (b"\xff\xfe", "the body is not JSON"),
    (b"[]", "the request: expected `object`, got `array`"),
    (b"{}", "the request: object missing required field `inputs`"),
    (b"[" * 100_000, "the request: expected `object`, got `array`"),
    (b'{"inputs":[],"parameters":{"x":' + b"[" * 90_000, "the body cannot be read"),
    (b'{"x":' * 20_000, "the body"),
    ({"inputs": {}}, "$.inputs: expected `array`, got `object`"),
    ({"inputs": [1]}, "$.inputs[0]: expected `object`, got `int`"),
    ({"id": 7, "inputs": []}, "$.id: expected `str | null`, got `int`"),
    ({"inputs": []}, "input 'amount' is missing; the model needs 'amount', 'count', 'category'"),
    ({"inputs": [AMOUNT, COUNT]}, "input 'category' is missing"),
    ({"inputs": [AMOUNT, AMOUNT, COUNT]}, "input 'amount' is given twice"),
    (
        {"inputs": [{**AMOUNT, "name": "amuont"}]},
        "input 'amuont': the model has no such input; it takes 'amount', 'cou",
    ),
    ({"inputs": [{**AMOUNT, "name": None}]}, "$.inputs[0].name: expected `str`, got `null`"),
    ({"inputs": [{**AMOUNT, "datatype": "FP64"}]}, "input 'amount': datatype 'FP64', but the model takes FP32"),
    ({"inputs": [{**AMOUNT, "datatype": "fp32"}]}, "input 'amount': datatype 'fp32', but the model takes FP32"),
    ({"inputs": [{**AMOUNT, "shape": [2]}]}, "input 'amount': shape [2], but the model takes [-1, 1]"),
    ({"inputs": [{**AMOUNT, "shape": [1, 2]}]}, "input 'amount': shape [1, 2], but the model takes [-1, 1]"),
    ({"inputs": [{**AMOUNT, "shape": [-2, 1]}]}, "input 'amount': shape [-2, 1], but the model takes [-1, 1]"),
    ({"inputs": [{**AMOUNT, "shape": [2, 1.5]}]}, "$.inputs[0].shape[1]: expected `int`, got `float`"),
    ({"inputs": [{**AMOUNT, "shape": [0, 1], "data": []}]}, "input 'amount': shape [0, 1] has no rows"),
    ({"inputs": [{**AMOUNT, "shape": [3, 1]}]}, "input 'amount': data has 2 elements, but the shape [3, 1] needs 3"),
    ({"inputs": [{**AMOUNT, "shape": [10**30, 1]}]}, "input 'amount': data has 2 elements, but the shape"),
    ({"inputs": [{**AMOUNT, "data": [1, "2"]}]}, "data of input 'amount'[1]: expected `float`, got `str`"),
    ({"inputs": [{**AMOUNT, "data": [1, None]}]}, "data of input 'amount'[1]: expected `float`, got `null`"),
    ({"inputs": [{**AMOUNT, "data": [1, True]}]}, "data of input 'amount'[1]: expected `float`, got `bool`"),
    ({"inputs": [{**AMOUNT, "data": [1, 1e300]}]}, "input 'amount': data has a value that does not fit in FP32"),
    ({"inputs": [{**AMOUNT, "data": [1, float("nan")]}]}, "the body is not JSON"),
    ({"inputs": [{**AMOUNT, "data": [[1, 2]]}]}, "input 'amount': data is nested as [1, 2], but the shape is [2, 1]"),
    ({"inputs": [{**AMOUNT, "data": [[1], [2, 3]]}]}, "input 'amount': data is nested unevenly"),
    ({"inputs": [{**AMOUNT, "data": [[1], 2]}]}, "data of input 'amount'[1]: expected `array`, got `int`"),
    ({"inputs": [{**AMOUNT, "data": 3}]}, "input 'amount': data must be an array"),
    ({"inputs": [{key: AMOUNT[key] for key in ("name", "shape", "datatype")}]}, "input 'amount': data is missing"),
    ({"inputs": [{key: AMOUNT[key] for key in ("name", "shape", "data")}]}, "missing required field `datatype`"),
    ({"inputs": [{**COUNT, "data": [1, 2.5]}]}, "data of input 'count'[1]: expected `int`, got `float`"),
    ({"inputs": [{**COUNT, "data": [1, 2**63]}]}, "input 'count': data has a value that does not fit in INT64"),
    ({"inputs": [{**CATEGORY, "data": ["a", 1]}]}, "data of input 'category'[1]: expected `str`, got `int`"),
    (
        {"inputs": [AMOUNT, _column("count", "INT64", [1])]},
        "input 'count': shape [1, 1] has 1 rows, but 'amount' has 2",
    ),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_a_bad_request_is_told_what_is_wrong_and_where(columns: Live, body: Any, message: str) -> None:
    status, answer = _ask(columns, body)
    assert status == 400
    assert message in answer["error"]


def test_bodies_in_other_encodings(live: Live) -> None:
    body = infer_body([1, 2, 3])
    path = "/v2/models/model/infer"
    assert request(live.port, "POST", path, body, {"Content-Encoding": "gzip"})[0] == 415


def test_headers_of_every_answer(live: Live) -> None:
    for path, body in (("/v2/health/live", None), ("/none", None), ("/v2/models/model/infer", b"{")):
        _, headers, _ = request(live.port, "POST" if body else "GET", path, body)
        assert (headers["x-model-version"], headers["x-serinus-revision"]) == ("v7", "r1")
        assert headers["x-model-digest"].startswith("sha256:")


def test_many_callers_each_get_their_own_rows(live: Live) -> None:
    wrong: list[object] = []

    def caller(number: int) -> None:
        with connect(live.port) as sock, Reader(sock) as reader:
            for turn in range(60):
                rows = [[number, turn, extra] for extra in range(1 + (number + turn) % 5)]
                sock.sendall(post(infer_body(*rows, id=f"{number}/{turn}")))
                status, _, body = reader.answer()
                answer = json.loads(body)
                expected = [float(sum(row)) for row in rows]
                if status != 200 or answer["id"] != f"{number}/{turn}" or answer["outputs"][0]["data"] != expected:
                    wrong.append((rows, answer))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_request_larger_than_a_batch(live: Live) -> None:
    rows = [[float(number), 1, 1] for number in range(400)]
    status, _, answer = infer(live.port, *rows)
    assert status == 200
    assert answer["outputs"][0]["data"] == [number + 2.0 for number in range(400)]
    assert answer["outputs"][0]["shape"] == [400, 1]
    status, _, answer = infer(live.port, *([[0, 0, 0]] * 513))
    assert status == 413
    assert "513 rows in one request; at most 512" in answer["error"]


def test_a_full_queue_answers_429_and_recovers(engine: GateEngine) -> None:
    with Live(gated(engine), queue_max_length=4, batch_max_size=2) as live, connect(live.port) as sock:
        engine.gate.clear()
        with Reader(sock) as reader:
            sock.sendall(post(infer_body([1, 0, 0])))
            assert engine.started.acquire(timeout=WAIT)
            sock.sendall(post(infer_body([2, 0, 0], [3, 0, 0])) + post(infer_body([4, 0, 0])))
            sock.sendall(post(infer_body([5, 0, 0])) + post(infer_body([6, 0, 0])))
            while live.metrics()["serinus_queue_depth"] < 4:
                pass
            status, headers, answer = infer(live.port, [7, 0, 0])
            assert (status, headers["retry-after"]) == (429, "1")
            assert "queue is full" in answer["error"]
            assert live.metrics()["serinus_inflight_requests"] == 4
            engine.gate.set()
            assert [reader.answer()[0] for _ in range(5)] == [200, 200, 200, 200, 429]
        assert infer(live.port, [7, 0, 0])[0] == 200
        samples = live.metrics()
        assert samples['serinus_rejected_total{reason="queue_full"}'] == 2
        assert samples['serinus_requests_total{code="429"}'] == 2
        assert samples["serinus_queue_depth"] == samples["serinus_inflight_requests"] == 0
        assert max(engine.batches) <= 2


def test_what_waits_is_bounded_in_bytes_whatever_they_are(engine: GateEngine) -> None:
    with Live(gated(engine), queue_max_bytes=100_000) as live, connect(live.port) as sock, Reader(sock) as reader:
        engine.gate.clear()
        sock.sendall(post(infer_body([1, 0, 0])))
        assert engine.started.acquire(timeout=WAIT)
        head = json.dumps(
            {
                "id": "i" * 60_000,
                "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}],
            }
        ).encode()
        for body, header in (
            (infer_body([2, 0, 0], id="i" * 60_000), "X-Nothing: 1"),
            (head + bytes(12), f"Inference-Header-Content-Length: {len(head)}"),
        ):
            sock.sendall(post(body, header))
        while live.metrics()['serinus_rejected_total{reason="queue_full"}'] < 1:
            pass
        assert live.metrics()["serinus_queue_depth"] == 1
        engine.gate.set()
        assert [reader.answer()[0] for _ in range(3)] == [200, 200, 429]


def test_waiting_longer_than_the_queue_timeout_is_504(engine: GateEngine) -> None:
    with Live(gated(engine), queue_timeout=0.05, slo_latency=0.04) as live, connect(live.port) as sock:
        engine.gate.clear()
        with Reader(sock) as reader:
            sock.sendall(post(infer_body([1, 0, 0])))
            assert engine.started.acquire(timeout=WAIT)
            status, _, answer = infer(live.port, [2, 0, 0])
            assert status == 504
            assert "queue timeout" in answer["error"]
            engine.gate.set()
            assert reader.answer()[0] == 200
        samples = live.metrics()
        assert samples['serinus_rejected_total{reason="timeout"}'] == 1
        assert samples["serinus_slow_requests_total"] == 2
        assert samples["serinus_request_duration_seconds_count"] == 2
        assert samples['serinus_request_duration_seconds_bucket{le="0.04"}'] == 0


def test_a_failing_model_is_500_for_the_one_who_failed_it(engine: GateEngine) -> None:
    with Live(gated(engine)) as live, connect(live.port) as sock, Reader(sock) as reader:
        engine.gate.clear()
        sock.sendall(post(infer_body([1, 0, 0])))
        assert engine.started.acquire(timeout=WAIT)
        sock.sendall(post(infer_body([666, 0, 0])) + post(infer_body([3, 0, 0])))
        while live.metrics()["serinus_queue_depth"] < 2:
            pass
        engine.gate.set()
        answers = [reader.answer() for _ in range(3)]
        assert [status for status, _, _ in answers] == [200, 500, 200]
        assert json.loads(answers[1][2]) == {"error": "the model failed: poisoned"}


def test_work_whose_caller_has_gone_is_not_done(engine: GateEngine) -> None:
    with Live(gated(engine)) as live:
        engine.gate.clear()
        with connect(live.port) as sock, Reader(sock) as reader:
            sock.sendall(post(infer_body([1, 0, 0])))
            assert engine.started.acquire(timeout=WAIT)
            with connect(live.port) as leaver:
                leaver.sendall(post(infer_body([2, 0, 0])) + post(infer_body([3, 0, 0])))
                while live.metrics()["serinus_inflight_requests"] < 3:
                    pass
                leaver.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            while live.metrics()["serinus_inflight_requests"] > 1:
                pass
            engine.gate.set()
            assert reader.answer()[0] == 200
        assert infer(live.port, [4, 0, 0])[0] == 200
        assert engine.batches == [1, 1]


def test_metrics_count_what_happened_and_nothing_else(sum_dir: Path) -> None:
    loaded = load_model(Config(model_dir=sum_dir))
    with Live(loaded, namespace="shop", deployment="fraud", revision="r9", slo_latency=0.0321) as live:
        before = live.metrics()
        for name in ('serinus_requests_total{code="200"}', "serinus_slow_requests_total", "serinus_batch_size_count"):
            assert before[name] == 0
        for _ in range(3):
            infer(live.port, [1, 2, 3], [4, 5, 6])
        request(live.port, "POST", "/v2/models/model/infer", b"{")
        request(live.port, "GET", "/v2/health/ready")
        request(live.port, "POST", "/v2/models/other/infer", b"{")
        after = live.metrics()
        text = request(live.server.metrics_port, "GET", "/metrics")[2].decode()
    assert after['serinus_requests_total{code="200"}'] == 3
    assert after['serinus_requests_total{code="400"}'] == 1
    assert after["serinus_request_duration_seconds_count"] == 3
    assert 'serinus_request_duration_seconds_bucket{le="0.0321"}' in after
    assert (after["serinus_batch_size_count"], after["serinus_batch_size_sum"]) == (3, 6)
    for stage in ("decode", "queue", "infer", "encode"):
        assert after[f'serinus_stage_duration_seconds_count{{stage="{stage}"}}'] == 3
    assert after['serinus_rejected_total{reason="invalid"}'] == 1
    assert after["serinus_model_load_seconds"] > 0
    for line in text.splitlines():
        if line.startswith("serinus_"):
            for label in (
                'model_namespace="shop"',
                'model_deployment="fraud"',
                'revision="r9"',
                'model_version="local"',
            ):
                assert label in line
    assert f'digest="{loaded.digest}"' in text
