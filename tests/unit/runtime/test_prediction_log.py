"""The prediction log: what a line says, what it hides, and that it costs lines and never requests."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serinus_runtime.config import from_environment
from serinus_runtime.failures import FailureError
from serinus_runtime.identity import Identity
from serinus_runtime.inputhash import kind
from serinus_runtime.predictionlog import (
    REDACTED,
    Prediction,
    PredictionLog,
    input_hash,
    preprocessing_hash,
)
from serinus_runtime.sinks import Sink, Stopping
from serinus_runtime.sinks.files import FileSink
from unit.runtime import support
from unit.runtime.ports import until
from unit.runtime.support import GateEngine, Live, Reader, connect, gated, infer, infer_body, post, request

IDENTITY = Identity(model="m", version="v1", digest="sha256:1", preprocessing="p", runtime="r", revision="5f")


def prediction(**changes: Any) -> Prediction:
    given: dict[str, Any] = {
        "code": 200,
        "request_id": b"id-1",
        "received": 10.0,
        "queued": 10.001,
        "started": 10.003,
        "finished": 10.006,
        "answered": 10.01,
        "rows": 1,
        "inputs": {"x": np.array([[1.0, 2.0]], dtype=np.float32)},
        "names": ("y",),
        "outputs": [np.array([[0.5]], dtype=np.float32)],
    }
    return Prediction(**{**given, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictions.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[Callable[..., PredictionLog]]:
    opened: list[PredictionLog] = []

    def open_log(**settings: Any) -> PredictionLog:
        opened.append(PredictionLog(FileSink(path), IDENTITY, **settings))
        return opened[-1]

    yield open_log
    for each in opened:
        each.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_who_answered_what_in_which_time(log: Callable[..., PredictionLog], path: Path) -> None:
    running = log()
    running.add(prediction())
    running.add(prediction(code=429, queued=0.0, started=0.0, finished=0.0, inputs=None, names=(), outputs=[]))
    running.close()
    first, second = lines(path)
    assert {"model": "m", "version": "v1", "digest": "sha256:1", "preprocessing": "p", "runtime": "r"}.items() <= (
        first.items()
    )
    assert (first["revision"], first["request_id"], first["code"], first["rows"]) == ("5f", "id-1", 200, 1)
    assert first["ms"] == {"total": 10.0, "decode": 1.0, "queue": 2.0, "infer": 3.0, "encode": 4.0}
    assert first["outputs"] == {"y": [[0.5]]}
    assert first["input_hash"] == input_hash(prediction().inputs or {})
    assert "inputs" not in first
    assert (second["code"], second["ms"]) == (429, {"total": 10.0})
    assert "outputs" not in second
    assert (running.written, running.lost) == (2, 0)


def tell(log: PredictionLog, request_id: bytes = b"id-1", raw: bytes = bytes(8)) -> None:
    """What `prediction(request_id=..., inputs=...)` says, by the short way."""
    log.told(
        200,
        request_id,
        10.0,
        10.001,
        10.003,
        10.006,
        10.01,
        1,
        kind("x", "f", (1, 2)),
        raw,
        b',"outputs":{"y":[[0.5]]}',
    )


def test_the_common_request_has_the_same_line(log: Callable[..., PredictionLog], path: Path) -> None:
    running = log()
    array = np.array([[1.0, 2.0]], dtype=np.float32)
    tell(running, raw=array.tobytes())
    running.add(prediction(inputs={"x": array}))
    running.close()
    one, other = path.read_bytes().splitlines()
    assert one == other
    assert (running.written, len(running), running.lost) == (2, 0, 0)


def test_lines_of_one_tick_go_together_and_in_their_order(log: Callable[..., PredictionLog], path: Path) -> None:
    due: list[Callable[[], None]] = []
    running = log()
    running.soon = due.append
    for number in range(3):
        tell(running, b"%d" % number)
    assert (len(due), len(running), running.written) == (1, 3, 0)
    due.pop()()
    tell(running, b"3")
    running.add(prediction(request_id=b"4"))
    assert len(due) == 1
    due.pop()()
    tell(running, b"5")
    running.flush()
    running.close()
    assert [line["request_id"] for line in lines(path)] == ["0", "1", "2", "3", "4", "5"]
    assert (running.written, len(running), running.lost) == (6, 0, 0)


def test_lines_of_one_tick_are_bounded(log: Callable[..., PredictionLog], path: Path) -> None:
    due: list[Callable[[], None]] = []
    few, small, sampled = log(lines=2), log(size=1000), log(sample=0.0)
    for running in (few, small, sampled):
        running.soon = due.append
        for _ in range(100):
            tell(running)
    assert (len(few), few.dropped) == (2, 98)
    assert 1 <= len(small) <= 5
    assert len(small) + small.dropped == 100
    assert (len(sampled), sampled.dropped) == (0, 0)
    for each in due:
        each()
    few.close()
    assert (few.written, few.lost, len(few)) == (2, 98, 0)


def test_a_tick_without_end_does_not_keep_its_lines(log: Callable[..., PredictionLog]) -> None:
    running = log()
    running.soon = lambda _: None
    until(lambda: [tell(running) for _ in range(100)] and running.written > 0)


class _Messages(Sink):
    """Takes lines one by one, as a Kafka sink does."""

    gather_seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def write(self, lines: Sequence[bytes], stopping: Stopping) -> None:
        self.lines += lines
        self.written += len(lines)


def test_a_sink_of_messages_gets_single_lines() -> None:
    sink = _Messages()
    running = PredictionLog(sink, IDENTITY)
    running.soon = lambda _: None
    for number in range(5):
        tell(running, b"%d" % number)
    running.put(b"id", b'{"request_id":"5"}\n', 10)
    running.close()
    assert [json.loads(line)["request_id"] for line in sink.lines] == ["0", "1", "2", "3", "4", "5"]
    assert running.written == 6


def test_requests_that_are_answered_together_have_their_lines(path: Path) -> None:
    """By the short way or the long one: what they say is the same."""
    engine = GateEngine()
    with Live(gated(engine), prediction_log=str(path)) as live, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(live.port)) for _ in range(8)]
        readers = [stack.enter_context(Reader(sock)) for sock in socks]
        for turn in range(3):
            engine.gate.clear()
            for number, sock in enumerate(socks):
                sock.sendall(post(infer_body([number, turn, 0])))
                if number == 0:
                    assert engine.started.acquire(timeout=support.WAIT)
            until(lambda: live.server.metrics.queue_depth() == 7)
            engine.gate.set()
            for reader in readers:
                assert reader.answer()[0] == 200
            assert engine.started.acquire(timeout=support.WAIT)
    assert engine.batches == [1, 7] * 3
    written = lines(path)
    assert len(written) == 24
    for line in written:
        ((value,),) = line["outputs"]["y"]
        asked = [
            input_hash({"x": np.array([[number, turn, 0]], np.float32)})
            for number in range(8)
            for turn in range(3)
            if number + turn == value
        ]
        assert line["input_hash"] in asked
        assert (line["rows"], line["code"]) == (1, 200)


def test_payloads_are_sampled_and_redacted(log: Callable[..., PredictionLog], path: Path) -> None:
    running = log(payloads=1.0, redact=frozenset({"card", "name"}), columns={"x": ("amount", "card")})
    inputs = {"x": np.array([[1.0, 2.0], [3.0, 4.0]]), "name": np.array([["a"], ["b"]], dtype=object)}
    running.add(prediction(inputs=inputs, rows=2, names=("y", "name"), outputs=[np.array([np.nan]), np.array([1.0])]))
    running.close()
    (line,) = lines(path)
    assert line["inputs"] == {"x": [[1.0, REDACTED], [3.0, REDACTED]], "name": REDACTED}
    assert line["outputs"] == {"y": [None], "name": REDACTED}


def test_what_is_hidden_is_not_shown_in_whatever_shape(log: Callable[..., PredictionLog], path: Path) -> None:
    running = log(payloads=1.0, redact=frozenset({"card"}), columns={"x": ("amount", "card")})
    running.add(prediction(inputs={"x": np.full((500, 2), 7.0)}))
    running.close()
    (line,) = lines(path)
    assert line["inputs"] == {"x": {"shape": [500, 2]}}


def test_the_hash_knows_names_types_shapes_and_values() -> None:
    base = {"a": np.array([1, 2], dtype=np.int32), "b": np.array(["x"], dtype=object)}
    others = [
        {**base, "a": np.array([1, 3], dtype=np.int32)},
        {**base, "a": np.array([1, 2], dtype=np.int64)},
        {**base, "a": np.array([[1, 2]], dtype=np.int32)},
        {**base, "b": np.array(["y"], dtype=object)},
        {"a": base["a"]},
    ]
    assert input_hash(dict(reversed(base.items()))) == input_hash(base)
    assert len({input_hash(each) for each in [base, *others]}) == 6
    assert input_hash({"a": np.arange(6).reshape(2, 3).T}) == input_hash({"a": np.arange(6).reshape(2, 3).T.copy()})


def test_a_reader_that_does_not_read_costs_lines_and_never_waits(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    running = PredictionLog(FileSink(pipe), IDENTITY, lines=50)
    try:
        for _ in range(10_000):
            running.add(prediction())
        assert running.lost > 0
        assert running.written + running.lost <= 10_000
        os.set_blocking(reader, True)
        drained = threading.Thread(
            target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")], daemon=True
        )
        drained.start()
        running.close()
        drained.join(support.WAIT)
        assert running.written + running.lost == 10_000
    finally:
        os.close(reader)


def test_bytes_that_wait_are_bounded(log: Callable[..., PredictionLog]) -> None:
    running = log(size=1000)
    running.add(prediction(inputs={"x": np.zeros(1000)}))
    assert running.lost == 1


def test_a_disk_that_cannot_be_written_costs_lines(capsys: pytest.CaptureFixture[str]) -> None:
    running = PredictionLog(FileSink(Path("/dev/full")), IDENTITY)
    for _ in range(100):
        running.add(prediction())
    running.close()
    assert (running.written, running.lost) == (0, 100)
    assert capsys.readouterr().err.count("prediction log cannot be written") == 1


def test_a_file_that_was_moved_away_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serinus_runtime.sinks.files._REOPEN_SECONDS", 0.0)
    running = PredictionLog(FileSink(path), IDENTITY)
    running.add(prediction())
    until = time.monotonic() + support.WAIT
    while running.written < 1 and time.monotonic() < until:
        time.sleep(0.005)
    path.rename(path.with_suffix(".1"))
    running.add(prediction())
    running.close()
    assert (len(lines(path.with_suffix(".1"))), len(lines(path))) == (1, 1)


def test_every_request_has_its_line(path: Path) -> None:
    with Live(gated(GateEngine()), prediction_log=str(path), model_version="v7") as live:
        status, headers, _ = infer(live.port, [1, 2, 3], [4, 5, 6])
        assert status == 200
        assert infer(live.port, [666, 0, 0])[0] == 500
        assert request(live.port, "POST", "/v2/models/model/infer", b"{}")[0] == 400
        data = infer_body([1, 2, 3])
        assert request(live.port, "POST", "/v2/models/model/infer", data, {"X-Request-Id": "mine"})[0] == 200
    written = lines(path)
    assert [line["code"] for line in written] == [200, 500, 400, 200]
    assert written[0]["request_id"] == headers["x-request-id"]
    assert written[3]["request_id"] == "mine"
    assert (written[0]["rows"], written[0]["outputs"]) == (2, {"y": [[6.0], [15.0]]})
    assert {line["version"] for line in written} == {"v7"}
    assert set(written[0]["ms"]) == {"total", "decode", "queue", "infer", "encode"}


def test_lines_are_counted_and_there_is_no_log_unless_asked_for(path: Path) -> None:
    with Live(gated(GateEngine())) as live:
        infer(live.port, [1, 2, 3])
        assert not any("prediction_log" in name for name in live.metrics())
    with Live(gated(GateEngine()), prediction_log=str(path)) as live:
        infer(live.port, [1, 2, 3])
        until = time.monotonic() + support.WAIT
        name = 'serinus_prediction_log_lines_total{outcome="written"}'
        while live.metrics()[name] < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert live.metrics()['serinus_prediction_log_lines_total{outcome="dropped"}'] == 0


def test_settings() -> None:
    assert from_environment({}).prediction_log == "off"
    config = from_environment(
        {
            "SERINUS_PREDICTION_LOG": "/var/log/p.jsonl",
            "SERINUS_PREDICTION_LOG_PAYLOADS": "0.01",
            "SERINUS_PREDICTION_LOG_REDACT": "card, name,",
        }
    )
    assert (config.prediction_log_payloads, config.prediction_log_redact) == (0.01, frozenset({"card", "name"}))
    for name, value in (("", "relative.jsonl"), ("_PAYLOADS", "2"), ("_PAYLOADS", "many")):
        with pytest.raises(FailureError, match=f"SERINUS_PREDICTION_LOG{name}: "):
            from_environment({f"SERINUS_PREDICTION_LOG{name}": value})


def test_the_hash_of_the_preprocessing_comes_from_the_model(tmp_path: Path) -> None:
    assert preprocessing_hash(tmp_path) == ""
    for text, found in (
        ('{"preprocessing_hash": "abc"}', "abc"),
        ("[1]", ""),
        ("{", ""),
        ('{"preprocessingHash": 1}', ""),
    ):
        (tmp_path / "model.json").write_text(text)
        assert preprocessing_hash(tmp_path) == found
