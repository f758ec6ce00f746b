"""The OpenAPI document against real requests and answers, the page, configuration and statistics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from serinus_runtime.app import InferenceApp
from serinus_runtime.config import Config
from serinus_runtime.http import Exchange
from serinus_runtime.metrics import Metrics
from serinus_runtime.server import load_model
from serinus_runtime.state import State
from unit.runtime import support
from unit.runtime.support import Live, request

ROW = {"amount": 0.5, "age": 0.25, "hour": 0.125, "category": "travel"}
FEATURES = {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [0.5, 0.25, 0.125]}
CATEGORY = {"name": "category", "shape": [1, 1], "datatype": "BYTES", "data": ["travel"]}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server for `support.scorer_model`."""
    directory = support.scorer_model(tmp_path_factory.mktemp("models") / "scorer")
    with Live(load_model(Config(model_dir=directory)), model_name="fraud", model_version="3") as server:
        yield server


@pytest.fixture(scope="module")
def document(scorer: Live) -> Any:
    """Its OpenAPI document."""
    return _get(scorer, "/openapi.json")


def _get(live: Live, path: str) -> Any:
    status, headers, body = request(live.port, "GET", path)
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(body)


def test_the_document_is_openapi(document: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    validate(document)
    for make in (support.echo_model, support.columns_model, support.sum_model):
        directory = make(tmp_path_factory.mktemp("models") / make.__name__)
        with Live(load_model(Config(model_dir=directory))) as live:
            validate(_get(live, "/openapi.json"))


SAID: list[tuple[str, Any]] = [
    ("/predict", ROW),
    ("/predict", [ROW, ROW]),
    ("/predict", {"features": [0.5, 0.25, 0.125], "category": "a"}),
    ("/predict", []),
    ("/predict", {**ROW, "more": 1}),
    ("/predict", {**ROW, "amount": "1"}),
    ("/predict", {**ROW, "category": 1}),
    ("/predict", {"features": [1, 2], "category": "a"}),
    ("/v1/models/fraud:predict", {"instances": [ROW]}),
    ("/v1/models/fraud:predict", {"instances": []}),
    ("/v1/models/fraud:predict", {"instances": [[1]]}),
    ("/v1/models/fraud:predict", {}),
    ("/v1/models/fraud:predict", {"inputs": None}),
    ("/v1/models/fraud:predict", {"inputs": {"features": [[1, 2, 3]], "category": ["a"]}}),
    ("/v1/models/fraud:predict", {"inputs": {"features": [[1, 2, 3]]}}),
    ("/v1/models/fraud:predict", {"instances": [ROW], "inputs": {"features": [[1, 2, 3]], "category": ["a"]}}),
    ("/v1/models/fraud:predict", {"instances": [ROW], "signature_name": "other"}),
    ("/predict", {**ROW, "amount": 1e39}),
    ("/predict", {**ROW, "amount": 3.402823466385289e38}),
    ("/predict", {**ROW, "amount": 3.4028235677973366e38}),
    ("/predict", [ROW, {"features": [1, 2, 3], "category": "a"}]),
    ("/v2/models/fraud/infer", {"inputs": [FEATURES, CATEGORY]}),
    ("/v2/models/fraud/infer", {"inputs": [CATEGORY, FEATURES], "outputs": [{"name": "decision"}], "id": "7"}),
    ("/v2/models/fraud/infer", {"inputs": [{**FEATURES, "data": [[0.5, 0.25, 0.125]]}, CATEGORY]}),
    ("/v2/models/fraud/infer", {"inputs": [FEATURES]}),
    ("/v2/models/fraud/infer", {"inputs": [FEATURES, FEATURES]}),
    ("/v2/models/fraud/infer", {"inputs": [FEATURES, CATEGORY], "outputs": [{"name": "no"}]}),
    ("/v2/models/fraud/infer", {"inputs": [{**FEATURES, "shape": [0, 3], "data": []}, CATEGORY]}),
    ("/v2/models/fraud/infer", {"inputs": [{**FEATURES, "shape": [1, 4]}, CATEGORY]}),
    ("/v2/models/fraud/infer", {"inputs": [{**FEATURES, "datatype": "FP64"}, CATEGORY]}),
    ("/v2/models/fraud/infer", {"inputs": [{**FEATURES, "data": ["1", 2, 3]}, CATEGORY]}),
    ("/v2/repository/index", {}),
    ("/v2/repository/index", {"ready": True, "more": [1]}),
    ("/v2/repository/index", {"ready": 1}),
    ("/v2/repository/index", {"ready": None}),
    ("/v2/repository/index", []),
]


@pytest.mark.parametrize(("path", "body"), SAID)
def test_what_the_document_allows_is_what_the_server_takes(scorer: Live, document: Any, path: str, body: Any) -> None:
    operation = document["paths"][path]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["schema"]
    status, _, answer = request(scorer.port, "POST", path, json.dumps(body).encode())
    assert Draft202012Validator(asked).is_valid(body) == (status == 200), answer
    told = operation["responses"][str(status)]["content"]["application/json"]["schema"]
    Draft202012Validator({**told, "components": document["components"]}).validate(json.loads(answer))


def test_the_example_works(scorer: Live, document: Any) -> None:
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert list(example) == ["amount", "age", "hour", "category"]
    assert request(scorer.port, "POST", "/predict", json.dumps(example).encode())[0] == 200


def test_every_path_of_the_document_is_there(scorer: Live, document: Any) -> None:
    for path, item in document["paths"].items():
        if "get" in item:
            assert request(scorer.port, "GET", path)[0] == 200, path


def test_the_page_needs_nothing_from_elsewhere(scorer: Live) -> None:
    status, headers, body = request(scorer.port, "GET", "/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(rb"""(?:src|href)\s*=\s*["']([^"']*)""", body) == [b"data:,", b"openapi.json"]
    assert b"://" not in body
    assert b"default-src 'none'" in body


def test_configuration(scorer: Live, live: Live) -> None:
    config = _get(scorer, "/v2/models/fraud/config")
    assert config == _get(scorer, "/v2/models/fraud/versions/3/config")
    assert (config["max_batch_size"], config["dynamic_batching"]) == (32, {})
    assert config["input"] == [
        {"name": "features", "data_type": "TYPE_FP32", "dims": [3]},
        {"name": "category", "data_type": "TYPE_STRING", "dims": [1]},
    ]
    assert json.loads(config["parameters"]["decision"]["string_value"])["thresholds"] == {"block": 0.82, "step_up": 0.6}
    assert "decision" not in _get(live, "/v2/models/model/config")["parameters"]


def test_statistics(sum_dir: Path) -> None:
    with Live(load_model(Config(model_dir=sum_dir)), model_version="2") as live:
        (empty,) = _get(live, "/v2/models/stats")["model_stats"]
        assert (empty["inference_count"], empty["execution_count"], empty["last_inference"]) == (0, 0, 0)
        before = time.time()
        for _ in range(3):
            support.infer(live.port, [1, 2, 3], [4, 5, 6])
        support.infer(live.port, [1, 2, 3])
        request(live.port, "POST", "/v2/models/model/infer", b"{")
        told = _get(live, "/v2/models/model/versions/2/stats")
        assert told == _get(live, "/v2/models/model/stats")
        (entry,) = told["model_stats"]
    assert (entry["name"], entry["version"]) == ("model", "2")
    assert (entry["inference_count"], entry["execution_count"]) == (7, 4)
    assert before - 1 < entry["last_inference"] / 1000 < time.time() + 1
    stats = entry["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (4, 1)
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert stats[part]["count"] == 4
        assert 0 < stats[part]["ns"] < stats["success"]["ns"]
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in entry["batch_stats"]] == [(1, 1), (2, 3)]


def test_nothing_is_told_of_a_model_that_is_still_loading() -> None:
    metrics = Metrics(namespace="", deployment="", revision="", model_version="1", slo_latency=0.05, max_batch=1)
    app = InferenceApp("m", "1", State(), metrics)
    said: list[int] = []
    for method, path in (
        (b"GET", b"/openapi.json"),
        (b"GET", b"/docs"),
        (b"GET", b"/v2/models/m/config"),
        (b"GET", b"/v2/models/stats"),
        (b"GET", b"/v1/models/m"),
        (b"POST", b"/predict"),
        (b"POST", b"/v1/models/m:predict"),
    ):
        exchange = Exchange(lambda _exchange, status, *_: said.append(status))
        exchange.method, exchange.target = method, path
        app.handle(exchange)
    assert said == [503] * 7


CLIENT = """
import json, sys
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
client = triton.InferenceServerClient(sys.argv[1])
try:
    client.load_model("fraud")
    refused = None
except InferenceServerException as error:
    refused = error.status()
print(json.dumps({
    "refused": refused,
    "stats": client.get_inference_statistics()["model_stats"][0]["name"],
    "of": client.get_inference_statistics("fraud", "3")["model_stats"][0]["version"],
    "config": client.get_model_config("fraud")["max_batch_size"],
    "index": client.get_model_repository_index()[0]["state"],
    "metadata": client.get_model_metadata("fraud", "3")["name"],
}))
"""


def test_tritonclient_reads_them(scorer: Live) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CLIENT, f"127.0.0.1:{scorer.port}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "refused": "403",
        "stats": "fraud",
        "of": "3",
        "config": 32,
        "index": "READY",
        "metadata": "fraud",
    }


WRONG = [
    (path, body)
    for path in ("/predict", "/v1/models/fraud:predict", "/v2/models/fraud/infer", "/v2/repository/index")
    for body in (
        b"\x00",
        b"nul",
        b"[" * 90_000,
        b'{"a":' * 10_000,
        b'"\\ud800"',
        b"1" * 90_000,
        b'[{"amount":1e999}]',
    )
]


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_garbage_is_never_the_servers_fault(scorer: Live, path: str, body: bytes) -> None:
    assert request(scorer.port, "POST", path, body)[0] == 400
