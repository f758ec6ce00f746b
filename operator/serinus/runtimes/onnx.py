"""ONNX Runtime in the bundled image, in process with the front."""

from serinus.runtimes.base import RuntimeTemplate

TEMPLATE = RuntimeTemplate(engine="onnx")
