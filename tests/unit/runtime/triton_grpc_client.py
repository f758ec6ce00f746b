"""Run by `test_grpc_clients` in a process of its own: tritonclient over gRPC, blocking, streaming and asyncio."""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

TYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
wrong: list[str] = []


def _values(name: str, rows: int = 2) -> Any:
    if name == "BYTES":
        return np.array([["travel", "groß"]] * (rows - 1) + [["", "x" * 300]], dtype=object)
    return np.arange(2 * rows).reshape(rows, 2).astype(triton_to_np_dtype(name))


def _inputs(rows: int = 2) -> list[Any]:
    inputs = []
    for name in TYPES:
        tensor = triton.InferInput(f"in_{name}", [rows, 2], name)
        tensor.set_data_from_numpy(_values(name, rows))
        inputs.append(tensor)
    return inputs


def _compare(result: Any, what: str, rows: int = 2) -> None:
    for name in TYPES:
        got = result.as_numpy(f"out_{name}")
        if name == "BYTES":
            got = np.array([[item.decode() for item in row] for row in got], dtype=object)
        if not np.array_equal(got, _values(name, rows)):
            wrong.append(f"{what} {name}: {got!r:.200}")


def _refused(call: Any) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return ["accepted", ""]


def impatient(address: str) -> str:
    """How a call ends whose deadline passes before the model has answered."""
    tensor = triton.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with triton.InferenceServerClient(address) as client:
        return _refused(lambda: client.infer("model", [tensor], client_timeout=0.2))[0]


def blocking(address: str) -> dict[str, Any]:
    """Everything that the blocking client knows."""
    told: dict[str, Any] = {}
    with triton.InferenceServerClient(address) as client:
        if not (client.is_server_live() and client.is_server_ready() and client.is_model_ready("echo")):
            wrong.append("not ready")
        for turn in range(3):
            result = client.infer("echo", _inputs(), request_id=f"é{turn}", client_timeout=20)
            _compare(result, "blocking")
            if result.get_response().id != f"é{turn}":
                wrong.append(result.get_response().id)
        _compare(client.infer("echo", _inputs(), compression_algorithm="gzip"), "gzip")
        # Larger than any window that a client begins with, both ways.
        _compare(client.infer("echo", _inputs(20_000)), "large", 20_000)
        told["metadata"] = [entry.name for entry in client.get_model_metadata("echo").inputs]
        told["config"] = client.get_model_config("echo", as_json=True)["config"]["max_batch_size"]
        told["count"] = client.get_inference_statistics("echo", as_json=True)["model_stats"][0]["inference_count"]
        told["index"] = client.get_model_repository_index(as_json=True)["models"][0]["state"]
        told["server"] = client.get_server_metadata().name
        told["load"] = _refused(lambda: client.load_model("echo"))
        told["other"] = _refused(lambda: client.get_model_metadata("other"))
        told["deflate"] = _refused(lambda: client.infer("echo", _inputs(), compression_algorithm="deflate"))
        told["incomplete"] = _refused(lambda: client.infer("echo", _inputs()[:1]))
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for turn in range(50):
            client.async_stream_infer("echo", _inputs() if turn != 7 else _inputs()[:1], request_id=str(turn))
        for turn in range(50):
            result, error = answers.get(timeout=20)
            if turn == 7:
                told["stream"] = str(error)
            elif error is not None or result.get_response().id != str(turn):
                wrong.append(f"stream {turn}: {error}")
            else:
                _compare(result, "stream")
        client.stop_stream()
    return told


async def concurrent(address: str) -> None:
    """Many calls on one connection, and a stream."""
    async with aio.InferenceServerClient(address) as client:
        for result in await asyncio.gather(*(client.infer("echo", _inputs()) for _ in range(200))):
            _compare(result, "asyncio")

        async def requests() -> Any:
            for turn in range(10):
                yield {"model_name": "echo", "inputs": _inputs(), "request_id": str(turn)}

        turn = 0
        async for result, error in client.stream_infer(requests()):
            if error is not None or result.get_response().id != str(turn):
                wrong.append(f"asyncio stream {turn}: {error}")
            turn += 1
        if turn != 10:
            wrong.append(f"asyncio stream ended after {turn}")


answers = blocking(sys.argv[1])
asyncio.run(concurrent(sys.argv[1]))
answers["timeout"] = impatient(sys.argv[2])
print(json.dumps({"wrong": wrong, **answers}))
