"""An engine that runs in worker processes, as the server sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import Metric

from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import Engine, Signature, TensorSpec
from serinus_runtime.engine.worker import Program, WorkerLimits, WorkerPool


class RemoteEngine(Engine):
    """Runs `program`, whose factory gives an Engine, in `count` processes: as many batches run at the same time."""

    inline = False

    def __init__(
        self,
        program: Program,
        count: int = 1,
        limits: WorkerLimits = WorkerLimits(),  # noqa: B008
        patience: float = 30.0,
    ) -> None:
        """`patience`: seconds without any process after which the engine is not alive. Raises FailureError."""
        self._pool = WorkerPool(program, count, limits)
        self._patience = patience
        told = self._pool.described
        self._signature = Signature(_specs(told["inputs"]), _specs(told["outputs"]), batched=told["batched"])
        self._told: Mapping[str, str] = told
        self._details: Mapping[str, str] = {**told["details"], "processes": str(count)}

    @property
    def signature(self) -> Signature:
        """The engine's own."""
        return self._signature

    @property
    def runtime(self) -> str:
        """The engine's own."""
        return self._told["runtime"]

    @property
    def platform(self) -> str:
        """The engine's own."""
        return self._told["platform"]

    @property
    def backend(self) -> str:
        """The engine's own."""
        return self._told["backend"]

    @property
    def details(self) -> Mapping[str, str]:
        """The engine's own, and how many processes there are."""
        return self._details

    @property
    def instances(self) -> int:
        """How many processes there are."""
        return self._pool.count

    @property
    def pool(self) -> WorkerPool:
        """The processes."""
        return self._pool

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """One batch on whichever process is free; errors are those of `WorkerPool.call`."""
        answers = self._pool.call("run", {"outputs": list(outputs)}, inputs)
        return [answers[name] for name in outputs]

    def alive(self) -> bool:
        """False when there has been no process for too long."""
        return self._pool.alive(self._patience)

    def ready(self) -> bool:
        """False while all processes are being replaced."""
        return self._pool.ready > 0

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """The processes' metrics."""
        return self._pool.collect(names, values)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.close()


def _specs(told: Sequence[Sequence[object]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(str(name), str(datatype), tuple(shape))  # type: ignore[arg-type]
        for name, datatype, shape in told
    )
