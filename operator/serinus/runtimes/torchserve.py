"""TorchServe under the runtime of the torch flavour: Java and a worker, some 500 MB of memory beside the model."""

from serinus.runtimes.base import RuntimeTemplate

TEMPLATE = RuntimeTemplate(engine="torchserve", flavour="torch", env={"SERINUS_ENGINE": "torchserve"})
