"""Run by `test_bfloat16` in a process of its own: tritonclient with BF16 tensors, which it sends and reads as bytes."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

A = np.array([[1, 2, 3, 4.5], [0, 1, 0, 0]], np.float32)
BIAS = np.array([[0.5, 0.25], [0, 0]], np.float32)


def ask(client: Any, kind: Any, **output: bool) -> dict[str, Any]:
    """What the model answers over one protocol."""
    inputs = [kind.InferInput("a", [2, 4], "BF16"), kind.InferInput("bias", [2, 2], "FP32")]
    inputs[0].set_data_from_numpy(A)
    inputs[1].set_data_from_numpy(BIAS)
    outputs = [kind.InferRequestedOutput(name, **output) for name in ("y", "total")]
    result = client.infer("model", inputs, outputs=outputs)
    described = result.get_output("y")
    return {
        "y": result.as_numpy("y").tolist(),
        "total": result.as_numpy("total").tolist(),
        "datatype": described["datatype"] if isinstance(described, dict) else described.datatype,
    }


http = tritonclient.http.InferenceServerClient(sys.argv[1])
grpc = tritonclient.grpc.InferenceServerClient(sys.argv[2])
told = {
    "http": ask(http, tritonclient.http),
    "http, JSON answer": ask(http, tritonclient.http, binary_data=False),
    "grpc": ask(grpc, tritonclient.grpc),
}
print(json.dumps(told))
