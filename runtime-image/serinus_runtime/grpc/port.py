"""What the connections of the gRPC port share: limits, the headers of every answer, the methods, the sweep."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from serinus_runtime.grpc import frames

if TYPE_CHECKING:
    from serinus_runtime.grpc.call import Call
    from serinus_runtime.grpc.connection import Connection

_SANE_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
ACCEPTED_ENCODINGS = b"identity,gzip"
_SPARE_WINDOW = 64 << 10
_CONNECTION_WINDOWS = 4


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a connection, in bytes and seconds."""

    message_bytes: int = 4 << 20
    """Of a request's message, compressed and not."""
    receive_bytes: int = 256 << 20
    """Of all connections together, for heads, and for messages that are not whole yet or wait in a stream."""
    send_bytes: int = 256 << 20
    """Of all connections together, for answers that their clients do not take: above it, requests are refused."""
    head_bytes: int = 32 << 10
    headers: int = 100
    continuations: int = 64
    """Frames that one header block may take."""
    connections: int = 8192
    streams: int = 1024
    """Requests of one connection that are under way at once."""
    calls: int = 65536
    """As `streams`, of all connections together."""
    offences: int = 5000
    """Frames without use (pings, settings, cancelled requests, ...) beyond what time and answers make good."""
    request_seconds: float = 20.0
    """From the first byte of a request to its last, and for a client to take its answer."""
    keep_alive_seconds: float = 3900.0
    """Between requests. Longer than a gateway's own (Envoy: one hour), so that it is the gateway who closes."""
    linger_seconds: float = 1.0
    """How long a client that broke the rules may go on sending."""


class Method(msgspec.Struct, frozen=True):
    """One method of a service."""

    unary: Callable[[Call, bytes], None] | None = None
    """Takes the only message of a call that is whole, and answers it now or later."""
    stream: Callable[[Call], Receiver] | None = None
    """Begins a call with any number of messages."""


class Receiver(Protocol):
    """What takes the messages of a streaming call."""

    def wants(self) -> bool:
        """False while it has enough to do; `Call.more` tells when that has changed."""

    def message(self, payload: bytes) -> None:
        """The next message."""

    def end(self) -> None:
        """The client sends no more."""


class Application(Protocol):
    """What stands behind the port."""

    def find(self, path: bytes) -> Method | None:
        """The method with this path, such as `/grpc.health.v1.Health/Check`."""

    def refused(self, path: bytes, code: int) -> None:
        """The connection refused a call by itself, with what would be the HTTP status `code`."""


class Port:
    """Shared by the connections of one port. Call `sweep` about once a second."""

    def __init__(self, application: Application, limits: Limits, common: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[Connection] = set()
        self.calls = 0
        """Calls that are under way."""
        self.received_bytes = 0
        """Bytes of messages that nobody has looked at yet, and of the heads of calls that are under way."""
        self.held_bytes = 0
        """Bytes of answers that clients have not taken."""
        self.stream_window = min(limits.message_bytes + _SPARE_WINDOW, frames.MAX_WINDOW)
        """A whole message fits, so that plain calls need no window updates."""
        self.connection_window = min(_CONNECTION_WINDOWS * self.stream_window, frames.MAX_WINDOW)
        self.settings = frames.settings(
            {
                frames.MAX_CONCURRENT_STREAMS: limits.streams,
                frames.INITIAL_WINDOW_SIZE: self.stream_window,
                frames.MAX_HEADER_LIST_SIZE: limits.head_bytes,
            }
        ) + frames.window_update(0, self.connection_window - frames.DEFAULT_WINDOW)
        self.block = b""
        """The header block of every answer, to which more may be appended."""
        self._ids = itertools.count()
        self._prefix = os.urandom(6).hex().encode() + b"-"
        self.set_common_headers(common)

    def set_common_headers(self, common: tuple[tuple[bytes, bytes], ...]) -> None:
        """Sets the metadata of every answer from now on."""
        fixed = ((b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ACCEPTED_ENCODINGS), *common)
        self.block = b"\x88" + b"".join(literal(name, value) for name, value in fixed)

    def request_id(self, given: bytes | None) -> bytes:
        """The client's request id if it is sane, else a new one."""
        if given is not None and _SANE_ID.fullmatch(given):
            return given
        return self._prefix + b"%x" % next(self._ids)

    def sweep(self, now: float | None = None) -> None:
        """Ends what has been slow for too long."""
        if now is None:
            now = time.monotonic()
        for connection in list(self.connections):
            connection.on_sweep(now)

    def go_away(self) -> None:
        """Asks every client to take its next request elsewhere; what it sends until then is answered."""
        for connection in list(self.connections):
            connection.go_away()

    def close_idle(self) -> None:
        """Closes connections that have no request under way; the others take nothing new."""
        for connection in list(self.connections):
            connection.finish()


def literal(name: bytes, value: bytes) -> bytes:
    """A header for HPACK, without compression and without an entry in the client's table (RFC 7541, 6.2.2)."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(size: int) -> bytes:
    if size < 127:
        return bytes((size,))
    size -= 127
    parts = bytearray((127,))
    while size >= 128:
        parts.append(size & 127 | 128)
        size >>= 7
    parts.append(size)
    return bytes(parts)
