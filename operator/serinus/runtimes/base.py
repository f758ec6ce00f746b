"""What an engine's template says about its pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Beside:
    """How an engine is started in a container of its own, on the pod's loopback address only where it can be.

    `$(SERINUS_MODEL_DIR)`, `$(SERINUS_MODEL_NAME)`, `$(SERINUS_ENGINE_PORT)` and, with gRPC,
    `$(SERINUS_ENGINE_GRPC_PORT)` are filled in by the kubelet.
    """

    command: tuple[str, ...] = ()
    """Entry point; empty: the image's own."""
    args: tuple[str, ...] = ()
    health_path: str = "/v2/health/ready"
    """Answers 200 when the engine can serve."""
    env: Mapping[str, str] = field(default_factory=dict)
    without_grpc: tuple[str, ...] = ()
    """Those of `args` that switch its gRPC off."""
    with_grpc: tuple[str, ...] = ()
    """What stands in their place where it is asked for."""
    grpc_path: str = ""
    """The service that users call over gRPC, as a path; empty: that of the Open Inference Protocol."""

    def arguments(self, grpc: bool) -> list[str]:
        """The arguments, with or without gRPC."""
        if not grpc:
            return list(self.args)
        return [*(each for each in self.args if each not in self.without_grpc), *self.with_grpc]


@dataclass(frozen=True)
class RuntimeTemplate:
    """How to run one engine. Every engine has the same front, so ports, probes and metric names are shared."""

    engine: str
    serve: tuple[str, ...] = ("serve",)
    """Arguments of the image's entry point that serve the model."""
    fetch: tuple[str, ...] = ("fetch",)
    """Arguments that download and verify the model, in an init container."""
    http_port: int = 8080
    grpc_port: int = 8081
    metrics_port: int = 8082
    live_path: str = "/v2/health/live"
    ready_path: str = "/v2/health/ready"
    metrics_path: str = "/metrics"
    model_dir: str = "/models/model"
    flavour: str = ""
    """Which flavour of the runtime image holds the engine; empty: the plain one."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the runtime that only this engine needs."""
    beside: Beside | None = None
    """The engine's own container; None where the bundled image holds the engine."""


def image_of(default: str, flavour: str) -> str:
    """The image of a flavour beside the default one: `NAME:TAG` becomes `NAME-FLAVOUR:TAG`.

    A default that is pinned by its digest has no such neighbour and stays: the runtime then says what it needs.
    """
    if not flavour or "@" in default:
        return default
    path, slash, last = default.rpartition("/")
    name, colon, tag = last.partition(":")
    return f"{path}{slash}{name}-{flavour}{colon}{tag}"
