"""The gRPC port of a server process: everything of this package, put together."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from serinus_runtime.about import About
from serinus_runtime.config import Config
from serinus_runtime.engine import Signature
from serinus_runtime.grpc.codec import GrpcCodec
from serinus_runtime.grpc.connection import Connection
from serinus_runtime.grpc.health import Health
from serinus_runtime.grpc.port import Application, Limits, Port
from serinus_runtime.grpc.service import GrpcService
from serinus_runtime.metrics import Metrics
from serinus_runtime.oip import InferCodec
from serinus_runtime.state import State


class Service(Application, Protocol):
    """What stands behind the port: methods, and the health that they tell."""

    @property
    def health(self) -> Health:
        """Whose watchers are told of changes."""


class Endpoint:
    """The port's connections, and what a server tells them. `bound` is the number of its port."""

    def __init__(self, config: Config, state: State, metrics: Metrics, service: Service | None = None) -> None:
        """`service`: what stands behind the port, where that is not a model of ours."""
        self._config = config
        self._state = state
        self._metrics = metrics
        self._service: Service = service or GrpcService(config.model_name, config.model_version, state, metrics)
        limits = Limits(
            message_bytes=config.max_request_bytes,
            receive_bytes=config.receive_max_bytes,
            connections=config.max_connections,
            request_seconds=config.request_timeout,
            keep_alive_seconds=config.keep_alive,
        )
        self._port = Port(self._service, limits)
        self.loaded(config.model_digest)
        self.bound = 0

    def protocol(self) -> asyncio.Protocol:
        """A new connection, which is a protocol by its methods."""
        return cast(asyncio.Protocol, Connection(self._port))

    def front(self, config: Config, codec: InferCodec, signature: Signature, about: About) -> GrpcCodec:
        """How the model of `config` is asked over this port."""
        return GrpcCodec(config.model_name, config.model_version, codec, signature, about)

    def announce(self, config: Config) -> None:
        """Calls are for the model of `config` from now on; streams go on as they began."""
        if config.model_version != self._config.model_version:
            self._service = GrpcService(
                config.model_name, config.model_version, self._state, self._metrics, self._service.health
            )
            self._port.application = self._service
        self._config = config

    def loaded(self, digest: str) -> None:
        """Sets what every answer says about who answers."""
        config = self._config
        common = (
            ("x-model-version", config.model_version),
            ("x-model-digest", digest or "unknown"),
            ("x-serinus-revision", config.revision or "none"),
        )
        self._port.set_common_headers(tuple((name.encode(), _clean(value)) for name, value in common))

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._port.connections)

    @property
    def received_bytes(self) -> int:
        """Bytes of messages that are not whole yet."""
        return self._port.received_bytes

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        self._port.sweep(now)
        self._service.health.tell()

    def go_away(self) -> None:
        """Tells clients that this server is about to go."""
        self._service.health.tell()
        self._port.go_away()

    def close_idle(self) -> None:
        """Closes connections that have nothing under way; the others take nothing new."""
        self._port.close_idle()

    def abort(self) -> None:
        """Drops every connection."""
        for connection in list(self._port.connections):
            connection.abort()


def _clean(value: str) -> bytes:
    return "".join(char if " " <= char <= "~" else "?" for char in value).strip().encode("ascii")
