"""PyTriton: Triton's front and batcher, the model in Python."""

import sys

import numpy as np
from common import predict, session
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = session(sys.argv[1])


@batch
def infer(x):
    return {"y": predict(model, x)}


port = int(sys.argv[2])
config = TritonConfig(
    http_address="127.0.0.1",
    http_port=port,
    grpc_address="127.0.0.1",
    grpc_port=port + 1,
    metrics_port=port + 2,
    allow_metrics=False,
)
width = model.get_outputs()[0].shape[-1]
with Triton(config=config) as triton:
    triton.bind(
        "model",
        infer,
        [Tensor(name="x", dtype=np.float32, shape=(30,))],
        [Tensor(name="y", dtype=np.float32, shape=(width,))],
        config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
    )
    triton.serve()
