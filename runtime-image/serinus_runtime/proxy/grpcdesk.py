"""What all gRPC calls to the engine beside us share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serinus_runtime.grpc.inference import trailing
from serinus_runtime.metrics import Metrics
from serinus_runtime.proxy.breaker import Breaker
from serinus_runtime.proxy.gate import Gate
from serinus_runtime.proxy.links import Links
from serinus_runtime.proxy.meters import Meters
from serinus_runtime.proxy.record import Recorder
from serinus_runtime.state import State

if TYPE_CHECKING:
    from serinus_runtime.proxy.grpcpassage import GrpcPassage


@dataclass
class GrpcDesk:
    """Seconds, and what a passage asks."""

    gate: Gate
    links: Links
    breaker: Breaker
    meters: Meters
    metrics: Metrics
    state: State
    serving: Callable[[], bool]
    authority: bytes
    queue_seconds: float
    timeout: float
    """From the end of a request to its answer, and between two pieces of one."""
    idle: float
    """The same while the client has not said all."""
    recorder: Recorder | None = None
    passages: set[GrpcPassage] = field(default_factory=set)
    """Those that wait or are with the engine."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Runs something that takes time."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def trailing(self, lines: bytes) -> bytes:
        """HTTP header lines as fields of gRPC's."""
        return trailing(lines)

    def sweep(self, now: float) -> None:
        """Ends what has waited, or been silent, for too long. Call it often."""
        self.gate.sweep(now)
        for passage in list(self.passages):
            passage.look(now)

    def close(self) -> None:
        """Drops everything."""
        for task in list(self._tasks):
            task.cancel()
        self.links.close()
