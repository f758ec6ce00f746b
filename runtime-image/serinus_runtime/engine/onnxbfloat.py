"""Sessions with BF16 inputs or outputs: numpy has no such type, so these tensors pass as ONNX Runtime's own values."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from serinus_runtime import bfloat16
from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import Signature
from serinus_runtime.failures import FailureError, Reason

_ONNX_BFLOAT16 = 16
"""TensorProto.BFLOAT16."""


class WithBfloat16:
    """A session whose BF16 tensors come and go as float32; several threads may use it.

    Raises FailureError(MODEL_LOAD_FAILED) where text goes in and BF16 comes out: ONNX Runtime cannot do that in Python.
    """

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session = session
        self._given = frozenset(spec.name for spec in signature.inputs if spec.datatype == bfloat16.NAME)
        texts = [spec.name for spec in signature.inputs if spec.datatype == "BYTES"]
        self._made = frozenset(spec.name for spec in signature.outputs if spec.datatype == bfloat16.NAME)

        if self._made and texts:
            raise FailureError(
                Reason.MODEL_LOAD_FAILED,
                f"input {texts[0]!r} is text and output {min(self._made)!r} is BF16: ONNX Runtime's Python interface "
                "cannot do both; export the model with its output cast to FP32",
            )

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array], options: Any = None) -> list[Array]:
        """The named outputs, as `InferenceSession.run`."""
        make = onnxruntime.OrtValue
        given: dict[str, Any] = {
            name: make.ortvalue_from_numpy_with_onnx_type(bfloat16.words(array), _ONNX_BFLOAT16)
            if name in self._given
            else array
            for name, array in inputs.items()
        }
        if self._made.isdisjoint(outputs):
            answers: list[Array] = self._session.run(outputs, given, options)
            return answers
        values = {
            name: value if name in self._given else make.ortvalue_from_numpy(value) for name, value in given.items()
        }
        found = self._session.run_with_ort_values(outputs, values, options)
        return [
            _read(value) if name in self._made else value.numpy() for name, value in zip(outputs, found, strict=True)
        ]


def _read(value: Any) -> Array:
    """The numbers of a BF16 tensor in this process' memory."""
    size = value.tensor_size_in_bytes()
    if not size:
        return np.empty(value.shape(), np.float32)
    memory = (ctypes.c_uint16 * (size // 2)).from_address(value.data_ptr())
    return bfloat16.widened(np.frombuffer(memory, np.uint16)).reshape(value.shape())
