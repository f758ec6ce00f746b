"""What is made for a whole batch at once is, row by row, what is made for one request alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.identity import Identity
from serinus_runtime.joined import Joined
from serinus_runtime.oip import InferCodec
from serinus_runtime.predictionlog import Prediction, PredictionLog
from serinus_runtime.sinks.files import FileSink
from unit.runtime.ports import until
from unit.runtime.support import GateEngine, Live, gated, infer_body, request

NAMES = ("y", "secret")
CODEC = InferCodec("m", "1", Signature((), tuple(TensorSpec(name, "FP32", (-1,)) for name in NAMES), batched=True))

_shapes = st.one_of(
    st.tuples(st.just(3)),
    st.tuples(st.just(3), st.integers(0, 300)),
    st.tuples(st.just(3), st.integers(0, 3), st.integers(0, 2)),
)
_numbers = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]).flatmap(
    lambda dtype: (
        arrays.arrays(dtype, st.tuples(st.just(3)) | st.tuples(st.just(3), st.integers(0, 3), st.integers(0, 2)))
        | arrays.arrays(dtype, st.tuples(st.just(3), st.integers(0, 300)))
    )
)
_words = st.lists(st.text('ab],["\\', max_size=5), min_size=6, max_size=6).map(
    lambda words: np.array([*words, None], dtype=object)[:6].reshape(3, 2)
)
_arrays = _numbers | _words


def line(log: PredictionLog, answers: list[Any], text: bytes) -> dict[str, Any]:
    names = NAMES[: len(answers)]
    made = Prediction(200, b"i", 1.0, 2.0, 3.0, 4.0, 5.0, 1, None, names, answers, outputs_text=text)
    told: dict[str, Any] = json.loads(log.line(made))
    return told


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictionLog]:
    path = tmp_path_factory.mktemp("log") / "predictions.jsonl"
    opened = PredictionLog(FileSink(path), Identity(model="m"), redact=frozenset({"secret"}))
    yield opened
    opened.close()


@settings(max_examples=300, deadline=None)
@given(st.lists(_arrays, min_size=1, max_size=2))
@example([np.array([[np.nan], [np.inf], [-0.0]], np.float32)])
@example([np.zeros((3, 257), np.float32), np.zeros((3, 1), np.float32)])
def test_rows_are_told_as_if_they_were_alone(log: PredictionLog, answers: list[Any]) -> None:
    batch = Joined(NAMES[: len(answers)], answers)
    bodies, logged = CODEC.rows(batch), log.outputs(batch)
    assert (len(bodies), len(logged)) == (3, 3)
    for row in range(3):
        alone = [array[row : row + 1] for array in answers]
        assert bodies[row] == CODEC.encode(None, batch.names, alone)
        assert line(log, alone, logged[row])["outputs"] == line(log, alone, b"")["outputs"]


@pytest.mark.parametrize("rows", [1, 2])
def test_requests_that_were_run_together_are_answered_and_logged_alone(tmp_path: Path, rows: int) -> None:
    """The first holds the engine while the others wait; these go as one batch, and each has its own row of it."""
    engine, path = GateEngine(), tmp_path / "predictions.jsonl"
    answers: dict[int, tuple[int, Any]] = {}

    def ask(number: int) -> None:
        more: dict[str, Any] = {"id": "named"} if number == 4 else {}
        body = infer_body([number, 0, 0], *([[number, 1, 0]] * (rows - 1) if number == 5 else []), **more)
        status, headers, text = request(live.port, "POST", "/v2/models/model/infer", body)
        answers[number] = status, (headers["x-request-id"], json.loads(text))

    with Live(gated(engine), prediction_log=str(path)) as live:
        engine.gate.clear()
        askers = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        askers[0].start()
        assert engine.started.acquire(timeout=30)
        for waiting, asker in enumerate(askers[1:], 1):
            asker.start()
            until(lambda waiting=waiting: live.server.metrics.queue_depth() >= waiting)
        engine.gate.set()
        for asker in askers:
            asker.join(30)
    assert engine.batches == [1, 4 + rows]
    lines = {each["request_id"]: each for each in map(json.loads, path.read_text().splitlines())}
    for number, (status, (request_id, body)) in answers.items():
        values = [float(number)] + ([float(number + 1)] * (rows - 1) if number == 5 else [])
        assert status == 200
        assert body["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [len(values), 1], "data": values}]
        assert body.get("id") == ("named" if number == 4 else None)
        assert lines[request_id]["outputs"] == {"y": [[value] for value in values]}
        assert lines[request_id]["rows"] == len(values)
