"""HTTP/2 to an engine: one connection of a client (RFC 9113), many streams, without TLS ("prior knowledge").

It knows nothing of gRPC but that requests and answers are header fields, bytes and more header fields.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from serinus_runtime import logs
from serinus_runtime.grpc import frames
from serinus_runtime.grpc.rules import read_settings, unpadded

Fields = list[tuple[bytes, bytes]]
_HEAD_BYTES = 64 << 10
_STREAM_WINDOW = 256 << 10
_CONNECTION_WINDOW = 16 << 20
_LAST_STREAM = (1 << 31) - 1
HELD_BYTES = 64 << 10
"""Of a request that the engine does not take yet: beyond it, its sender should wait."""
_FIRST = (
    frames.PREFACE
    + frames.settings(
        {
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            frames.MAX_HEADER_LIST_SIZE: _HEAD_BYTES,
        }
    )
    + frames.window_update(0, _CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
)


class FaultError(Exception):
    """The engine broke the rules: nothing more can be believed of the connection."""


class Listener(Protocol):
    """Who asked. All calls come on the event loop's thread; after `ended` and `broken` there are none."""

    def begun(self, fields: Fields) -> None:
        """The answer begins."""

    def data(self, payload: bytes) -> None:
        """A part of it. `Lane.taken` says that the next may come."""

    def ended(self, fields: Fields) -> None:
        """The last fields; all there are where the answer had no other."""

    def broken(self, why: str) -> None:
        """There will be no answer, or no end of it."""

    def room(self) -> None:
        """More of the request may be sent again."""


class Lane:
    """One stream."""

    def __init__(self, link: Link, number: int, listener: Listener, window: int) -> None:
        self._link = link
        self.number = number
        self.listener = listener
        self.window = window
        self.out: deque[memoryview] = deque()
        self.held = 0
        """Bytes that wait for the windows."""
        self.ending = False
        """True once the request is whole."""
        self.sent_end = False
        self.begun = False
        self.owed = 0
        """Bytes that came and were not given back to the engine's window."""

    def send(self, data: bytes, *, last: bool = False) -> None:
        """A part of the request, now or as soon as the windows let it out."""
        if data:
            self.out.append(memoryview(data))
            self.held += len(data)
        self.ending = self.ending or last
        self._link.pump(self)

    def taken(self) -> None:
        """What has come was passed on."""
        if self.owed >= _STREAM_WINDOW >> 1:
            self._link.give(self)

    def reset(self) -> None:
        """Nobody wants the answer."""
        self._link.forget(self, frames.CANCEL)


class Link(asyncio.Protocol):
    """A connection. `on_lost` is called once, when it can carry no more streams."""

    def __init__(self, on_lost: Callable[[Link], None]) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._decoder = Decoder(max_header_list_size=_HEAD_BYTES)
        self._rest = b""
        self._lanes: dict[int, Lane] = {}
        self._next = 1
        self._window = frames.DEFAULT_WINDOW
        self._initial = frames.DEFAULT_WINDOW
        self._most = 100
        """Streams at a time, until the engine says otherwise (RFC 9113 recommends no less)."""
        self._owed = 0
        self._block: list[bytes] = []
        self._block_stream = 0
        self._block_last = False
        self._writable = True
        self._going = False
        self._lost = False

    @property
    def usable(self) -> bool:
        """False when it can take no more streams at the moment, or ever."""
        return not (self._lost or self._going or self._next > _LAST_STREAM or len(self._lanes) >= self._most)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._lanes)

    def open(self, block: bytes, listener: Listener) -> Lane:
        """Begins a request with this header block."""
        lane = Lane(self, self._next, listener, self._initial)
        self._next += 2
        self._lanes[lane.number] = lane
        self._transport.write(frames.headers(lane.number, block, 0))
        return lane

    def close(self) -> None:
        """Drops it; whoever waits is told."""
        if not self._lost:
            self._transport.abort()

    # Out.

    def pump(self, lane: Lane) -> None:
        """Sends what the windows let out."""
        if lane.number not in self._lanes or lane.sent_end:
            return
        before = lane.held
        while lane.out and self._writable:
            data = lane.out[0]
            size = min(len(data), self._window, lane.window, frames.MAX_FRAME)
            if size <= 0:
                break
            self._window -= size
            lane.window -= size
            lane.held -= size
            if size == len(data):
                lane.out.popleft()
            else:
                lane.out[0] = data[size:]
            last = lane.ending and not lane.out
            self._transport.write(
                frames.head(size, frames.DATA, frames.END_STREAM if last else 0, lane.number) + data[:size]
            )
            lane.sent_end = last
        if lane.ending and not lane.out and not lane.sent_end:
            lane.sent_end = True
            self._transport.write(frames.head(0, frames.DATA, frames.END_STREAM, lane.number))
        if before > HELD_BYTES >= lane.held and not lane.ending:
            lane.listener.room()

    def _pump_all(self) -> None:
        for lane in list(self._lanes.values()):
            if self._window <= 0 or not self._writable:
                return
            if lane.out:
                self.pump(lane)

    def give(self, lane: Lane) -> None:
        """Lets the engine send more on a stream."""
        if lane.number in self._lanes and lane.owed:
            self._transport.write(frames.window_update(lane.number, lane.owed))
            lane.owed = 0

    def forget(self, lane: Lane, code: int) -> None:
        """Ends a stream from this side; its listener hears nothing more."""
        if self._lanes.pop(lane.number, None) is not None and not self._lost:
            self._transport.write(frames.rst_stream(lane.number, code))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The engine has let us in."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_FIRST)

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine is gone, or we dropped it."""
        self._lost = True
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.listener.broken("the engine closed the connection" + (f": {exc}" if exc is not None else ""))
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The engine's system takes no more."""
        self._writable = False

    def resume_writing(self) -> None:
        """It takes more."""
        self._writable = True
        self._pump_all()

    def data_received(self, data: bytes) -> None:
        """Looks at frames; whatever they say, this does not raise."""
        try:
            self._read(self._rest + data if self._rest else data)
        except (FaultError, frames.ConnectionFaultError, frames.StreamFaultError) as fault:
            self._fail(str(fault) or getattr(fault, "text", ""))
        except (HPACKError, IndexError, ValueError) as error:
            self._fail(f"not HPACK: {error}")
        except Exception as error:
            logs.event("error", "an engine's answer over HTTP/2 could not be read", error=repr(error))
            self._fail("internal error")

    def _fail(self, why: str) -> None:
        lanes, self._lanes = self._lanes, {}
        self._going = True
        self._transport.abort()
        for lane in lanes.values():
            lane.listener.broken(f"the engine's answer is not HTTP/2: {why}")

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= frames.HEAD_BYTES:
            high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            after = at + frames.HEAD_BYTES + (high << 8 | low)
            if after - at - frames.HEAD_BYTES > frames.MAX_FRAME:
                raise FaultError(f"a frame of {after - at - frames.HEAD_BYTES} bytes")
            if after > end:
                break
            self._frame(kind, flags, stream & frames.MAX_WINDOW, data[at + frames.HEAD_BYTES : after])
            at = after
        self._rest = data[at:]

    # In.

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block_stream and (kind != frames.CONTINUATION or stream != self._block_stream):
            raise FaultError("a header block is interrupted")
        if kind == frames.DATA:
            self._on_data(flags, stream, payload)
        elif kind == frames.HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            if not self._block_stream:
                raise FaultError("a CONTINUATION frame continues nothing")
            self._on_block(payload, whole=bool(flags & frames.END_HEADERS))
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._on_settings(payload)
        elif kind == frames.PING:
            if not flags & frames.ACK and len(payload) == 8:
                self._transport.write(frames.ping_ack(payload))
        elif kind == frames.WINDOW_UPDATE:
            self._on_window(stream, int.from_bytes(payload, "big") & frames.MAX_WINDOW)
        elif kind == frames.RST_STREAM:
            if (lane := self._lanes.pop(stream, None)) is not None:
                lane.listener.broken(
                    f"the engine ended the call with the HTTP/2 error {int.from_bytes(payload, 'big')}"
                )
        elif kind == frames.GOAWAY:
            self._on_goaway(int.from_bytes(payload[:4], "big") & frames.MAX_WINDOW)
        elif kind == frames.PUSH_PROMISE:
            raise FaultError("it promises what nobody asked for")

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._owed += size
        if self._owed >= _CONNECTION_WINDOW >> 1:
            self._transport.write(frames.window_update(0, self._owed))
            self._owed = 0
        lane = self._lanes.get(stream)
        if lane is None:
            return
        if not lane.begun:
            raise FaultError("data before the head of an answer")
        lane.owed += size
        if lane.owed > _STREAM_WINDOW:
            raise FaultError("more data than its window")
        if flags & frames.PADDED:
            start, end = unpadded(payload, 0, size)
            payload = payload[start:end]
        if payload:
            lane.listener.data(payload)
        if flags & frames.END_STREAM:
            self._end(lane, [])

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        start, end = unpadded(payload, 0, len(payload)) if flags & frames.PADDED else (0, len(payload))
        if flags & frames.PRIORITIZED:
            start += 5
        self._block_stream = stream
        self._block_last = bool(flags & frames.END_STREAM)
        self._on_block(payload[start:end], whole=bool(flags & frames.END_HEADERS))

    def _on_block(self, part: bytes, *, whole: bool) -> None:
        self._block.append(part)
        if sum(map(len, self._block)) > _HEAD_BYTES or len(self._block) > 64:
            raise FaultError("the headers are too large")
        if not whole:
            return
        block, self._block = b"".join(self._block), []
        stream, self._block_stream = self._block_stream, 0
        # Decoded even where nobody waits: the connection's table must stay right.
        fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        lane = self._lanes.get(stream)
        if lane is None:
            return
        if self._block_last:
            self._end(lane, fields)
        elif not lane.begun:
            if dict(fields).get(b":status", b"")[:1] != b"1":
                lane.begun = True
                lane.listener.begun(fields)
        else:
            raise FaultError("trailers that are not the end")

    def _end(self, lane: Lane, fields: Fields) -> None:
        if self._lanes.pop(lane.number, None) is None:
            return
        if not lane.sent_end:
            # The engine has answered without the rest of the request.
            self._transport.write(frames.rst_stream(lane.number, frames.NO_ERROR))
        lane.listener.ended(fields)
        if self._going and not self._lanes:
            self._transport.close()

    def _on_settings(self, payload: bytes) -> None:
        for name, value in read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                for lane in self._lanes.values():
                    lane.window += value - self._initial
                self._initial = value
            elif name == frames.MAX_CONCURRENT_STREAMS:
                self._most = value
        self._transport.write(frames.settings_ack())
        self._pump_all()

    def _on_window(self, stream: int, size: int) -> None:
        if stream == 0:
            self._window += size
            self._pump_all()
        elif (lane := self._lanes.get(stream)) is not None:
            lane.window += size
            self.pump(lane)

    def _on_goaway(self, last: int) -> None:
        self._going = True
        for number in [number for number in self._lanes if number > last]:
            self._lanes.pop(number).listener.broken("the engine is going away")
        if not self._lanes:
            self._transport.close()
