"""The way to the engine's gRPC port, put together from the settings."""

from __future__ import annotations

from collections.abc import Callable

from serinus_runtime.config import Config
from serinus_runtime.proxy.breaker import Breaker
from serinus_runtime.proxy.desk import Desk
from serinus_runtime.proxy.gate import Gate
from serinus_runtime.proxy.grpcdesk import GrpcDesk
from serinus_runtime.proxy.grpcservice import ProxyService
from serinus_runtime.proxy.links import Links
from serinus_runtime.proxy.settings import parse_url


def open_service(config: Config, desk: Desk, serving: Callable[[], bool]) -> ProxyService:
    """What stands behind our gRPC port; `desk` is that of the HTTP port. Raises FailureError(INVALID_CONFIG)."""
    host, port = parse_url(config.proxy_grpc_url, "SERINUS_PROXY_GRPC_URL", "http://127.0.0.1:9001")
    made = GrpcDesk(
        Gate(config.proxy_concurrency, config.queue_max_length, config.queue_max_bytes),
        Links(host, port),
        # Its own: one port of the engine may be away, and the other not.
        Breaker(patience=2 * config.proxy_timeout),
        desk.meters,
        desk.metrics,
        desk.state,
        serving,
        (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode(),
        config.queue_timeout,
        config.proxy_timeout,
        config.proxy_idle_timeout,
    )
    return ProxyService(made, config.model_name)
