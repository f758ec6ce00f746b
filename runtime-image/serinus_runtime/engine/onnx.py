"""ONNX Runtime, in this process."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import Engine, EngineError, Signature, TensorSpec
from serinus_runtime.failures import FailureError, Reason

MODEL_FILE = "model.onnx"

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_TENSOR = re.compile(r"tensor\((\w+)\)")


class OnnxEngine(Engine):
    """One ONNX Runtime session on the CPU."""

    platform = "onnx_onnxv1"
    backend = "onnxruntime"

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session = session
        self._signature = signature

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, as declared by the graph."""
        return self._signature

    @property
    def runtime(self) -> str:
        """`onnxruntime-` and its version."""
        return f"onnxruntime-{onnxruntime.__version__}"

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for one batch. Raises EngineError with ONNX Runtime's words."""
        try:
            answers: list[Array] = self._session.run(outputs, inputs)
        except Exception as error:
            raise EngineError(_first_line(error)) from error
        return answers


def open_engine(config: Config) -> OnnxEngine:
    """The model in `config.model_dir`. Raises FailureError."""
    return load(config.model_dir, config.threads)


def load(directory: Path, threads: int = 1) -> OnnxEngine:
    """Loads `model.onnx` from `directory` with `threads` threads inside an operator and one across operators.

    Raises FailureError(MODEL_LOAD_FAILED) when the file is absent, damaged, or takes or gives what cannot be served.
    """
    path = directory / MODEL_FILE
    if not path.is_file():
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{path} does not exist; an ONNX model directory holds {MODEL_FILE} at its top",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Spinning threads burn the CPU quota that the event loop of this and other pods needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
        inputs = tuple(_spec("input", node) for node in session.get_inputs())
        outputs = tuple(_spec("output", node) for node in session.get_outputs())
    except FailureError:
        raise
    except Exception as error:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED, f"ONNX Runtime cannot load {path}: {_first_line(error)}; export the model again"
        ) from error
    return OnnxEngine(session, Signature(inputs, outputs, batched=_batched(inputs, outputs)))


def _spec(kind: str, node: Any) -> TensorSpec:
    if node.type.startswith("seq(map("):
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{kind} {node.name!r} is a sequence of maps ({node.type}), which no protocol carries; export the "
            f"classifier with zipmap=False, such as to_onnx(model, X, options={{'zipmap': False}})",
        )
    found = _TENSOR.fullmatch(node.type)
    datatype = _DATATYPES.get(found[1]) if found else None
    if datatype is None:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{kind} {node.name!r} has the type {node.type}, which cannot be served; use {', '.join(_DATATYPES)}",
        )
    return TensorSpec(node.name, datatype, tuple(size if isinstance(size, int) else -1 for size in node.shape))


def _batched(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    # Many exporters leave the shape of an output out altogether (()): warm-up finds out what axis 0 is there.
    open_inputs = all(spec.shape[:1] == (-1,) for spec in inputs)
    return bool(inputs) and open_inputs and all(spec.shape[:1] in ((), (-1,)) for spec in outputs)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:500]
