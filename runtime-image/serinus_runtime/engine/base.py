"""The interface between the runtime and whatever runs the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from prometheus_client.core import Metric

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


class CodeError(EngineError):
    """Python that comes with the model raised this: it may be right to, as these inputs may be nonsense."""


class EngineTimeoutError(EngineError):
    """The engine took too long. A batch is not run again, row by row, after that: its callers are told 504."""


class EngineUnavailableError(EngineError):
    """The engine cannot answer anybody at the moment; another replica, or this one a little later, can: 503."""


@runtime_checkable
class Engine(Protocol):
    """A loaded model. An engine inherits from this class and so has what it does not say itself.

    `run` is called from up to `instances` threads at the same time and should release the GIL while it computes.
    """

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, as declared by the model."""

    @property
    def runtime(self) -> str:
        """Name and version of the library that runs the model, such as `onnxruntime-1.26.0`."""

    @property
    def platform(self) -> str:
        """What the model's metadata calls the format, in Triton's words where it has one, such as `onnx_onnxv1`."""

    @property
    def backend(self) -> str:
        """What the model's configuration calls the engine, such as `onnxruntime`."""

    @property
    def instances(self) -> int:
        """How many batches may run at the same time."""
        return 1

    @property
    def inline(self) -> bool:
        """True when `run` computes in this thread and so may run on the event loop where it is cheap."""
        return True

    @property
    def details(self) -> Mapping[str, str]:
        """What else the model's configuration shows under `parameters`, such as the devices in use."""
        return {}

    @property
    def parts(self) -> Sequence[Engine]:
        """Engines inside this one that can be warmed up by themselves."""
        return ()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs, in that order, for one batch. Raises EngineError."""

    def alive(self) -> bool:
        """False when nothing can be answered any more and only a new process would help. Must not block."""
        return True

    def ready(self) -> bool:
        """False while nothing can be answered for the moment, such as while a process is replaced. Must not block."""
        return True

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Metric families of the engine's own; `names` and `values` are the labels that every sample must carry."""
        return ()

    def prepared(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """What preprocessing makes of `inputs`, by name; empty where there is none. May take as long as a batch."""
        return {}

    def close(self) -> None:
        """Gives back processes, threads and memory. Called once, from any thread; may take seconds."""
        return


def synthetic_inputs(
    signature: Signature, rows: int, lengths: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Array]:
    """Zeros (empty strings for BYTES) for every input, with `rows` rows and 1 for every other open dimension.

    `lengths`: for some inputs, an axis and its size.
    """
    made: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = [1 if size == -1 else size for size in spec.shape]
        if signature.batched:
            shape[0] = rows
        if lengths is not None and spec.name in lengths:
            axis, size = lengths[spec.name]
            shape[axis] = size
        fill = "" if spec.datatype == "BYTES" else 0
        made[spec.name] = np.full(shape, fill, dtype=NUMPY[spec.datatype])
    return made
