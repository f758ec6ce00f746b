"""The gRPC port of a server whose engine runs beside it: health is ours, every other method is the engine's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric

from serinus_runtime.families import Families
from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.health import Health
from serinus_runtime.grpc.port import Method
from serinus_runtime.proxy.grpcdesk import GrpcDesk
from serinus_runtime.proxy.grpcpassage import GrpcPassage
from serinus_runtime.proxy.record import Recorder

_REFUSALS = {413: "too_large", 429: "queue_full", 408: "timeout", 504: "timeout"}
_TOLD = frozenset(
    (b"ServerLive", b"ServerReady", b"ModelReady", b"ServerMetadata", b"ModelMetadata", b"ModelConfig",
     b"ModelStatistics", b"RepositoryIndex", b"RepositoryModelLoad", b"RepositoryModelUnload", b"TraceSetting",
     b"LogSettings", b"GetModelMetadata", b"GetModelStatus", b"HandleReloadConfigRequest")
)  # fmt: skip
"""Methods of the Open Inference Protocol, Triton and TF Serving that are no inference."""


class ProxyService:
    """See `grpc.port.Application`."""

    def __init__(self, desk: GrpcDesk, model: str) -> None:
        self._desk = desk
        self.health = Health(model, desk.state)
        self._ours = {
            b"/grpc.health.v1.Health/Check": Method(unary=self.health.check),
            b"/grpc.health.v1.Health/Watch": Method(stream=self.health.watch),
        }
        self._passing = Method(stream=self._pass)

    def find(self, path: bytes) -> Method | None:
        """Every method is there: the engine knows which are."""
        return self._ours.get(path, self._passing)

    def refused(self, path: bytes, code: int) -> None:
        """Counts what the connection refused by itself."""
        # A call that had begun to pass is told by its end.
        metrics = self._desk.metrics
        if _counted(path):
            reason = _REFUSALS.get(code, "invalid")
            metrics.rejected[reason] = metrics.rejected.get(reason, 0) + 1

    def record(self, recorder: Recorder) -> None:
        """Writes a line per call from now on."""
        self._desk.recorder = recorder

    def sweep(self, now: float) -> None:
        """Call it often."""
        self._desk.sweep(now)

    def close(self) -> None:
        """Drops all connections to the engine."""
        self._desk.close()

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """What is counted of this port beyond the rest, with the labels that all metrics have."""
        families = Families(names, values)
        gate, links, breaker = self._desk.gate, self._desk.links, self._desk.breaker
        yield families.gauge("serinus_grpc_queue_depth", "gRPC calls that wait for the engine", gate.waiting)
        yield families.gauge("serinus_grpc_upstream_calls", "gRPC calls that are with the engine", gate.running)
        yield families.gauge(
            "serinus_grpc_upstream_connections", "Open connections to the engine's gRPC port", links.connections
        )
        yield families.counter(
            "serinus_grpc_upstream_connects", "Connections made to the engine's gRPC port", "", [("", links.connected)]
        )
        yield families.counter(
            "serinus_grpc_circuit_openings", "How often the circuit to that port opened", "", [("", breaker.openings)]
        )

    def _pass(self, call: Call) -> GrpcPassage:
        passage = GrpcPassage(self._desk, call, counted=_counted(call.head.path))
        passage.start()
        return passage


def _counted(path: bytes) -> bool:
    return not path.startswith(b"/grpc.") and path.rpartition(b"/")[2] not in _TOLD
