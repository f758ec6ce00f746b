"""BentoML; the model directory is a built Bento."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="bentoml",
    beside=Beside(
        command=("bentoml", "serve"),
        args=("$(SERINUS_MODEL_DIR)", "--host=127.0.0.1", "--port=$(SERINUS_ENGINE_PORT)"),
        health_path="/readyz",
        env={"BENTOML_DO_NOT_TRACK": "True"},
    ),
)
