"""TensorFlow Serving; the model directory holds numbered versions, as SavedModel exporters write them."""

from serinus.runtimes.base import Beside, RuntimeTemplate

TEMPLATE = RuntimeTemplate(
    engine="tfserving",
    beside=Beside(
        command=("tensorflow_model_server",),
        args=(
            "--rest_api_port=$(SERINUS_ENGINE_PORT)",
            "--model_name=$(SERINUS_MODEL_NAME)",
            "--model_base_path=$(SERINUS_MODEL_DIR)",
        ),
        health_path="/v1/models/$(SERINUS_MODEL_NAME)",
        # It has no setting for the address: it listens on all of the pod's, over HTTP as well.
        with_grpc=("--port=$(SERINUS_ENGINE_GRPC_PORT)",),
        grpc_path="/tensorflow.serving.PredictionService",
    ),
)
