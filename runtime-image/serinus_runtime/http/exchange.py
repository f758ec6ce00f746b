"""One request and its answer, as the application sees them."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

JSON = b"application/json"
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Exchange:
    """A complete request. Call `respond` exactly once, now or later, on the event loop's thread."""

    __slots__ = (
        "_on_answer",
        "answer",
        "body",
        "close",
        "headers",
        "keep_alive_10",
        "method",
        "on_gone",
        "received",
        "request_id",
        "target",
    )

    def __init__(self, on_answer: Callable[[Exchange, int, bytes, bytes, bytes], None]) -> None:
        self._on_answer = on_answer
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body: bytes = b""
        self.received = 0.0
        """When the request had been read whole, in seconds of time.monotonic."""
        self.request_id = b""
        """What the answer calls it; known once it is answered."""
        self.close = False
        self.keep_alive_10 = False
        self.answer: bytes | None = None
        self.on_gone: Callable[[], None] | None = None
        """Called when the client goes away before the answer."""

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0] if b"?" in self.target else self.target

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:
        """Answers; `headers` are whole lines, each ended by CRLF."""
        self._on_answer(self, status, body, content_type, headers)


class Application(Protocol):
    """What stands behind a port."""

    def handle(self, exchange: Exchange) -> None:
        """Answers the request, now or later. Must not block, and must not raise."""

    def refused(self, target: bytes, status: int) -> None:
        """The connection refused a request to `target` (b"" when unknown) by itself: too large, too slow, not HTTP."""
