"""What all peers share: the session, made the same way for each."""

import numpy as np
import onnxruntime


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def predict(loaded, x):
    return loaded.run(["y"], {"x": np.ascontiguousarray(x, dtype=np.float32)})[0]


def answer(y):
    return {
        "model_name": "model",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}],
    }
