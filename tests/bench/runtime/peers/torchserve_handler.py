"""A handler as one would write it: joins the requests of a batch into one run."""

import json
import sys
from pathlib import Path

import numpy as np


class Bench:
    def initialize(self, context):
        folder = Path(context.system_properties["model_dir"])
        packages = folder / "packages"
        if packages.exists():
            sys.path.append(packages.read_text())
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            self.predict = lambda x: session.run(["y"], {"x": x})[0]
        else:
            import torch

            torch.set_num_threads(1)
            network = torch.jit.load(str(folder / "model.pt"))

            def predict(x):
                with torch.inference_mode():
                    return network(torch.from_numpy(x)).numpy()

            self.predict = predict

    def handle(self, data, context):
        bodies = [each.get("body") or each.get("data") for each in data]
        bodies = [json.loads(body) if isinstance(body, (bytes, bytearray)) else body for body in bodies]
        parts = [body["instances"] if "instances" in body else [body["inputs"][0]["data"]] for body in bodies]
        y = self.predict(np.array([row for part in parts for row in part], dtype=np.float32))
        answers, at = [], 0
        for body, part in zip(bodies, parts, strict=True):
            found = y[at : at + len(part)]
            at += len(part)
            if "instances" in body:
                answers.append({"predictions": found.tolist()})
            else:
                output = {"name": "y", "datatype": "FP32", "shape": list(found.shape), "data": found.ravel().tolist()}
                answers.append({"model_name": "model", "outputs": [output]})
        return answers
