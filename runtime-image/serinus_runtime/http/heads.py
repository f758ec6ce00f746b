"""Heads of requests that the parser has read, so that a client that sends the same one again is not parsed again.

Clients that keep their connection send heads that are equal byte for byte. The parser is deterministic: from the start
of a message, equal bytes mean an equal request. Only plain heads are kept: a body of known length, nothing about the
connection itself. Gateways that put something new into every head (a request id) gain nothing and lose next to nothing.
"""

from __future__ import annotations

from serinus_runtime.fast import HEAD_BYTES, known_head
from serinus_runtime.http.exchange import Exchange

__all__ = ["HEAD_BYTES", "Head", "Heads"]

_ENTRIES = 512
_PATIENCE = 4096
_NEVER_THE_SAME = (b"x-request-id", b"traceparent")
_SPECIAL = frozenset(
    (
        b"content-encoding", b"grpc-timeout", b"prefer", b"request-timeout", b"x-envoy-expected-rq-timeout-ms",
        b"x-priority", b"x-request-timeout",
    )
)  # fmt: skip
"""Headers that are looked for in every request for a prediction, beside those that no head that is kept has."""
_NOT_PLAIN = (b"connection", b"transfer-encoding", b"upgrade", b"expect", *_NEVER_THE_SAME)


class Head:
    """What the parser made of a head. `headers` is shared by all requests that have it."""

    __slots__ = ("headers", "length", "method", "path", "plain", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], length: int) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.headers = headers
        self.length = length
        self.plain = _SPECIAL.isdisjoint(headers)


class Heads:
    """The heads of one port, bounded."""

    def __init__(self, body_bytes: int) -> None:
        self._body_bytes = body_bytes
        self._known: dict[bytes, Head] = {}
        self._patience = _PATIENCE

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """What the head at the start of `data` was parsed to before, and what comes behind it: a whole body."""
        found = known_head(data, self._known)
        return found if found is not None and len(found[1]) == found[0].length else None

    def learn(self, raw: bytes, body: int, exchange: Exchange) -> None:
        """`raw` and `body` bytes behind it were parsed to `exchange`. A port learns 4,096 times at most."""
        headers = exchange.headers
        if (
            self._patience <= 0
            or exchange.close
            or exchange.keep_alive_10
            or any(name in headers for name in _NOT_PLAIN)
        ):
            return
        length = headers.get(b"content-length")
        if length is None or not length.isdigit() or int(length) != body or body > self._body_bytes:
            return
        if len(self._known) >= _ENTRIES:
            self._known.clear()
        self._patience -= 1
        self._known[raw] = Head(exchange.method, exchange.target, headers, body)

    def __len__(self) -> int:
        return len(self._known)
