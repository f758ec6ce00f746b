"""The interface between the runtime and whatever runs the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np

from serinus_runtime.datatypes import NUMPY, Array


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output: its OIP datatype, and its shape with -1 for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True):
    """What the model takes and gives. `batched`: axis 0 of everything is the row, so rows of callers may join."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool


class EngineError(Exception):
    """The model could not answer for these inputs."""


class Engine(Protocol):
    """A loaded model. `run` is called from one thread at a time and should release the GIL while it computes."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, as declared by the model."""

    @property
    def runtime(self) -> str:
        """Name and version of the library that runs the model, such as `onnxruntime-1.26.0`."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs, in that order, for one batch. Raises EngineError."""


def synthetic_inputs(signature: Signature, rows: int) -> dict[str, Array]:
    """Zeros (empty strings for BYTES) for every input, with `rows` rows and 1 for every other open dimension."""
    made: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = [1 if size == -1 else size for size in spec.shape]
        if signature.batched:
            shape[0] = rows
        fill = "" if spec.datatype == "BYTES" else 0
        made[spec.name] = np.full(shape, fill, dtype=NUMPY[spec.datatype])
    return made
