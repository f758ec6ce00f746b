"""NVIDIA Triton Inference Server; the model directory is a Triton model repository."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="triton",
    beside=Beside(
        command=("tritonserver",),
        args=(
            "--model-repository=$(SERINUS_MODEL_DIR)",
            "--http-address=127.0.0.1",
            "--http-port=$(SERINUS_ENGINE_PORT)",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ),
        without_grpc=("--allow-grpc=false",),
        with_grpc=("--grpc-address=127.0.0.1", "--grpc-port=$(SERINUS_ENGINE_GRPC_PORT)"),
    ),
)
