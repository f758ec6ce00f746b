"""Bounds of connections."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a connection, in bytes and seconds."""

    body_bytes: int = 4 << 20
    receive_bytes: int = 256 << 20
    """Of all connections together, for bodies that are not whole yet."""
    head_bytes: int = 32 << 10
    headers: int = 100
    connections: int = 8192
    pipeline: int = 64
    """Requests of one connection that are worked on at once; more wait unread."""
    request_seconds: float = 20.0
    """From the first byte of a request to its last, and for a client to take its answer."""
    keep_alive_seconds: float = 3900.0
    """Between requests. Longer than a gateway's own (Envoy: one hour), so that it is the gateway who closes."""
    linger_seconds: float = 1.0
    """How long a client that was refused in mid-request may go on sending."""
