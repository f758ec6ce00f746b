"""Text Generation Inference."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="tgi",
    beside=Beside(
        command=("text-generation-launcher",),
        args=("--model-id=$(SERINUS_MODEL_DIR)", "--hostname=127.0.0.1", "--port=$(SERINUS_ENGINE_PORT)"),
        health_path="/health",
    ),
)
