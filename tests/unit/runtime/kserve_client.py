"""Run by `test_clients` in a process of its own: the REST client of KServe's SDK, both protocols."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import types
from typing import Any


def _client_module() -> Any:
    """The client without the rest of the package, which would import every server and a Kubernetes client."""
    spec = importlib.util.find_spec("kserve")
    assert spec is not None
    package = types.ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__spec__ = spec
    sys.modules["kserve"] = package
    import kserve.inference_client

    return kserve.inference_client


async def main(url: str) -> None:
    """Asks the server at `url` and prints what came back as JSON."""
    client = _client_module()
    from kserve.protocol.infer_type import InferInput, InferRequest

    told: dict[str, object] = {}
    v2 = client.InferenceRESTClient(client.RESTConfig(protocol="v2", retries=0))
    told["live"] = await v2.is_server_live(url)
    told["ready"] = await v2.is_server_ready(url)
    told["model"] = await v2.is_model_ready(url, "sum")
    tensor = InferInput("x", [2, 3], "FP32", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    answer = await v2.infer(url, InferRequest("sum", [tensor], request_id="mine"), model_name="sum")
    told["id"] = answer.id
    told["v2"] = [list(answer.outputs[0].shape), answer.outputs[0].as_numpy().tolist()]
    import numpy

    binary = InferInput("x", [1, 3], "FP32")
    binary.set_data_from_numpy(numpy.array([[1, 2, 4]], dtype=numpy.float32), binary_data=True)
    answer = await v2.infer(url, InferRequest("sum", [binary]), model_name="sum")
    told["binary"] = answer.outputs[0].as_numpy().tolist()
    await v2.close()
    v1 = client.InferenceRESTClient(client.RESTConfig(protocol="v1", retries=0))
    told["v1 model"] = await v1.is_model_ready(url, "sum")
    told["v1"] = await v1.infer(url, {"instances": [[1.0, 2.0, 3.0]]}, model_name="sum")
    try:
        await v1.infer(url, {"instances": [["a"]]}, model_name="sum")
    except Exception as error:
        told["refused"] = f"{type(error).__name__} {getattr(getattr(error, 'response', None), 'status_code', error)}"
    await v1.close()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
