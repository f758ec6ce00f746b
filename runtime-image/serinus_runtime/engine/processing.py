"""Preprocessing and postprocessing in Python, shipped with the model, run in worker processes around its engine.

`model.json` names the file: `"preprocess": "processing.py"`. In it, `preprocess(inputs)` turns what a request holds
into what the model takes, and `postprocess(outputs, inputs)` turns what the model gives into the answer; either may be
absent. Where they change names, types or shapes, `"processing": {"inputs": [...], "outputs": [...]}` says what requests
and answers look like, as the protocol's metadata does. Both work on whole batches: rows along axis 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import Metric

from serinus_runtime.config import Config
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine.base import Engine, Signature, TensorSpec
from serinus_runtime.engine.pythoncode import call, checked, start_code
from serinus_runtime.engine.times import StepTimes
from serinus_runtime.engine.worker import WorkerPool
from serinus_runtime.failures import FailureError, Reason

PRE, POST = "preprocess", "postprocess"
_FILE = "model.json"


class _Shapes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None


class _Told(msgspec.Struct, frozen=True):
    preprocess: str | None = None
    processing: _Shapes = _Shapes()


def code_file(directory: Path) -> str | None:
    """The file that `model.json` names as its processing, or None. Raises FailureError when it cannot be understood."""
    return _read(directory).preprocess


def _read(directory: Path) -> _Told:
    path = directory / _FILE
    try:
        text = path.read_bytes() if path.is_file() else b"{}"
        if b'"preprocess"' not in text:
            # Whatever else is wrong with the file never keeps a model from being served.
            return _Told()
        told = msgspec.json.decode(text, type=_Told)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED, f"{_FILE}: the processing cannot be understood: {error}"
        ) from error
    for spec in (*(told.processing.inputs or ()), *(told.processing.outputs or ())):
        if spec.datatype not in NUMPY:
            raise FailureError(
                Reason.MODEL_LOAD_FAILED,
                f"{_FILE}: processing: {spec.name!r} has the datatype {spec.datatype!r}; there are {', '.join(NUMPY)}",
            )
    return told


def wrapped(engine: Engine, config: Config) -> Engine:
    """`engine` with the processing that the model directory asks for, or as it is. Raises FailureError."""
    told = _read(config.model_dir)
    if told.preprocess is None:
        return engine
    pool = start_code(config, told.preprocess, (PRE, POST), f"{_FILE} (preprocess)")
    if not pool.described["functions"]:
        pool.close()
        raise FailureError(Reason.MODEL_LOAD_FAILED, f"{told.preprocess} has neither {PRE} nor {POST}")
    inner = engine.signature
    inputs = told.processing.inputs or inner.inputs
    outputs = told.processing.outputs or inner.outputs
    batched = inner.batched and all(spec.shape[:1] == (-1,) for spec in inputs)
    return ProcessedEngine(engine, pool, Signature(inputs, outputs, batched=batched), config.engine_timeout)


class ProcessedEngine(Engine):
    """An engine between two functions that run in other processes."""

    inline = False

    def __init__(self, engine: Engine, pool: WorkerPool, signature: Signature, patience: float) -> None:
        self._engine = engine
        self._pool = pool
        self._signature = signature
        self._patience = patience
        self._hooks: Sequence[str] = pool.described["functions"]
        self._inner_outputs = tuple(spec.name for spec in engine.signature.outputs)
        self._times = StepTimes((*self._hooks, "model"))

    @property
    def signature(self) -> Signature:
        """What requests hold and answers give."""
        return self._signature

    @property
    def runtime(self) -> str:
        """The engine's."""
        return self._engine.runtime

    @property
    def platform(self) -> str:
        """The engine's."""
        return self._engine.platform

    @property
    def backend(self) -> str:
        """The engine's."""
        return self._engine.backend

    @property
    def instances(self) -> int:
        """One batch may be in the model while another is in its processing."""
        return max(self._engine.instances, self._pool.count)

    @property
    def details(self) -> Mapping[str, str]:
        """The engine's, and what is done around it."""
        return {**self._engine.details, "processing": ",".join(self._hooks), "workers": str(self._pool.count)}

    @property
    def parts(self) -> Sequence[Engine]:
        """The model without its processing."""
        return (self._engine,)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for one batch. Raises EngineError."""
        asked: Mapping[str, Array] = inputs
        if PRE in self._hooks:
            with self._times.measure(PRE):
                given = call(self._pool, PRE, inputs)
            asked = checked(given, self._engine.signature.inputs, PRE)
        # Postprocessing may look at all of them, whatever the caller wants.
        names = self._inner_outputs if POST in self._hooks else outputs
        with self._times.measure("model"):
            answers = self._engine.run(asked, names)
        if POST not in self._hooks:
            return answers
        with self._times.measure(POST):
            made = call(self._pool, POST, dict(zip(names, answers, strict=True)), inputs)
        wanted = [spec for spec in self._signature.outputs if spec.name in outputs]
        found: Any = checked(made, wanted, POST)
        return [found[name] for name in outputs]

    def prepared(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The model's own inputs."""
        if PRE not in self._hooks:
            return {}
        return checked(call(self._pool, PRE, inputs), self._engine.signature.inputs, PRE)

    def alive(self) -> bool:
        """False when the engine is not, or when there has been no worker for too long."""
        return self._engine.alive() and self._pool.alive(self._patience)

    def ready(self) -> bool:
        """False while the engine or all workers are being replaced."""
        return self._engine.ready() and self._pool.ready > 0

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """The engine's, the workers', and the time of each step."""
        yield from self._engine.collect(names, values)
        yield from self._pool.collect(names, values)
        yield self._times.collect(names, values)

    def close(self) -> None:
        """Ends the workers and the engine."""
        self._pool.close()
        self._engine.close()
