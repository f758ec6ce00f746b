"""WebSocket (RFC 6455) on a connection that was HTTP: the library `websockets` frames, this keeps the connection.

Compression is not offered: a small message must not become a large one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections import deque
from typing import Protocol, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol as Framing
from websockets.protocol import Side, State
from websockets.utils import accept_key

from serinus_runtime.http.exchange import Exchange
from serinus_runtime.http.site import Site
from serinus_runtime.http.streaming import Successor

PING_SECONDS = 20.0
"""A peer that is silent for so long is asked whether it is there, and has as long again to say so."""
CLOSE_SECONDS = 5.0
"""For the peer's half of the closing handshake."""
_FRAMES_BYTES = 256 << 10
"""Around a message, for its frames and for what came with its beginning."""


class Listener(Protocol):
    """Who talks with the peer. All calls come on the event loop's thread."""

    def message(self, data: bytes, text: bool) -> None:
        """A whole message."""

    def idle(self) -> bool:
        """True when nothing is owed to the peer."""

    def gone(self) -> None:
        """The connection is gone. Called once."""


class HandshakeError(Exception):
    """The request does not open a WebSocket; `status` and `headers` are for the answer."""

    def __init__(self, status: int, message: str, headers: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def handshake(exchange: Exchange) -> bytes:
    """The header lines that accept the WebSocket that `exchange` asks for. Raises HandshakeError."""
    headers = exchange.headers
    if not exchange.upgrade:
        text = "this path speaks WebSocket: send Connection: Upgrade and Upgrade: websocket over HTTP/1.1"
        raise HandshakeError(426, text, b"upgrade: websocket\r\n")
    if headers.get(b"sec-websocket-version") != b"13":
        raise HandshakeError(426, "only version 13 of WebSocket is spoken here", b"sec-websocket-version: 13\r\n")
    key = headers.get(b"sec-websocket-key", b"")
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        good = False
    if not good:
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return b"upgrade: websocket\r\nsec-websocket-accept: %b\r\n" % accept_key(key.decode()).encode()


class WebSocket(Successor):
    """One connection of `site` after `handshake`; messages go to `listener`, at most `max_bytes` each."""

    def __init__(self, site: Site, max_bytes: int) -> None:
        self._site = site
        self._max_bytes = max_bytes
        self._framing = Framing(Side.SERVER, state=State.OPEN, max_size=max_bytes)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.listener: Listener = cast(Listener, None)
        """To be set before the connection is taken over."""
        self._parts: list[bytes] = []
        self._text = False
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._partial = 0
        self._held = False
        self._writable = True
        self._reading = True
        self._telling = False
        self._pinged = False
        self._ending = False
        self._lost = False
        self.deadline = time.monotonic() + PING_SECONDS

    def send(self, data: bytes, *, text: bool) -> None:
        """Sends a message, unless the conversation is over."""
        if self._ending or self._lost:
            return
        if text:
            self._framing.send_text(data)
        else:
            self._framing.send_binary(data)
        self._write()

    def close(self, code: int, reason: str) -> None:
        """Begins the closing handshake."""
        if self._ending or self._lost:
            return
        self._framing.send_close(code, reason)
        self._end()

    def hold(self, on: bool) -> None:
        """Takes no further messages for now, or takes them again: the peer waits."""
        self._held = on
        self._read()
        if not on:
            self._tell()

    # What asyncio and the site call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Feeds the framing."""
        if not self._ending:
            self._pinged = False
            if self._writable:
                self.deadline = time.monotonic() + PING_SECONDS
            self._count(self._partial + len(data))
        self._framing.receive_data(data)
        for frame in self._framing.events_received():
            assert isinstance(frame, Frame)
            self._frame(frame)
        if self._partial > 2 * self._max_bytes + _FRAMES_BYTES:
            self._framing.fail(CloseCode.MESSAGE_TOO_BIG, "a message in too many pieces")
        elif self._partial and self._site.received_bytes > self._site.limits.receive_bytes:
            self._framing.fail(CloseCode.TRY_AGAIN_LATER, "too many large messages are being received")
        self._write()
        if self._framing.state is not State.OPEN:
            self._end()
        self._tell()

    def eof_received(self) -> bool:
        """No more from the peer: without a closing handshake that is an end as well."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self._lost = True
        self._count(0)
        self._messages.clear()
        self.listener.gone()

    def pause_writing(self) -> None:
        """The peer does not take what it asked for: it is not read either."""
        self._writable = False
        self.deadline = time.monotonic() + self._site.limits.request_seconds
        self._read()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self.deadline = time.monotonic() + (CLOSE_SECONDS if self._ending else PING_SECONDS)
        self._read()
        self._tell()

    def on_deadline(self) -> None:
        """Asks a silent peer whether it is there, and drops one that does not say so or does not read."""
        if not self._writable or self._ending or self._pinged:
            self._transport.abort()
            return
        self.deadline = time.monotonic() + PING_SECONDS
        if self._reading:
            self._pinged = True
            self._framing.send_ping(b"serinus")
            self._write()

    def abort(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    def close_if_idle(self) -> None:
        """The server is going away."""
        if not self._messages and not self._partial and self.listener.idle():
            self.close(CloseCode.GOING_AWAY, "this server is going away: connect again")

    # Inside.

    def _frame(self, frame: Frame) -> None:
        if self._ending:
            return
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._text = frame.opcode is Opcode.TEXT
            self._parts = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
        else:
            return
        if not frame.fin:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self._count(0)
        if self._text:
            try:
                data.decode()
            except UnicodeDecodeError:
                self._framing.fail(CloseCode.INVALID_DATA, "a text message must be UTF-8")
                return
        self._messages.append((data, self._text))

    def _tell(self) -> None:
        if self._telling:
            return
        self._telling = True
        while self._messages and not self._held and self._writable and not self._ending and not self._lost:
            self.listener.message(*self._messages.popleft())
        self._telling = False
        self._read()

    def _read(self) -> None:
        wanted = (self._ending or (not self._held and not self._messages)) and self._writable
        if wanted != self._reading and not self._lost:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _count(self, partial: int) -> None:
        self._site.received_bytes += partial - self._partial
        self._partial = partial

    def _write(self) -> None:
        for data in self._framing.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                # Closing at once would reset the connection, and the peer might lose the reason.
                self._transport.write_eof()
            else:
                self._transport.close()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self.deadline = time.monotonic() + CLOSE_SECONDS
            self._parts = []
            self._messages.clear()
            self._count(0)
        self._write()
        self._read()
