"""Run by `test_grpc_clients` in a process of its own: the kserve SDK's gRPC client against the echo model.

`kserve` imports its whole model server with its first line; only its client is wanted here, so the package itself is
put in place empty.
"""

from __future__ import annotations

import asyncio
import json
import sys
import types
from importlib.util import find_spec
from typing import Any

spec = find_spec("kserve")
assert spec is not None
package = types.ModuleType("kserve")
package.__path__ = list(spec.submodule_search_locations or [])
sys.modules["kserve"] = package

import numpy as np  # noqa: E402
from kserve.inference_client import InferenceGRPCClient  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferRequest  # noqa: E402

TYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


def _values(name: str) -> Any:
    if name == "BYTES":
        return np.array([["travel", "groß"], ["", "x" * 300]], dtype=object)
    return np.array([[0, 1], [1, 100]]).astype(TYPES[name])


def _text(array: Any) -> Any:
    return np.array([item.decode() if isinstance(item, bytes) else item for item in np.ravel(array)], dtype=object)


async def ask(echo: str, plain: str) -> None:
    """Every datatype raw from the server at `echo`, and typed contents from the one at `plain`."""
    wrong: list[str] = []
    async with InferenceGRPCClient(echo) as client:
        if not (
            await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("echo")
        ):
            wrong.append("not ready")
        inputs = []
        for name in TYPES:
            tensor = InferInput(f"in_{name}", [2, 2], name)
            tensor.set_data_from_numpy(_values(name), binary_data=True)
            inputs.append(tensor)
        answer = await client.infer(InferRequest(model_name="echo", infer_inputs=inputs, request_id="7"), timeout=20)
        for name in TYPES:
            got = next(output for output in answer.outputs if output.name == f"out_{name}").as_numpy()
            want = _values(name)
            if name == "BYTES":
                got, want = _text(got), _text(want)
            if not np.array_equal(got, want):
                wrong.append(f"{name}: {got!r}")
        if answer.id != "7":
            wrong.append(f"id {answer.id!r}")
        try:
            await client.is_model_ready("other")
        except Exception as error:
            refusal = str(error)
        else:
            refusal = "accepted"
    async with InferenceGRPCClient(plain) as client:
        tensor = InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.array([[1, 2, 3]], np.float32), binary_data=False)
        answer = await client.infer(InferRequest(model_name="model", infer_inputs=[tensor]), timeout=20)
        if answer.outputs[0].data != [6.0]:
            wrong.append(f"typed: {answer.outputs[0].data!r}")
    print(json.dumps({"wrong": wrong, "refusal": refusal}))


asyncio.run(ask(sys.argv[1], sys.argv[2]))
