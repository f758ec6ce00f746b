"""One request and its answer, as the application sees them."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from serinus_runtime.http.streaming import Producer, Stream, Successor

if TYPE_CHECKING:
    from serinus_runtime.http.site import Site

JSON = b"application/json"
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def status_line(status: int, phrase: bytes = b"") -> bytes:
    """The first line of an answer; `phrase` where the status is not one of the well-known."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d %b\r\n" % (status, phrase)


class Connection(Protocol):
    """What an exchange can ask of its connection beyond one whole answer."""

    @property
    def site(self) -> Site:
        """What it shares with the other connections of its port."""

    def known_id(self, exchange: Exchange) -> bytes:
        """See `Exchange.known_id`."""

    def answer_raw(self, exchange: Exchange, status: bytes, headers: bytes, body: bytes) -> None:
        """See `Exchange.respond_raw`."""

    def stream(
        self, exchange: Exchange, producer: Producer, status: bytes, headers: bytes, length: int | None
    ) -> Stream | None:
        """See `Exchange.stream`."""

    def take_over(self, exchange: Exchange, headers: bytes, successor: Successor) -> bool:
        """See `Exchange.take_over`."""


class Exchange:
    """A complete request. Answer exactly once, now or later, on the event loop's thread: `respond`, or `respond_raw`,
    `stream` or `take_over` where it comes from a connection."""

    __slots__ = (
        "_on_answer",
        "answer",
        "body",
        "cancel_on_eof",
        "close",
        "connection",
        "headers",
        "http_10",
        "keep_alive_10",
        "known_path",
        "method",
        "on_gone",
        "peer",
        "plain",
        "received",
        "request_id",
        "streamed",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        on_answer: Callable[[Exchange, int, bytes, bytes, bytes], None],
        connection: Connection | None = None,
    ) -> None:
        self._on_answer = on_answer
        self.connection = connection
        self.peer = ""
        """The client's network address, where it is not the connection that knows it."""
        self.method = b""
        self.target = b""
        self.known_path = b""
        """`path`, where the same head was there before."""
        self.headers: dict[bytes, bytes] = {}
        self.plain = False
        """True: it is known that no header says anything about how a prediction is to be made; see heads."""
        self.body: bytes = b""
        self.received = 0.0
        """When the request had been read whole, in seconds of time.monotonic."""
        self.request_id = b""
        """What the answer calls it; known once it is answered, unless the application sets it before."""
        self.close = False
        self.keep_alive_10 = False
        self.http_10 = False
        self.answer: bytes | None = None
        self.on_gone: Callable[[], None] | None = None
        """Called when the client goes away before the answer."""
        self.streamed: Stream | None = None
        self.cancel_on_eof = False
        """True: a client that ends its side of the connection no longer wants the answer."""
        self.upgrade = False
        """True: the client asks for a WebSocket, and `take_over` is possible."""

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.known_path or self.target.partition(b"?")[0]

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:
        """Answers; `headers` are whole lines, each ended by CRLF."""
        self._on_answer(self, status, body, content_type, headers)

    def known_id(self) -> bytes:
        """What the answer will call the request; for those who must know before it is answered."""
        assert self.connection is not None
        return self.connection.known_id(self)

    def respond_raw(self, status: bytes, headers: bytes, body: bytes) -> None:
        """Answers with a status line and header lines as they are, with the common ones added; `headers` says how long
        the body is, where an answer of this kind says so."""
        assert self.connection is not None
        self.connection.answer_raw(self, status, headers, body)

    def stream(self, producer: Producer, status: bytes, headers: bytes, length: int | None = None) -> Stream | None:
        """Begins an answer whose body comes in pieces; None: the client is gone, and so is the producer's duty.

        `status` is the whole line, `headers` whole lines without lengths, `length` that of the body where it is known.
        """
        assert self.connection is not None
        return self.connection.stream(self, producer, status, headers, length)

    def take_over(self, headers: bytes, successor: Successor) -> bool:
        """Answers 101 with `headers`, whole lines, and gives the connection away. False: the client is gone."""
        assert self.connection is not None
        return self.connection.take_over(self, headers, successor)


class Application(Protocol):
    """What stands behind a port."""

    def handle(self, exchange: Exchange) -> None:
        """Answers the request, now or later. Must not block, and must not raise."""

    def refused(self, target: bytes, status: int) -> None:
        """The connection refused a request to `target` (b"" when unknown) by itself: too large, too slow, not HTTP."""
