"""TensorRT-LLM with its OpenAI-compatible server."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="tensorrt-llm",
    beside=Beside(
        command=("trtllm-serve",),
        args=("$(SERINUS_MODEL_DIR)", "--host=127.0.0.1", "--port=$(SERINUS_ENGINE_PORT)"),
        health_path="/health",
    ),
)
