"""ONNX Runtime, in this process."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from prometheus_client.core import GaugeMetricFamily, Metric

from serinus_runtime import bfloat16
from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import Engine, EngineError, Signature, TensorSpec
from serinus_runtime.engine.onnxbfloat import WithBfloat16
from serinus_runtime.engine.onnxbinding import Bound
from serinus_runtime.engine.onnxoptions import CPU, OnnxOptions
from serinus_runtime.engine.onnxsession import open_session
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
    "bfloat16": "BF16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_TENSOR = re.compile(r"tensor\((\w+)\)")
_HOSTS = (CPU, "DnnlExecutionProvider", "XnnpackExecutionProvider", "OpenVINOExecutionProvider")
"""Providers that compute in this process' memory."""


class OnnxEngine(Engine):
    """One session that all instances share, or one session for each."""

    platform = "onnx_onnxv1"
    backend = "onnxruntime"

    def __init__(
        self, sessions: Sequence[Any], signature: Signature, instances: int = 1, options: OnnxOptions | None = None
    ) -> None:
        options = options or OnnxOptions()
        self._signature = signature
        self._instances = instances
        self._providers: list[str] = sessions[0].get_providers()
        self._fell_back = self._providers[0] != options.providers[0]
        self._on_host = self._providers[0] in _HOSTS
        self._run_options: Any = None
        if options.arena_shrink:
            self._run_options = onnxruntime.RunOptions()
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        bind = options.io_binding == "true" or (options.io_binding == "auto" and not self._on_host)
        if any(spec.datatype == bfloat16.NAME for spec in (*signature.inputs, *signature.outputs)):
            if options.io_binding == "true" or options.cuda_graph:
                raise FailureError(
                    Reason.INVALID_CONFIG,
                    "SERINUS_ONNX_IO_BINDING=true and SERINUS_ONNX_CUDA_GRAPH do not work with inputs or outputs of "
                    "BF16; leave them out, or export the model with FP32 at its ends",
                )
            bind = False
            sessions = [WithBfloat16(session, signature) for session in sessions]
        self._only: Any = sessions[0] if len(sessions) == 1 and not bind else None
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for session in sessions:
            self._free.put(Bound(session, graphs=options.cuda_graph) if bind else session)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, as declared by the graph."""
        return self._signature

    @property
    def runtime(self) -> str:
        """`onnxruntime-` and its version."""
        return f"onnxruntime-{onnxruntime.__version__}"

    @property
    def instances(self) -> int:
        """How many batches may run at the same time."""
        return self._instances

    @property
    def inline(self) -> bool:
        """True on the processor: what runs elsewhere is waited for away from the event loop."""
        return self._on_host

    @property
    def details(self) -> Mapping[str, str]:
        """The providers in use, those that could be, and what they run on."""
        return {
            "providers": ",".join(self._providers),
            "available_providers": ",".join(onnxruntime.get_available_providers()),
        }

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for one batch. Raises EngineError with ONNX Runtime's words."""
        session = self._only
        try:
            if session is not None:
                answers: list[Array] = session.run(outputs, inputs, self._run_options)
                return answers
            session = self._free.get()
            try:
                return list(session.run(outputs, inputs, self._run_options))
            finally:
                self._free.put(session)
        except Exception as error:
            raise EngineError(_first_line(error)) from error

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Whether the model runs where it was meant to."""
        family = GaugeMetricFamily(
            "serinus_engine_cpu_fallback", "1 when the model runs on the CPU for want of another device", labels=names
        )
        family.add_metric(values, int(self._fell_back))
        yield family


def open_engine(config: Config) -> OnnxEngine:
    """The model in `config.model_dir`. Raises FailureError."""
    return load(config.model_dir, config.threads, options=config.onnx, instances=config.instances)


def load(
    directory: Path,
    threads: int = 1,
    *,
    options: OnnxOptions | None = None,
    instances: int = 1,
    file: str = MODEL_FILE,
) -> OnnxEngine:
    """Loads `file` from `directory`, with `threads` threads inside an operator.

    Raises FailureError: MODEL_LOAD_FAILED when the file is absent, damaged, or takes or gives what cannot be served,
    INVALID_CONFIG when a provider cannot be had.
    """
    options = options or OnnxOptions()
    path = directory / file
    if not path.is_file():
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{path} does not exist; an ONNX model directory holds {MODEL_FILE} at its top",
        )
    count = instances if options.own_sessions or options.io_binding == "true" or options.cuda_graph else 1
    try:
        sessions = [open_session(path, threads, options) for _ in range(count)]
        inputs = tuple(_spec("input", node) for node in sessions[0].get_inputs())
        outputs = tuple(_spec("output", node) for node in sessions[0].get_outputs())
    except FailureError:
        raise
    except Exception as error:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED, f"ONNX Runtime cannot load {path}: {_first_line(error)}; export the model again"
        ) from error
    signature = Signature(inputs, outputs, batched=_batched(inputs, outputs))
    return OnnxEngine(sessions, signature, instances, options)


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
