"""One HTTP/2 connection up to its frames: preface, lengths, header blocks, settings, and what a peer may not do."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from serinus_runtime import logs
from serinus_runtime.grpc import frames
from serinus_runtime.grpc.frames import ConnectionFaultError, StreamFaultError
from serinus_runtime.grpc.heads import Head, Heads
from serinus_runtime.grpc.port import Port
from serinus_runtime.grpc.rules import check, read_settings, unpadded

if TYPE_CHECKING:
    from serinus_runtime.grpc.connection import Connection

_HTTP1 = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC")
_WRONG_TEXT = b"this port speaks gRPC (HTTP/2 without TLS); for HTTP/1.1 ask the HTTP port\n"
_WRONG_PROTOCOL = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_WRONG_TEXT), _WRONG_TEXT)
)
_WEIGHTS = {
    frames.WINDOW_UPDATE: 1,
    frames.PING: 1,
    frames.RST_STREAM: 1,
    frames.CONTINUATION: 0,
    frames.PRIORITY: 1,
    frames.GOAWAY: 1,
}
"""How much of an offence a frame is; others are worse."""
_FORGIVEN = 100
"""Offences that a second makes good."""


class Wire:
    """A connection of `port`. What the frames mean for requests is in the class that has this one as its base."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._rest = b""
        self._preface = True
        self._settled = False
        self._heads = Heads(port.limits.head_bytes, port.limits.headers)
        self._block: list[bytes] = []
        self._block_stream = 0
        self._block_flags = 0
        self._block_bytes = 0
        self._last = 0
        """The highest stream that the peer has opened."""
        self._offences = 0
        """What costs work and brings nothing; see `_offend`."""
        self._now = 0.0
        """When the bytes that are looked at came, in seconds of time.monotonic."""
        self._since = 0.0
        """When the connection last had nothing to do, or began what it has not ended (preface, header block)."""
        self._partial = 0.0
        """Since when a frame has been coming in; 0 when none is."""
        self._stuck = 0.0
        """Since when the peer's system takes nothing; 0 when it does."""
        self._writable = True
        self._closed = False
        self._lingering = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        port = self.port
        self._since = time.monotonic()
        if len(port.connections) >= port.limits.connections:
            self._closed = True
            self._transport.write(
                port.settings + frames.goaway(0, frames.ENHANCE_YOUR_CALM, "there are too many connections")
            )
            self._transport.close()
            return
        port.connections.add(cast("Connection", self))
        self._transport.write(port.settings)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or we closed."""
        self._closed = True
        self.port.connections.discard(cast("Connection", self))
        self.lost()

    def eof_received(self) -> bool:
        """The client sends no more: without its window updates, no answer can be relied on to get out."""
        return False

    def pause_writing(self) -> None:
        """The client does not take what it asked for: stop reading what it sends."""
        self._writable = False
        self._stuck = time.monotonic()
        if not self._closed:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has taken it."""
        self._writable = True
        self._stuck = 0.0
        if not self._closed:
            self._transport.resume_reading()
            self.flush()

    def data_received(self, data: bytes) -> None:
        """Looks at frames; whatever they say, this does not raise."""
        if self._closed:
            return
        self._now = time.monotonic()
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            self._read(data)
        except ConnectionFaultError as fault:
            self._fault(fault.code, fault.text)
        except Exception as error:
            logs.event("error", "an HTTP/2 connection failed", error=repr(error))
            self._fault(frames.PROTOCOL_ERROR, "internal error")

    def _read(self, data: bytes) -> None:
        at = 0
        if self._preface:
            at = self._read_preface(data)
            if at == 0:
                return
        end = len(data)
        unpack = frames.HEAD.unpack_from
        while end - at >= frames.HEAD_BYTES:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            start = at + frames.HEAD_BYTES
            if length > frames.MAX_FRAME:
                raise ConnectionFaultError(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            after = start + length
            if after > end:
                break
            at = after
            stream &= frames.MAX_WINDOW
            if self._block_stream and (kind != frames.CONTINUATION or stream != self._block_stream):
                raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a header block must not be interrupted")
            try:
                if kind == frames.HEADERS:
                    self._on_headers(flags, stream, data, start, after)
                elif kind == frames.DATA:
                    self._on_data(flags, stream, data, start, after)
                else:
                    self._on_other(kind, flags, stream, data[start:after])
            except StreamFaultError as fault:
                self.reset(fault.stream, fault.code)
            if self._closed:
                return
        if at < end:
            self._rest = data[at:]
            if at > 0 or self._partial == 0.0:
                self._partial = self._now
        else:
            self._partial = 0.0

    def _read_preface(self, data: bytes) -> int:
        """The length of the preface; 0 while it is not whole."""
        if data.startswith(_HTTP1):
            self._end(_WRONG_PROTOCOL)
            return 0
        wanted = frames.PREFACE
        if data[: len(wanted)] != wanted[: len(data)]:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "not HTTP/2")
        if len(data) < len(wanted):
            self._rest = data
            return 0
        self._preface = False
        return len(wanted)

    # Frames.

    def _on_headers(self, flags: int, stream: int, data: bytes, start: int, end: int) -> None:
        self._must_be_settled()
        if stream & 1 == 0:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "streams of clients have odd numbers")
        if flags & frames.PADDED:
            start, end = unpadded(data, start, end)
        fault = 0
        if flags & frames.PRIORITIZED:
            if end - start < 5:
                raise ConnectionFaultError(frames.FRAME_SIZE_ERROR, "the frame is too short for its priority")
            if int.from_bytes(data[start : start + 4], "big") & frames.MAX_WINDOW == stream:
                fault = stream
            start += 5
        if flags & frames.END_HEADERS:
            head = self._heads.read(data[start:end])
            if fault:
                raise StreamFaultError(fault, frames.PROTOCOL_ERROR, "a stream depends on itself")
            self.on_head(stream, head, end - start, flags & frames.END_STREAM != 0)
            return
        self._block = [data[start:end]]
        self._block_stream = stream
        self._block_flags = flags
        self._block_bytes = end - start
        self._since = self._now

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        stream = self._block_stream
        if stream == 0:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
        self._block.append(payload)
        self._block_bytes += len(payload)
        limits = self.port.limits
        if self._block_bytes > limits.head_bytes or len(self._block) > limits.continuations:
            raise ConnectionFaultError(frames.ENHANCE_YOUR_CALM, "the headers are too large")
        if flags & frames.END_HEADERS:
            block = b"".join(self._block)
            self._block = []
            self._block_stream = 0
            self.on_head(stream, self._heads.read(block), len(block), self._block_flags & frames.END_STREAM != 0)

    def _on_data(self, flags: int, stream: int, data: bytes, start: int, end: int) -> None:
        self._must_be_settled()
        if stream == 0 or stream > self._last:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a DATA frame on a stream that is not open")
        size = end - start
        if flags & frames.PADDED:
            start, end = unpadded(data, start, end)
        if start == end and not flags & frames.END_STREAM:
            self._offend(10)
        self.on_data(stream, data[start:end], size, flags & frames.END_STREAM != 0)

    def _on_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS:
            self._on_settings(flags, stream, payload)
            return
        self._must_be_settled()
        check(kind, stream, payload, self._last)
        self._offend(_WEIGHTS.get(kind, 10))
        if kind == frames.WINDOW_UPDATE:
            self.on_window(stream, int.from_bytes(payload, "big") & frames.MAX_WINDOW)
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self._transport.write(frames.ping_ack(payload))
        elif kind == frames.RST_STREAM:
            self.on_reset(stream)
        elif kind == frames.CONTINUATION:
            self._on_continuation(flags, payload)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a SETTINGS frame belongs to no stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFaultError(frames.FRAME_SIZE_ERROR, "a SETTINGS acknowledgement is empty")
            self._must_be_settled()
            self._offend(1)
            return
        self._offend(10)
        for name, value in read_settings(payload):
            self.on_setting(name, value)
        self._settled = True
        self._transport.write(frames.settings_ack())
        self.flush()

    def _must_be_settled(self) -> None:
        if not self._settled:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "the first frame must be SETTINGS")

    def _offend(self, weight: int) -> None:
        """Counts what costs work and brings nothing. Answered requests and time make it good; too much ends it."""
        self._offences += weight
        if self._offences > self.port.limits.offences:
            raise ConnectionFaultError(frames.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    # The connection's own life.

    def _fault(self, code: int, text: str) -> None:
        self._end(frames.goaway(self._last, code, text))

    def _end(self, last_words: bytes) -> None:
        """Says why, and closes once the client has had time to read it: closing with unread bytes would reset it."""
        self._closed = True
        self._lingering = True
        self._since = time.monotonic()
        self._rest = b""
        self._block = []
        self.lost()
        self._transport.write(last_words)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    def on_sweep(self, now: float) -> None:
        """Called about once a second: ends what has been slow for too long."""
        limits = self.port.limits
        self._offences = max(0, self._offences - _FORGIVEN)
        if self._lingering:
            if now - self._since > limits.linger_seconds:
                self._transport.abort()
        elif self._stuck and now - self._stuck > limits.request_seconds:
            self._transport.abort()
        elif (not self._settled or self._block_stream) and now - self._since > limits.request_seconds:
            self._fault(frames.ENHANCE_YOUR_CALM, f"nothing whole came in {limits.request_seconds:g} s")
        elif self._partial and now - self._partial > limits.request_seconds:
            self._fault(frames.ENHANCE_YOUR_CALM, f"a frame was not complete after {limits.request_seconds:g} s")

    # What the streams make of it.

    def on_head(self, stream: int, head: Head, size: int, last: bool) -> None:
        """A header block of `size` bytes; `last`: the stream ends with it."""
        raise NotImplementedError

    def on_data(self, stream: int, payload: bytes, size: int, last: bool) -> None:
        """A part of a body; `size` is what it takes from the windows."""
        raise NotImplementedError

    def on_window(self, stream: int, size: int) -> None:
        """The client takes `size` more bytes."""
        raise NotImplementedError

    def on_setting(self, name: int, value: int) -> None:
        """One of the client's settings."""
        raise NotImplementedError

    def on_reset(self, stream: int) -> None:
        """The client has given up on a stream."""
        raise NotImplementedError

    def reset(self, stream: int, code: int) -> None:
        """Ends a stream with an error of HTTP/2."""
        raise NotImplementedError

    def flush(self) -> None:
        """Sends what waits, as far as the windows reach."""
        raise NotImplementedError

    def lost(self) -> None:
        """There is nobody left to answer."""
        raise NotImplementedError
