"""Serinus' model server: one ONNX model, the Open Inference Protocol, batching, limits, metrics, clean drain."""

__version__ = "0.1.0"
