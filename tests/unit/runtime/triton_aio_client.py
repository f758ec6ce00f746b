"""Run by `test_clients` in a process of its own: tritonclient.http.aio, twenty requests at the same time."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
import tritonclient.http as plain
import tritonclient.http.aio as triton


async def main(address: str) -> None:
    """Asks the server at `address` and prints what came back as JSON."""
    async with triton.InferenceServerClient(address) as client:
        told: dict[str, object] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model": await client.is_model_ready("sum"),
            "inputs": (await client.get_model_metadata("sum"))["inputs"],
            "config": (await client.get_model_config("sum"))["max_batch_size"],
        }

        async def ask(number: int) -> list[float]:
            tensor = plain.InferInput("x", [1, 3], "FP32")
            tensor.set_data_from_numpy(np.array([[number, 1, 1]], dtype=np.float32), binary_data=bool(number % 2))
            output = plain.InferRequestedOutput("y", binary_data=bool(number % 3))
            answer = await client.infer("sum", [tensor], outputs=[output], request_id=f"n{number}")
            assert answer.get_response()["id"] == f"n{number}"
            found: list[float] = answer.as_numpy("y").ravel().tolist()
            return found

        told["sums"] = await asyncio.gather(*(ask(number) for number in range(20)))
        statistics = await client.get_inference_statistics("sum")
        told["count"] = statistics["model_stats"][0]["inference_count"]
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
