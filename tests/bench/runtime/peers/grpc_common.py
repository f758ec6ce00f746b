"""A row in, a row out: what the gRPC peers do with a request."""

import numpy as np
from common import predict
from tritonclient.grpc import service_pb2 as pb

NAME = "inference.GRPCInferenceService"


def answer(model, request):
    x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
    y = predict(model, x)
    response = pb.ModelInferResponse(model_name="model", id=request.id)
    response.outputs.add(name="y", datatype="FP32", shape=y.shape)
    response.raw_output_contents.append(y.tobytes())
    return response
