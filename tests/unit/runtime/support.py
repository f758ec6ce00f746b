"""Tiny models, engines that wait for the test, and a live server in a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper

from serinus_runtime.config import Config
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Engine, EngineError, Signature, TensorSpec
from serinus_runtime.server import Loaded, Server

_T = TypeVar("_T")
WAIT = 60.0
"""Seconds after which a condition that should come true is given up."""


def _save(directory: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], consts: Sequence[Any] = ()) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(consts))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(directory / "model.onnx"))
    return directory


def sum_model(directory: Path, rows: int | None = None) -> Path:
    """x FP32 [rows, 3] -> y FP32 [rows, 1], the sum of the row."""
    return _save(
        directory,
        [helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 1])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )


def columns_model(directory: Path) -> Path:
    """amount FP32 [-1, 1], count INT64 [-1, 1], category BYTES [-1, 1] -> score FP32, label INT64, seen BYTES."""
    column = [None, 1]
    return _save(
        directory,
        [
            helper.make_node("Cast", ["count"], ["count_f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["amount", "count_f"], ["score"]),
            helper.make_node("Identity", ["category"], ["seen"]),
            helper.make_node("Mul", ["count", "two"], ["label"]),
        ],
        [
            helper.make_tensor_value_info("amount", TensorProto.FLOAT, column),
            helper.make_tensor_value_info("count", TensorProto.INT64, column),
            helper.make_tensor_value_info("category", TensorProto.STRING, column),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, column),
            helper.make_tensor_value_info("label", TensorProto.INT64, column),
            helper.make_tensor_value_info("seen", TensorProto.STRING, column),
        ],
        [helper.make_tensor("two", TensorProto.INT64, [1], [2])],
    )


ECHOED = [name for name in NUMPY if name != "BF16"]
"""ONNX Runtime cannot give BF16 where it takes text: see test_bfloat16."""


def echo_model(directory: Path) -> Path:
    """in_T [-1, 2] -> out_T [-1, 2], the same, for every datatype T of `ECHOED`."""
    types = {name: getattr(TensorProto, _ONNX_TYPES.get(name, name)) for name in ECHOED}
    return _save(
        directory,
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in types],
        [helper.make_tensor_value_info(f"in_{name}", code, [None, 2]) for name, code in types.items()],
        [helper.make_tensor_value_info(f"out_{name}", code, [None, 2]) for name, code in types.items()],
    )


def scorer_model(directory: Path, about: Mapping[str, Any] | None = None) -> Path:
    """features FP32 [-1, 3] and category BYTES [-1, 1] -> label INT64 [-1], probabilities FP32 [-1, 2]: 1 - s and s,
    where s is the sum of the features; beside it a model.json as the fraud example writes it, or `about`."""
    _save(
        directory,
        [
            helper.make_node("ReduceSum", ["features", "one"], ["score"], keepdims=1),
            helper.make_node("Sub", ["unit", "score"], ["rest"]),
            helper.make_node("Concat", ["rest", "score"], ["probabilities"], axis=1),
            helper.make_node("Shape", ["category"], ["_shape"]),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3]),
            helper.make_tensor_value_info("category", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("unit", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    default = {"features": ["amount", "age", "hour"], "thresholds": {"block": 0.82, "step_up": 0.60}, "auc": 0.9}
    (directory / "model.json").write_text(json.dumps(default if about is None else about))
    return directory


_ONNX_TYPES = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}


def zipmap_model(directory: Path) -> Path:
    """A classifier's output as scikit-learn converters write it by default."""
    return _save(
        directory,
        [helper.make_node("ZipMap", ["x"], ["p"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_value_info(
                "p",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(
                        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
                    )
                ),
            )
        ],
    )


def failing_model(directory: Path) -> Path:
    """Loads, but cannot answer: it reshapes every batch to seven numbers."""
    return _save(
        directory,
        [helper.make_node("Reshape", ["x", "seven"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("seven", TensorProto.INT64, [1], [7])],
    )


def mixing_model(directory: Path) -> Path:
    """Declares rows, but gives the distinct numbers of the whole batch."""
    return _save(
        directory,
        [helper.make_node("Unique", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )


class GateEngine(Engine):
    """Sums rows like `sum_model`, but only while `gate` is set; `started` is released by each batch."""

    signature = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
    runtime = "gate-1"
    platform = "gate"
    backend = "gate"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.batches: list[int] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Waits for the gate. A 666 in the batch is an EngineError."""
        x = inputs["x"]
        self.batches.append(len(x))
        self.started.release()
        assert self.gate.wait(WAIT)
        if np.any(x == np.float32(666)):
            raise EngineError("poisoned")
        return [np.asarray(x, dtype=np.float32).sum(axis=1, keepdims=True)]


class Live:
    """A server with its own event loop in a thread; use as a context."""

    def __init__(self, loaded: Loaded, **settings: Any) -> None:
        settings = {
            "host": "127.0.0.1",
            "http_port": 0,
            "metrics_port": 0,
            "grpc_port": None,
            "queue_timeout": 30.0,
            **settings,
        }
        self._config = Config(**settings)
        self._loaded = loaded
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.server: Server

    def __enter__(self) -> Live:
        self._thread.start()
        self.server = self.call(self._make())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()

    async def _make(self) -> Server:
        server = Server(self._config)
        await server.start()
        server.serve(self._loaded)
        return server

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs `coroutine` on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT)

    @property
    def port(self) -> int:
        """Where inference is served."""
        return self.server.http_port

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by `name{the labels that are not the model's}`."""
        _, _, body = request(self.server.metrics_port, "GET", "/metrics")
        return parse_metrics(body.decode())


def parse_metrics(text: str) -> dict[str, float]:
    """Samples by name and the labels that differ within a process, such as `serinus_requests_total{code="200"}`."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name, _, labels = series.partition("{")
        kept = [label for label in labels.rstrip("}").split(",") if label and not label.startswith(_MODEL_LABELS)]
        samples[name + ("{" + ",".join(kept) + "}" if kept else "")] = float(value)
    return samples


_MODEL_LABELS = ("model_namespace=", "model_deployment=", "revision=", "model_version=")


def gated(engine: GateEngine) -> Loaded:
    """A `GateEngine` as a loaded model."""
    return Loaded(engine, engine.signature, "sha256:" + "0" * 64, 0.0)


def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def infer_body(*rows: Sequence[float], **more: Any) -> bytes:
    """An inference request for x."""
    tensor = {
        "name": "x",
        "shape": [len(rows), 3],
        "datatype": "FP32",
        "data": [value for row in rows for value in row],
    }
    return json.dumps({"inputs": [tensor], **more}).encode()


def infer(port: int, *rows: Sequence[float]) -> tuple[int, dict[str, str], Any]:
    """Posts `rows` and reads the JSON answer."""
    status, headers, body = request(port, "POST", "/v2/models/model/infer", infer_body(*rows))
    return status, headers, json.loads(body)


def post(body: bytes, *headers: str) -> bytes:
    """The bytes of an inference request."""
    lines = ["POST /v2/models/model/infer HTTP/1.1", "Host: t", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    """A plain connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as sock:
        yield sock


class Reader:
    """Reads answers one after the other from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rb")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (text := self._file.readline().decode().rstrip()) != "":
            name, _, value = text.partition(": ")
            headers[name] = value
        return int(line.split()[1]), headers, self._file.read(int(headers.get("content-length", 0)))

    def end(self) -> bool:
        """True when the server has closed the connection."""
        return self._file.read(1) == b""
