"""BentoML, batchable API, batches of 32; run as a service by `bentoml serve` that this file starts."""

import os
import pathlib
import sys

if __name__ == "__main__":
    os.environ["BENCH_MODEL"] = sys.argv[1]
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.chdir(pathlib.Path(__file__).parent)
    os.execv(
        sys.executable,
        [sys.executable, "-m", "bentoml", "serve", "bentoml_app:Model", "--host", "127.0.0.1", "--port", sys.argv[2]],
    )

import bentoml
import numpy as np
from common import predict, session


@bentoml.service(workers=1, traffic={"timeout": 30}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Model:
    def __init__(self):
        self.session = session(os.environ["BENCH_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return predict(self.session, x)
