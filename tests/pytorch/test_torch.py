"""The torch engine: what it loads, what it refuses, and what happens when its worker does not behave."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytorch.conftest import Torch, TorchLive
from serinus_runtime.engine import EngineError
from serinus_runtime.engine import torch as engine_module
from serinus_runtime.engine.memory import resident
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.server import load_model
from support.eventually import eventually
from unit.runtime import support
from unit.runtime.support import infer, request


def _error(torch: Torch, name: str, **settings: Any) -> str:
    with pytest.raises(FailureError) as failure:
        load_model(torch.config(name, **settings))
    assert failure.value.reason in (Reason.MODEL_LOAD_FAILED, Reason.WARMUP_FAILED)
    return failure.value.message


def test_torchscript_answers_in_rows_and_says_what_runs_it(script: support.Live) -> None:
    status, _, body = infer(script.port, [1, 2, 3], [0.5, 0, 0])
    assert (status, body["outputs"]) == (
        200, [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [6.0, 0.5]}],
    )  # fmt: skip
    metadata = json.loads(request(script.port, "GET", "/v2/models/model")[2])
    assert metadata["platform"] == "pytorch_libtorch"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    config = json.loads(request(script.port, "GET", "/v2/models/model/config")[2])
    assert config["parameters"]["runtime"]["string_value"].startswith("torch-2")


def test_requests_that_come_together_go_through_the_network_together(torch: Torch) -> None:
    with torch.live("script", batch_max_size=8, batch_max_delay=0.2) as server, ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            answers = list(pool.map(lambda n: infer(server.port, [n, 0, 0]), range(4)))
            assert [body["outputs"][0]["data"] for _, _, body in answers] == [[0.0], [1.0], [2.0], [3.0]]
        metrics = server.metrics()
    assert metrics["serinus_batch_size_sum"] == 12
    assert metrics["serinus_batch_size_count"] < 12
    assert metrics["serinus_engine_up"] == 1


def test_inputs_go_by_position_and_outputs_by_name(torch: Torch) -> None:
    engine = engine_module.open_engine(torch.config("two"))
    try:
        inputs = {"ids": np.array([[1], [0]]), "x": np.array([[1, 1, 1], [0, 0, 0]], np.float32)}
        label, score = engine.run(inputs, ["label", "score"])
    finally:
        engine.close()
    assert (label.tolist(), score.tolist()) == ([[1], [0]], [[4.0], [0.0]])


def test_an_exported_program_declares_itself(torch: Torch) -> None:
    with torch.live("exported") as server:
        assert infer(server.port, [1, 2, 3])[2]["outputs"][0]["data"] == [6.0]
        metadata = json.loads(request(server.port, "GET", "/v2/models/model")[2])
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("undeclared", ["no names or shapes", "model.json", '"signature"']),
        ("one_missing", ["takes 2 inputs", "declares 1"]),
        ("wrong_type", ["'label' is declared INT32", "int64", "model.json"]),
        ("wrong_shape", ["'y' is declared with the shape [-1]", "[1, 1]"]),
        ("pickled", ["pickle", "runs whatever code", "torch.jit.script", "SERINUS_ALLOW_PICKLE=true"]),
        ("weights", ["pickle", "state dict", "SERINUS_ALLOW_PICKLE=true"]),
        ("scorer", ["Python code of its own", "SERINUS_ALLOW_PYTHON=true"]),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(torch: Torch, name: str, words: list[str]) -> None:
    text = _error(torch, name, engine="torch")
    for word in words:
        assert word in text


def test_a_pickle_that_runs_code_is_refused_before_it_runs(torch: Torch, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_bytes((torch.models / "pickled" / "model.json").read_bytes())
    evil = f"cos\nsystem\n(S'touch {witness}'\ntR.".encode()
    (model / "model.pt").write_bytes(evil)
    assert "is a pickle" in _error(torch, str(model))
    assert not witness.exists()


def test_weights_alone_are_refused_even_where_pickles_are_allowed(torch: Torch) -> None:
    assert "a state dict: weights without a network" in _error(torch, "weights", allow_pickle=True)


def test_damaged_torchscript_is_told(torch: Torch, tmp_path: Path) -> None:
    whole = (torch.models / "script" / "model.pt").read_bytes()
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_bytes((torch.models / "script" / "model.json").read_bytes())
    (model / "model.pt").write_bytes(whole.replace(b"code/__torch__", b"code/__nonono__"))
    assert "model.pt" in _error(torch, str(model))


def test_an_interpreter_without_torch_is_told(torch: Torch) -> None:
    with pytest.raises(FailureError, match="Is torch installed"):
        load_model(torch.config("script", torch_python="/usr/bin/python3"))


def test_a_failing_request_is_an_error_of_its_own(torch: Torch) -> None:
    with torch.live("whims", batch_max_size=8, batch_max_delay=0.1) as server, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda n: infer(server.port, [n, 0, 0]), [1, 66, 2]))
    assert [status for status, _, _ in found] == [200, 500, 200]
    assert "sixty-six is not allowed" in found[1][2]["error"]


def test_a_killed_worker_is_replaced_and_the_pod_is_not_ready_meanwhile(torch: Torch) -> None:
    with torch.live("script") as server:
        first = server.engine.pid
        os.kill(first, signal.SIGKILL)
        eventually(server.assert_not_ready, interval=0.01)
        status, headers, body = infer(server.port, [1, 2, 3])
        assert (status, headers["retry-after"]) == (503, "1")
        assert "try again" in body["error"]
        assert request(server.port, "GET", "/v2/health/live")[0] == 200
        eventually(server.assert_ready)
        assert infer(server.port, [1, 2, 3])[0] == 200
        assert server.engine.pid != first
        metrics = server.metrics()
        assert metrics["serinus_engine_starts_total"] == 2


def test_a_stuck_batch_ends_the_worker_and_is_answered(torch: Torch) -> None:
    with torch.live("whims", engine_timeout=5.0, queue_timeout=60.0) as server:
        first = server.engine.pid
        status, _, body = infer(server.port, [99, 0, 0])
        assert status == 504
        assert "did not answer in time" in body["error"]
        eventually(server.assert_ready)
        assert infer(server.port, [1, 2, 3])[0] == 200
        assert not Path(f"/proc/{first}").exists()


def test_a_worker_that_takes_too_much_memory_is_replaced(torch: Torch) -> None:
    with torch.live("hoarder", engine="torch", allow_python=True) as server:
        loaded = resident(server.engine.pid)
        assert infer(server.port, [88, 0, 0])[0] == 200
        assert resident(server.engine.pid) > loaded + (200 << 20), "without a limit there is only the container's"
    limit = loaded + (128 << 20)
    with torch.live("hoarder", engine="torch", allow_python=True, worker_memory=limit) as server:
        first = server.engine.pid
        # It may be ended before it has answered.
        assert infer(server.port, [88, 0, 0])[0] in (200, 503)
        eventually(lambda: _assert_another(server, first))
        assert infer(server.port, [1, 2, 3])[2]["outputs"][0]["data"] == [6.0]
        assert server.metrics()["serinus_engine_starts_total"] == 2
    text = _error(torch, "hoarder", engine="torch", allow_python=True, worker_memory=loaded // 2)
    assert "before the first batch, more than SERINUS_WORKER_MEMORY" in text


def _assert_another(server: TorchLive, first: int) -> None:
    assert server.engine.pid != first
    server.assert_ready()


def test_nothing_is_left_when_the_server_ends(torch: Torch) -> None:
    with torch.live("scorer", engine="torch", allow_python=True) as server:
        worker = server.engine.pid
        unpacked = Path(f"/proc/{worker}/cwd").resolve()
        assert (unpacked / "handler.py").is_file()
    assert not Path(f"/proc/{worker}").exists()
    assert not unpacked.exists()


def test_a_handler_of_an_archive_runs_unchanged(torch: Torch) -> None:
    with torch.live("scorer", engine="torch", allow_python=True) as server:
        assert infer(server.port, [1, 2, 3], [4, 5, 6])[2]["outputs"][0]["data"] == [6.0, 15.0]
        assert infer(server.port, [77, 0, 0])[0] == 503
        eventually(server.assert_ready)
        assert infer(server.port, [1, 2, 3])[2]["outputs"][0]["data"] == [6.0]


def test_rows_reach_a_function_handler_as_one_batch_of_requests(torch: Torch) -> None:
    engine = engine_module.open_engine(torch.config("rows", allow_python=True))
    try:
        rows = np.arange(12, dtype=np.float32).reshape(4, 3)
        total, together = engine.run({"x": rows}, ["total", "together"])
    finally:
        engine.close()
    assert total.tolist() == rows.sum(axis=1).tolist()
    assert together.tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("engine", ["torch", "torchserve"])
def test_a_handler_that_refuses_zeros_is_served_unproved_or_proved_by_its_examples(torch: Torch, engine: str) -> None:
    settings: dict[str, Any] = {"engine": engine, "allow_python": True, "batch_max_size": 4}
    with torch.live("picky", **settings) as server:
        told = json.loads(request(server.port, "GET", "/v2/models/model/ready")[2])
        assert told["ready"]
        assert "ship a few rows that it takes as warmup.jsonl" in told["unproved"]
        assert infer(server.port, [1, 2, 3])[2]["outputs"][0]["data"] == [6.0]
    with torch.live("picky_proved", require_proof=True, **settings) as server:
        assert "unproved" not in json.loads(request(server.port, "GET", "/v2/models/model/ready")[2])


def test_a_handler_that_refuses_zeros_needs_examples_where_proof_is_asked_for(torch: Torch) -> None:
    text = _error(torch, "picky", engine="torch", allow_python=True, require_proof=True)
    assert "ValueError: no zeros" in text
    assert "warmup.jsonl" in text


def test_a_handler_that_needs_torchserve_is_refused_with_the_way_out(torch: Torch) -> None:
    text = _error(torch, "based", engine="torch", allow_python=True)
    assert "needs TorchServe's own classes" in text


def test_the_worker_has_none_of_the_front_s_secrets(torch: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERINUS_API_KEYS_FILE", "/secret")
    engine = engine_module.open_engine(torch.config("script"))
    try:
        pid = engine.pid
        assert b"SERINUS" not in Path(f"/proc/{pid}/environ").read_bytes()
        with pytest.raises(EngineError):
            engine.run({"x": np.zeros((1, 3), dtype=np.complex64)}, ["y"])
    finally:
        engine.close()
