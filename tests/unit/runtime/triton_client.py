"""Run by `test_binary` in a process of its own: tritonclient against the echo model, every datatype, both encodings."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

TYPES = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
)


def _values(name: str) -> Any:
    if name == "BYTES":
        return np.array([["travel", "groß"], ["", "x" * 300]], dtype=object)
    return np.array([[0, 1], [1, 100]]).astype(triton_to_np_dtype(name))


def main(address: str) -> None:
    """Asks the server at `address` and prints what came back as JSON."""
    client = triton.InferenceServerClient(address)
    wrong: list[str] = []
    if not (client.is_server_live() and client.is_server_ready() and client.is_model_ready("echo")):
        wrong.append("not ready")
    for binary_in in (True, False):
        for binary_out in (True, False):
            inputs = []
            for name in TYPES:
                tensor = triton.InferInput(f"in_{name}", [2, 2], name)
                tensor.set_data_from_numpy(_values(name), binary_data=binary_in)
                inputs.append(tensor)
            outputs = [triton.InferRequestedOutput(f"out_{name}", binary_data=binary_out) for name in TYPES]
            result = client.infer("echo", inputs, outputs=outputs, request_id="é1")
            for name in TYPES:
                got = result.as_numpy(f"out_{name}")
                if name == "BYTES":
                    got = np.array([[v.decode() if isinstance(v, bytes) else v for v in row] for row in got], object)
                if not np.array_equal(got, _values(name)):
                    wrong.append(f"{name} in={binary_in} out={binary_out}: {got!r}")
            everything = client.infer("echo", inputs)  # no outputs named: the client asks for all as raw bytes
            if not np.array_equal(everything.as_numpy("out_FP16"), _values("FP16")):
                wrong.append("default outputs")
    tensor = triton.InferInput("in_FP32", [1, 2], "BF16")
    tensor.set_data_from_numpy(np.zeros((1, 2), np.float32), binary_data=True)
    try:
        client.infer("echo", [tensor])
        refusal = "accepted"
    except InferenceServerException as error:
        refusal = str(error)
    print(json.dumps({"wrong": wrong, "bf16": refusal, "extensions": client.get_server_metadata()["extensions"]}))


main(sys.argv[1])
