"""A provider that is not ONNX Runtime's own CPU: OpenVINO, which needs no device that a test machine lacks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from support import openvino
from unit.runtime.support import parse_metrics, request

ROOT = Path(__file__).parents[2] / "runtime-image"
FEATURES, ROWS = 30, 24


@pytest.fixture(scope="session")
def python() -> Path:
    """See `openvino.python`."""
    return openvino.python()


def _network(folder: Path) -> Path:
    """A small network: every operator is one that OpenVINO has."""
    made = np.random.default_rng(7)
    constants = [
        onnx.numpy_helper.from_array(made.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w1", (FEATURES, 64)), ("b1", (64,)), ("w2", (64, 2)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w2"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=1),
    ]
    return _saved(folder, nodes, constants)


def _with_a_binarizer(folder: Path) -> Path:
    """Of the operators of trees and their like OpenVINO has none."""
    nodes = [
        helper.make_node("Binarizer", ["x"], ["a"], domain="ai.onnx.ml", threshold=0.5),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    return _saved(folder, nodes, [])


def _saved(folder: Path, nodes: list[Any], constants: list[Any]) -> Path:
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])]
        for name, width in (("x", FEATURES), ("y", None))
    )
    graph = helper.make_graph(nodes, "test", inputs, outputs, constants)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=9), folder / "model.onnx")
    return folder


@contextmanager
def _started(python: Path, model: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SERINUS_")}
    ports = dict.fromkeys(("SERINUS_HTTP_PORT", "SERINUS_METRICS_PORT"), "0")
    environment = {**kept, **ports, "PYTHONPATH": str(ROOT), "SERINUS_HOST": "127.0.0.1", "SERINUS_GRPC_PORT": "off"}
    command: list[str | Path] = [python, "-m", "serinus_runtime", "serve", "--model-dir", model]
    more = {f"SERINUS_{name}": value for name, value in settings.items()}
    with subprocess.Popen(command, env={**environment, **more}, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _told(process: subprocess.Popen[str], last: str) -> list[dict[str, Any]]:
    """The log up to the first line whose message is `last`, or to its end."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1].get("msg") == last:
            break
    return lines


def test_a_model_on_openvino_answers_as_on_the_cpu(python: Path, tmp_path: Path) -> None:
    model = _network(tmp_path / "m")
    rows = np.random.default_rng(8).normal(size=(ROWS, FEATURES)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model / "model.onnx").run(None, {"x": rows})
    with _started(python, model, ONNX_PROVIDERS="openvino", THREADS="1") as process:
        ready = _told(process, "ready")
        port = int(ready[0]["http_port"])
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        status, _, body = request(port, "POST", "/v2/models/model/infer", json.dumps({"inputs": [tensor]}).encode())
        assert status == 200, body
        found = np.array(json.loads(body)["outputs"][0]["data"]).reshape(ROWS, 2)
        # OpenVINO computes in bfloat16 where a processor has it and a model is large enough to gain by it.
        np.testing.assert_allclose(found, expected, atol=5e-3)
        config = json.loads(request(port, "GET", "/v2/models/model/config")[2])
        assert config["parameters"]["providers"]["string_value"].startswith("OpenVINOExecutionProvider")
        metrics = request(int(ready[0]["metrics_port"]), "GET", "/metrics")[2].decode()
        assert parse_metrics(metrics)["serinus_engine_cpu_fallback"] == 0


def test_operators_that_a_provider_lacks_end_the_start_with_what_to_write(python: Path, tmp_path: Path) -> None:
    model = _with_a_binarizer(tmp_path / "m")
    with _started(python, model, ONNX_PROVIDERS="openvino") as process:
        last = _told(process, "ready")[-1]
    assert last["reason"] == "InvalidConfig", last
    assert "OpenVINOExecutionProvider cannot run; add `cpu` at the end" in last["message"]
    with _started(python, model, ONNX_PROVIDERS="openvino,cpu") as process:
        last = _told(process, "ready")[-1]
        assert last.get("msg") == "ready", last
