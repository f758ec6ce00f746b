"""Ray Serve, one replica, @serve.batch with 32."""

import asyncio
import os
import sys

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD="0")

import numpy as np
import ray
from common import answer, predict, session
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Model:
    def __init__(self, path):
        self.session = session(path)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.0)
    async def infer(self, rows):
        return list(predict(self.session, np.stack(rows)))

    async def __call__(self, request: Request):
        tensor = (await request.json())["inputs"][0]
        y = await self.infer(np.array(tensor["data"], dtype=np.float32))
        return answer(y.reshape(1, -1))


async def main():
    await asyncio.Event().wait()


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Model.bind(sys.argv[1]), route_prefix="/predict")
    asyncio.run(main())
