"""Python that is shipped with a model: allowed or not, what it may give, and what happens when it misbehaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.digest import verify
from serinus_runtime.engine import Engine, EngineError, EngineTimeoutError, synthetic_inputs
from serinus_runtime.engine.processing import ProcessedEngine
from serinus_runtime.engine.registry import open_engine
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.predictionlog import preprocessing_hash
from serinus_runtime.server import load_model
from serinus_runtime.warmup import warm_up
from unit.runtime import support
from unit.runtime.ports import until

_CODE = """
import os, time
import numpy as np

def preprocess(inputs):
    text = inputs["amount"]
    if "die" in text.ravel().tolist():
        os._exit(1)
    while "hang" in text.ravel().tolist():
        time.sleep(1)
    numbers = np.array([[float(value.strip("$") or 0)] for value in text.ravel()])
    return {"x": np.hstack([numbers, inputs["rest"]])}

def postprocess(outputs, inputs):
    return {"total": outputs["y"] * 100, "echo": inputs["amount"]}
"""
_ABOUT: dict[str, Any] = {
    "preprocess": "processing.py",
    "processing": {
        "inputs": [
            {"name": "amount", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "rest", "datatype": "FP64", "shape": [-1, 2]},
        ],
        "outputs": [
            {"name": "total", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "echo", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    },
}


def _directory(path: Path, code: str = _CODE, about: dict[str, Any] | None = None) -> Path:
    support.sum_model(path)
    (path / "processing.py").write_text(code)
    (path / "model.json").write_text(json.dumps(_ABOUT if about is None else about))
    return path


def _ask(live: support.Live, *amounts: str) -> tuple[int, Any]:
    count = len(amounts)
    inputs = [
        {"name": "amount", "shape": [count, 1], "datatype": "BYTES", "data": list(amounts)},
        {"name": "rest", "shape": [count, 2], "datatype": "FP64", "data": [1.0, 2.0] * count},
    ]
    body = json.dumps({"inputs": inputs}).encode()
    status, _, answer = support.request(live.port, "POST", "/v2/models/model/infer", body)
    return status, json.loads(answer)


def test_code_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(
        FailureError, match=r"processing\.py, which is not run unless SERINUS_ALLOW_PYTHON=true"
    ) as caught:
        open_engine(Config(model_dir=_directory(tmp_path / "m")))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_a_model_between_two_functions(tmp_path: Path) -> None:
    directory = _directory(tmp_path / "m")
    before = sorted(directory.rglob("*"))
    config = Config(model_dir=directory, allow_python=True, engine_timeout=support.WAIT, workers=2)
    with support.Live(load_model(config)) as live:
        metadata = json.loads(support.request(live.port, "GET", "/v2/models/model")[2])
        assert [spec["name"] for spec in metadata["inputs"]] == ["amount", "rest"]
        status, answer = _ask(live, "$12.5", "7")
        assert status == 200
        total, echo = answer["outputs"]
        assert (total["data"], echo["data"]) == ([1550.0, 1000.0], ["$12.5", "7"])
        assert _ask(live, "much") == (
            500, {"error": "the model failed: ValueError: could not convert string to float: 'much'"}
        )  # fmt: skip
        assert _ask(live, "die")[1] == {"error": "the model failed: two worker processes died at these inputs"}
        until(lambda: live.metrics()["serinus_workers"] == 2)
        metrics = live.metrics()
        assert metrics['serinus_worker_restarts_total{reason="crash"}'] == 2
        assert metrics['serinus_worker_restarts_total{reason="stuck"}'] == 0
        for step in ("preprocess", "model", "postprocess"):
            assert metrics[f'serinus_step_duration_seconds_count{{step="{step}"}}'] >= 1
        assert _ask(live, "1")[0] == 200
    # No byte code was left in the directory, whose digest is pinned.
    assert sorted(directory.rglob("*")) == before


def test_code_that_hangs_is_given_up_and_its_process_replaced(tmp_path: Path) -> None:
    config = Config(model_dir=_directory(tmp_path / "m"), allow_python=True, engine_timeout=1.0)
    with support.Live(load_model(config)) as live:
        assert _ask(live, "hang")[0] == 504
        until(lambda: live.metrics()["serinus_workers"] == 1)
        assert live.metrics()['serinus_worker_restarts_total{reason="stuck"}'] == 1


def test_an_error_of_the_code_is_an_error_of_the_inputs(tmp_path: Path) -> None:
    config = Config(model_dir=_directory(tmp_path / "m"), allow_python=True)
    engine = open_engine(config)
    try:
        inputs = synthetic_inputs(engine.signature, 1)
        inputs["amount"][0, 0] = "much"
        with pytest.raises(EngineError, match="could not convert"):
            engine.run(inputs, ["total"])
        inputs["amount"][0, 0] = "1.5"
        (total,) = engine.run(inputs, ["total"])
        assert total.tolist() == [[150.0]]
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("def preprocess(inputs):\n    return {}", "preprocess gave no 'x'; it gave nothing"),
        ("def preprocess(inputs):\n    return inputs['rest']", "must return a dict of name to array, not ndarray"),
        ("def preprocess(inputs):\n    return {'x': inputs['amount']}", "gave 'x' as object, but FP32 is needed"),
        ("def preprocess(inputs):\n    return {'x': inputs['rest']}", r"of shape \[1, 2\], but \[-1, 3\] is needed"),
        ("def preprocess(inputs):\n    return {'x': lambda: 1}", "neither numbers nor text|gave 'x' as object"),
    ],
)
def test_what_a_function_gives_is_checked(tmp_path: Path, code: str, text: str) -> None:
    engine = open_engine(Config(model_dir=_directory(tmp_path / "m", code), allow_python=True))
    try:
        with pytest.raises(EngineError, match=text) as caught:
            engine.run(synthetic_inputs(engine.signature, 1), ["y"])
        assert not isinstance(caught.value, EngineTimeoutError)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("code", "about", "text"),
    [
        ("def preprocess(:", {}, "SyntaxError"),
        ("raise RuntimeError('no database')", {}, "RuntimeError: no database"),
        ("import serinus_nothing", {}, "No module named 'serinus_nothing'"),
        ("x = 1", {}, "has neither preprocess nor postprocess"),
        (_CODE, {"preprocess": "../processing.py"}, "must be a Python file at the top"),
        (_CODE, {"preprocess": "none.py"}, "must be a Python file at the top"),
        (_CODE, {"preprocess": 7}, "cannot be understood"),
        (_CODE, {"processing": {"inputs": [{"name": "a", "datatype": "TEXT", "shape": [-1]}]}}, "datatype 'TEXT'"),
    ],
)
def test_processing_that_does_not_load(tmp_path: Path, code: str, about: dict[str, Any], text: str) -> None:
    directory = _directory(tmp_path / "m", code, {**_ABOUT, **about})
    with pytest.raises(FailureError, match=text) as caught:
        open_engine(Config(model_dir=directory, allow_python=True))
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED


def test_the_preprocessing_hash_is_that_of_the_file_unless_the_model_says(tmp_path: Path) -> None:
    directory = _directory(tmp_path / "m")
    assert preprocessing_hash(directory) == "sha256:" + hashlib.sha256(_CODE.encode()).hexdigest()
    (directory / "model.json").write_text(json.dumps({**_ABOUT, "preprocessing_hash": "mine"}))
    assert preprocessing_hash(directory) == "mine"


_STRICT = _CODE.replace("    numbers =", '    assert all(value for value in text.ravel()), "no amount"\n    numbers =')
_ROWS = '{"amount": "$12.5", "rest": [1, 2]}\n{"amount": "7", "rest": [3, 4]}\n{"amount": "1", "rest": [5, 6]}\n'


def _told(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, capfd.readouterr().err.splitlines()) if line["level"] == "warning"]


def _standing(live: support.Live) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model's readiness says, and the parameters of its configuration."""
    status, _, ready = support.request(live.port, "GET", "/v2/models/model/ready")
    assert status == 200
    config = json.loads(support.request(live.port, "GET", "/v2/models/model/config")[2])
    return json.loads(ready), config["parameters"]


_BROKEN = _CODE.replace('    text = inputs["amount"]', '    text = inputs["amuont"]')


@pytest.mark.parametrize(("code", "why", "answers"), [(_STRICT, "no amount", 200), (_BROKEN, "amuont", 500)])
def test_code_that_refuses_what_warm_up_makes_is_served_and_everybody_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], code: str, why: str, answers: int
) -> None:
    """Nobody can tell the two apart without an input that the code should take."""
    directory = _directory(tmp_path / "m", code)
    with support.Live(load_model(Config(model_dir=directory, allow_python=True))) as live:
        ready, parameters = _standing(live)
        assert ready["ready"]
        assert why in ready["unproved"]
        assert "warmup.jsonl, one object a line" in ready["unproved"]
        assert parameters["unproved"]["string_value"] == ready["unproved"]
        assert live.metrics()["serinus_model_proved"] == 0
        metrics = live.metrics()
        assert metrics['serinus_step_duration_seconds_count{step="preprocess"}'] == 1
        assert _ask(live, "2")[0] == answers
    (warning,) = _told(capfd)
    assert "warmup.jsonl, one object a line" in warning["msg"]
    assert why in warning["why"]


def test_code_that_takes_what_warm_up_makes_is_proved(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with support.Live(load_model(Config(model_dir=_directory(tmp_path / "m"), allow_python=True))) as live:
        ready, parameters = _standing(live)
        assert "unproved" not in ready
        assert "unproved" not in parameters
        assert live.metrics()["serinus_model_proved"] == 1
    assert _told(capfd) == []


def test_a_graph_that_fails_is_found_behind_code_that_refuses_zeros(tmp_path: Path) -> None:
    directory = support.failing_model(tmp_path / "m")
    (directory / "processing.py").write_text("def preprocess(inputs):\n    raise ValueError('no zeros')\n")
    (directory / "model.json").write_text('{"preprocess": "processing.py"}')
    with pytest.raises(FailureError, match="fails on zeros of shape") as caught:
        load_model(Config(model_dir=directory, allow_python=True))
    assert caught.value.reason is Reason.WARMUP_FAILED


def test_a_part_with_sizes_that_only_real_inputs_know_may_fail_on_zeros(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = support._save(
        tmp_path / "m",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2, 4])],
        [helper.make_tensor("shape", TensorProto.INT64, [3], [0, 2, 4])],
    )
    (directory / "processing.py").write_text(
        "import numpy as np\n"
        "def preprocess(inputs):\n"
        "    assert inputs['n'].all(), 'no zeros'\n"
        "    return {'x': np.repeat(inputs['n'], 8, axis=1)}\n"
    )
    inputs = [{"name": "n", "datatype": "FP32", "shape": [-1, 1]}]
    (directory / "model.json").write_text(json.dumps({"preprocess": "processing.py", "processing": {"inputs": inputs}}))
    loaded = load_model(Config(model_dir=directory, allow_python=True))
    try:
        assert loaded.unproved
        assert loaded.engine.run({"n": np.ones((2, 1), np.float32)}, ["y"])[0].shape == (2, 2, 4)
    finally:
        loaded.engine.close()
    part, whole = _told(capfd)
    assert "fails on zeros of shape" in part["why"]
    assert "no zeros" in whole["why"]


def test_the_model_behind_code_that_refuses_zeros_is_warm(tmp_path: Path) -> None:
    loaded = load_model(Config(model_dir=_directory(tmp_path / "m", _STRICT), allow_python=True, batch_max_size=8))
    (inner,) = loaded.engine.parts
    ran: list[int] = []

    class Counting(Engine):
        """The inner model, counted."""

        signature = inner.signature
        runtime = platform = backend = "none"

        def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
            ran.append(len(inputs["x"]))
            return inner.run(inputs, outputs)

    assert isinstance(loaded.engine, ProcessedEngine)
    loaded.engine._engine = Counting()
    try:
        assert warm_up(loaded.engine, 8, preferred=(4,)).unproved
    finally:
        loaded.engine.close()
    assert ran == [1, 1, 1, 4, 4, 4, 8, 8, 8]


def test_what_is_not_proved_is_not_served_where_that_is_asked_for(tmp_path: Path) -> None:
    directory = _directory(tmp_path / "m", _STRICT)
    settings: dict[str, Any] = {"model_dir": directory, "allow_python": True, "require_proof": True}
    with pytest.raises(FailureError, match=r"no amount.*ship a few rows that it takes as warmup\.jsonl") as caught:
        load_model(Config(**settings))
    assert caught.value.reason is Reason.WARMUP_FAILED
    (directory / "warmup.jsonl").write_text(_ROWS)
    load_model(Config(**settings)).engine.close()


def test_examples_warm_up_the_whole_path(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = _directory(tmp_path / "m", _STRICT)
    before = verify(directory, "")
    (directory / "warmup.jsonl").write_text(_ROWS)
    loaded = load_model(Config(model_dir=directory, allow_python=True, batch_max_size=8))
    assert loaded.digest == verify(directory, "") != before, "the digest covers them"
    with support.Live(loaded) as live:
        metrics = live.metrics()
        for step in ("preprocess", "model", "postprocess"):
            assert metrics[f'serinus_step_duration_seconds_count{{step="{step}"}}'] == 6, "thrice one row, thrice eight"
        assert metrics["serinus_model_proved"] == 1
        assert "unproved" not in _standing(live)[0]
    assert _told(capfd) == []


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ('{"amount": "much", "rest": [1, 2]}', "fails on warmup.jsonl, its own examples, at 1 rows: ValueError"),
        ('{"amount": "1"}', "the examples cannot be used: .*no column 'rest'"),
        ("[1", "the examples cannot be used: .*not JSON"),
        ("\n", "the examples cannot be used"),
    ],
)
def test_examples_that_do_not_fit_keep_the_model_from_being_served(tmp_path: Path, rows: str, text: str) -> None:
    directory = _directory(tmp_path / "m", _STRICT)
    (directory / "warmup.jsonl").write_text(rows)
    with pytest.raises(FailureError, match=text) as caught:
        load_model(Config(model_dir=directory, allow_python=True))
    assert caught.value.reason is Reason.WARMUP_FAILED


def test_one_file_of_examples_is_enough(tmp_path: Path) -> None:
    directory = _directory(tmp_path / "m", _STRICT)
    (directory / "warmup.jsonl").write_text(_ROWS)
    (directory / "warmup.csv").write_text("amount\n")
    with pytest.raises(FailureError, match=r"there are warmup\.jsonl and warmup\.csv: keep one of them"):
        load_model(Config(model_dir=directory, allow_python=True))
