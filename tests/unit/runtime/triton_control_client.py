"""Run by `test_control` in a process of its own: tritonclient loads and unloads, over HTTP and over gRPC."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException


def refused(call: Any) -> str:
    """The status of a call that must fail, and its text."""
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "accepted"


def state(client: Any, headers: dict[str, str]) -> list[str]:
    """The only entry of the repository's index."""
    index = client.get_model_repository_index(headers=headers)
    (entry,) = index if isinstance(index, list) else [{"state": m.state, "reason": m.reason} for m in index.models]
    return [entry["state"], entry["reason"]]


def infer(module: Any, client: Any, headers: dict[str, str]) -> float:
    """The model's answer to a row."""
    tensor = module.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
    return float(client.infer("model", [tensor], headers=headers).as_numpy("y")[0, 0])


def talk(module: Any, address: str) -> dict[str, Any]:
    """Everything that the test looks at, through one client."""
    control, user = {"x-api-key": "operator-key-1"}, {"x-api-key": "shop-key-1"}
    told: dict[str, Any] = {}
    with module.InferenceServerClient(address) as client:
        told["before"] = [client.is_model_ready("model"), *state(client, user), infer(module, client, user)]
        told["no key"] = refused(lambda: client.unload_model("model"))
        told["user"] = refused(lambda: client.unload_model("model", headers=user))
        told["other"] = refused(lambda: client.load_model("other", headers=control))
        told["config"] = refused(lambda: client.load_model("model", headers=control, config="{}"))
        client.unload_model("model", headers=control)
        told["unloaded"] = [client.is_model_ready("model"), client.is_server_ready(), client.is_server_live()]
        told["index"] = state(client, user)
        told["infer"] = refused(lambda: infer(module, client, user))
        told["metadata"] = refused(lambda: client.get_model_metadata("model", headers=user))
        client.unload_model("model", headers=control)
        client.load_model("model", headers=control)
        told["after"] = [client.is_model_ready("model"), *state(client, user), infer(module, client, user)]
    return told


if __name__ == "__main__":
    print(json.dumps({"http": talk(over_http, sys.argv[1]), "grpc": talk(over_grpc, sys.argv[2])}))
