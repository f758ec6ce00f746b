"""Serinus' model server: one ONNX model, the Open Inference Protocol, batching, limits, metrics, clean drain."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels report usage to their maker, and write an identifier into the home directory, unless this is set
# before the library is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
