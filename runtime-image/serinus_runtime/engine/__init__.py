"""What runs a model. One file per engine; the rest of the runtime knows only `Engine`."""

from serinus_runtime.engine.base import (
    CodeError,
    Engine,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    Signature,
    TensorSpec,
    synthetic_inputs,
)

__all__ = [
    "CodeError",
    "Engine",
    "EngineError",
    "EngineTimeoutError",
    "EngineUnavailableError",
    "Signature",
    "TensorSpec",
    "synthetic_inputs",
]
