"""LitServe, batches of 32."""

import sys

import litserve
import numpy as np
from common import answer, predict, session


class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = session(sys.argv[1])

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], dtype=np.float32)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return predict(self.model, x)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return answer(output.reshape(1, -1))


if __name__ == "__main__":
    litserve.LitServer(Api(max_batch_size=32, batch_timeout=0.003), accelerator="cpu", timeout=30).run(
        host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False, num_api_servers=1
    )
