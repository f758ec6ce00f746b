"""One gRPC call: a stream of HTTP/2, its messages in and its answer out."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from serinus_runtime.grpc import status
from serinus_runtime.grpc.heads import Head
from serinus_runtime.grpc.port import Method, Receiver

if TYPE_CHECKING:
    from serinus_runtime.grpc.connection import Connection

PREFIX_BYTES = 5
_GZIP = 16 + zlib.MAX_WBITS


class RefusedError(Exception):
    """The call cannot go on: an HTTP status (its gRPC counterpart is what the client gets) and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Call:
    """A call on its way. Answer with `reply`, `fail`, or any number of `send` and one `finish`."""

    __slots__ = (
        "_at",
        "_connection",
        "_have",
        "_parts",
        "answered",
        "begun",
        "deadline",
        "ended",
        "feeding",
        "half_closed",
        "head",
        "head_bytes",
        "metadata",
        "method",
        "on_drained",
        "on_expired",
        "on_gone",
        "on_refused",
        "pending",
        "receive_window",
        "received",
        "receiver",
        "request_id",
        "send_window",
        "stream",
        "timer",
        "total",
    )

    def __init__(self, connection: Connection, stream: int, head: Head, now: float, receive: int, send: int) -> None:
        self._connection = connection
        self._parts: deque[bytes] = deque()
        self._at = 0
        self._have = 0
        self.stream = stream
        self.head = head
        self.head_bytes = 0
        """What the port counts for it."""
        self.method: Method | None = None
        self.receiver: Receiver | None = None
        self.received = now
        """When it began; for a plain call, when it was whole. Seconds of time.monotonic."""
        self.deadline = now + head.timeout if head.timeout >= 0.0 else float("inf")
        """When the client stops waiting; seconds of time.monotonic."""
        self.request_id = b""
        self.receive_window = receive
        self.send_window = send
        self.total = 0
        """Bytes of body so far."""
        self.ended = False
        """True when the client has sent all."""
        self.half_closed = False
        """True when the receiver was told so."""
        self.feeding = False
        self.begun = False
        """True when the headers of the answer are out."""
        self.answered = False
        """True when all of the answer is said, if not sent."""
        self.pending: deque[tuple[memoryview, int]] = deque()
        """What the windows do not let out yet: DATA payloads and their flags, or whole frames (flags below 0)."""
        self.on_gone: Callable[[], None] | None = None
        """Called when the client goes away before the answer."""
        self.on_expired: Callable[[], None] | None = None
        """Called when the client's deadline passes before the answer; without, the call is failed."""
        self.on_drained: Callable[[], None] | None = None
        """Called when all that was sent so far has left, for those who send with `pass_on`."""
        self.on_refused: Callable[[int], None] | None = None
        """Called with an HTTP status when the connection refuses what the client sends, before that is said."""
        self.metadata = b""
        """Header fields, for HPACK, of the beginning of the answer."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The client's network address; empty where it has none."""
        return self._connection.address

    def identify(self) -> bytes:
        """The id that the answer will carry: the client's if it is sane, else a new one."""
        if not self.request_id:
            self.request_id = self._connection.port.request_id(self.head.fields.get(b"x-request-id"))
        return self.request_id

    # In.

    def feed(self, chunk: bytes) -> None:
        """Takes a part of the body; the bytes are counted by the port until `next_message` gives them out."""
        if chunk:
            self._parts.append(chunk)
            self._have += len(chunk)
            self._connection.port.received_bytes += len(chunk)

    def next_message(self) -> bytes | None:
        """The next message that is whole, decompressed. Raises RefusedError."""
        if self._have < PREFIX_BYTES:
            return None
        self._gather(PREFIX_BYTES)
        start = self._at + PREFIX_BYTES
        size = int.from_bytes(self._parts[0][self._at + 1 : start], "big")
        limit = self._connection.port.limits.message_bytes
        if size > limit:
            raise RefusedError(413, f"the body is larger than {limit} bytes")
        whole = PREFIX_BYTES + size
        if self._have < whole:
            return None
        self._gather(whole)
        first, at = self._parts[0], self._at
        self._have -= whole
        self._connection.port.received_bytes -= whole
        if len(first) == at + whole:
            self._parts.popleft()
            self._at = 0
        else:
            self._at = at + whole
        return decompressed(first[at], first[at + PREFIX_BYTES : at + whole], self.head, limit)

    def _gather(self, size: int) -> None:
        """Makes the first part hold the next `size` bytes; every byte is moved once, whatever the messages' sizes."""
        parts = self._parts
        found = len(parts[0]) - self._at
        if found >= size:
            return
        joined = [parts.popleft()[self._at :]]
        while found < size:
            joined.append(parts.popleft())
            found += len(joined[-1])
        parts.appendleft(b"".join(joined))
        self._at = 0

    def announced(self) -> int:
        """The size of the message that is coming in; negative while that is not known. Raises nothing."""
        if self._have < PREFIX_BYTES:
            return -1
        self._gather(PREFIX_BYTES)
        return int.from_bytes(self._parts[0][self._at + 1 : self._at + PREFIX_BYTES], "big")

    def has_message(self) -> bool:
        """True when a message is there as a whole."""
        return self._have >= PREFIX_BYTES and self._have - PREFIX_BYTES >= self.announced()

    @property
    def leftover(self) -> int:
        """Bytes that are no whole message."""
        return self._have

    def forget(self) -> None:
        """Drops what has come in."""
        self._connection.port.received_bytes -= self._have
        self._have = 0
        self._parts.clear()

    def more(self) -> None:
        """The method of a streaming call wants messages again."""
        self._connection.feed_receiver(self)

    # Out.

    def reply(self, parts: list[bytes | memoryview]) -> None:
        """The only message, and the end."""
        self._connection.reply(self, parts)

    def send(self, parts: list[bytes | memoryview]) -> None:
        """One message of many."""
        self._connection.send(self, parts)

    def begin(self) -> None:
        """The beginning of the answer goes out, with `metadata`."""
        self._connection.begin(self)

    def pass_on(self, data: bytes) -> None:
        """A part of the answer as it comes: messages with the lengths before them, cut anywhere."""
        self._connection.pass_on(self, data)

    def close(self, code: int, more: bytes) -> None:
        """The end, with a status of gRPC's and whatever else the trailers say, for HPACK."""
        self._connection.finish_call(self, code, "", more)

    def finish(self) -> None:
        """The end of an answer of many messages."""
        self._connection.finish_call(self, status.OK, "", b"")

    def fail(self, code: int, text: str, more: bytes = b"") -> None:
        """The end, with an error: `code` is an HTTP status, `more` header fields for HPACK."""
        self._connection.finish_call(self, status.of_http(code), text, more)


def decompressed(flag: int, payload: bytes, head: Head, limit: int) -> bytes:
    """The message in `payload`; `flag` says whether it is compressed. Raises RefusedError."""
    if flag == 0:
        return payload
    encoding = head.fields.get(b"grpc-encoding")
    if flag != 1 or encoding is None or encoding == b"identity":
        raise RefusedError(500, "the message says that it is compressed, but grpc-encoding does not say how")
    if encoding != b"gzip":
        raise RefusedError(
            501, f"grpc-encoding {encoding[:40].decode('latin-1')!r} is not known here: use identity or gzip"
        )
    unpacker = zlib.decompressobj(_GZIP)
    try:
        message = unpacker.decompress(payload, limit + 1)
    except zlib.error as error:
        raise RefusedError(400, f"the message is not gzip: {error}") from None
    if len(message) > limit:
        raise RefusedError(413, f"the body is larger than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError(400, "the message is not gzip: it is cut off, or something follows")
    return message
