"""vLLM, which batches continuously by itself: the runtime adds the queue, limits, metrics and log."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="vllm",
    beside=Beside(
        command=("vllm", "serve"),
        args=(
            "$(SERINUS_MODEL_DIR)",
            "--served-model-name=$(SERINUS_MODEL_NAME)",
            "--host=127.0.0.1",
            "--port=$(SERINUS_ENGINE_PORT)",
        ),
        health_path="/health",
    ),
)
