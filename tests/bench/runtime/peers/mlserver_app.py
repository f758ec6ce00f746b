"""MLServer, adaptive batches of 32; this file, when it is run, writes its settings and becomes `mlserver start`."""

import json
import os
import pathlib
import sys
import tempfile

if __name__ == "__main__":
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mlserver-"))
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": int(sys.argv[2]),
                "grpc_port": int(sys.argv[2]) + 1,
                "metrics_port": int(sys.argv[2]) + 2,
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "model",
                "implementation": "mlserver_app.Model",
                "max_batch_size": 32,
                "max_batch_time": 0.003,
                "parameters": {"uri": sys.argv[1]},
            }
        )
    )
    here = str(pathlib.Path(__file__).parent)
    os.environ["PYTHONPATH"] = here
    os.execv(sys.executable, [sys.executable, "-c", "from mlserver.cli import main; main()", "start", str(folder)])

from common import predict, session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    async def load(self):
        self.session = session(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        y = predict(self.session, NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
