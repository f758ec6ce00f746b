"""KServe's Python server, protocol v2."""

import sys

from common import predict, session
from kserve import InferOutput, InferResponse, Model, ModelServer


class Onnx(Model):
    def __init__(self):
        super().__init__("model")
        self.session = session(sys.argv[1])
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        y = predict(self.session, payload.inputs[0].as_numpy())
        output = InferOutput("y", list(y.shape), "FP32", data=y.ravel().tolist())
        return InferResponse(payload.id or "1", "model", [output])


if __name__ == "__main__":
    ModelServer(
        http_port=int(sys.argv[2]), enable_grpc=False, workers=1, access_log_format=None, enable_latency_logging=False
    ).start([Onnx()])
