"""The answers of one HTTP/2 connection: what goes out at once, what waits for the windows, and the end of calls."""

from __future__ import annotations

import time

from serinus_runtime.grpc import frames, status
from serinus_runtime.grpc.call import PREFIX_BYTES, Call
from serinus_runtime.grpc.frames import ConnectionFaultError, StreamFaultError
from serinus_runtime.grpc.port import Port, literal
from serinus_runtime.grpc.wire import Wire

_OK_TRAILERS = literal(b"grpc-status", b"0")
_OK_FLAGS = frames.END_STREAM | frames.END_HEADERS
_REMEMBERED = 256
GOOD = 8
"""Offences that an answered call makes good: the pings and window updates that come with it."""
_REQUEST_ID = b"\x00\x0cx-request-id"
FRAME, LAST = -1, -2
"""For `put`: a frame as it is, and one that ends its stream."""


class Answers(Wire):
    """The calls that are under way, and what is said to them."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._calls: dict[int, Call] = {}
        self._dropped: dict[int, None] = {}
        """Streams that ended here first: what the client had sent by then is no fault of its."""
        self._send_window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._frame_bytes = frames.MAX_FRAME
        self._blocked: dict[int, Call] = {}
        """Calls whose answer waits for the windows, or for the client's system."""
        self._moved = 0.0
        """When something of them last went out."""
        self._accepting = True

    def reply(self, call: Call, parts: list[bytes | memoryview]) -> None:
        """Headers, one message, trailers."""
        if call.answered or self._closed:
            return
        call.answered = True
        size = PREFIX_BYTES
        for part in parts:
            size += len(part)
        request_id = call.identify()
        room = min(self._send_window, call.send_window, self._frame_bytes)
        if size > room or call.metadata or self._blocked or not self._writable or call.begun or len(request_id) > 126:
            self._reply_slowly(call, parts, size)
            return
        block = self.port.block
        stream = call.stream
        pack = frames.HEAD.pack
        self._send_window -= size
        length = len(block) + len(_REQUEST_ID) + 1 + len(request_id)
        self._transport.write(
            b"".join(
                (
                    pack(length >> 8, length & 0xFF, frames.HEADERS, frames.END_HEADERS, stream),
                    block,
                    _REQUEST_ID,
                    bytes((len(request_id),)),
                    request_id,
                    pack(size >> 8, size & 0xFF, frames.DATA, 0, stream),
                    b"\0",
                    (size - PREFIX_BYTES).to_bytes(4, "big"),
                    *parts,
                    pack(0, len(_OK_TRAILERS), frames.HEADERS, _OK_FLAGS, stream),
                    _OK_TRAILERS,
                )
            )
        )
        self._over(call)

    def _reply_slowly(self, call: Call, parts: list[bytes | memoryview], size: int) -> None:
        self._begin(call)
        self.put(call, _message(parts, size), 0)
        self.put(call, frames.headers(call.stream, _OK_TRAILERS, frames.END_STREAM), LAST)

    def _begin(self, call: Call) -> None:
        if not call.begun:
            call.begun = True
            block = self.port.block + literal(b"x-request-id", call.identify()) + call.metadata
            self.put(call, frames.headers(call.stream, block, 0), FRAME)

    def send(self, call: Call, parts: list[bytes | memoryview]) -> None:
        """One message of many."""
        if not call.answered and not self._closed:
            self._begin(call)
            self.put(call, _message(parts, PREFIX_BYTES + sum(map(len, parts))), 0)

    def begin(self, call: Call) -> None:
        """The headers of an answer whose messages come later."""
        if not call.answered and not self._closed:
            self._begin(call)

    def pass_on(self, call: Call, data: bytes) -> None:
        """A part of an answer that somebody else has framed."""
        if not call.answered and not self._closed:
            self._begin(call)
            self.put(call, data, 0)

    def finish_call(self, call: Call, code: int, text: str, more: bytes) -> None:
        """Trailers; without an answer before them, all there is."""
        if call.answered or self._closed:
            return
        call.answered = True
        trailers = literal(b"grpc-status", b"%d" % code) + more
        if text:
            trailers += literal(b"grpc-message", status.percent_encoded(text))
        if not call.begun:
            trailers = self.port.block + literal(b"x-request-id", call.identify()) + call.metadata + trailers
        self.put(call, frames.headers(call.stream, trailers, frames.END_STREAM), LAST)

    def put(self, call: Call, data: bytes, flags: int) -> None:
        """Sends `data`, or keeps it for when there is room: a DATA payload with these flags, or a frame as it is."""
        if not call.pending and self._writable:
            if flags < 0:
                self._transport.write(data)
                if flags == LAST:
                    self._over(call)
                return
            size = len(data)
            if size <= min(self._send_window, call.send_window, self._frame_bytes):
                self._send_window -= size
                call.send_window -= size
                self._transport.write(frames.head(size, frames.DATA, flags, call.stream) + data)
                if flags:
                    self._over(call)
                return
        call.pending.append((memoryview(data), flags))
        self.port.held_bytes += len(data)
        if call.stream not in self._blocked:
            if not self._blocked:
                self._moved = time.monotonic()
            self._blocked[call.stream] = call
        while self._flush_call(call):
            pass

    def flush(self) -> None:
        """Sends what waits, a frame of each call in turn, as far as the windows reach."""
        moving = True
        while moving and self._blocked and self._writable:
            moving = False
            for call in list(self._blocked.values()):
                moving = self._flush_call(call) or moving

    def _flush_call(self, call: Call) -> bool:
        """Sends the next frame of a call; True when there was room for one."""
        pending = call.pending
        if not pending or not self._writable:
            return False
        data, flags = pending[0]
        last = flags == LAST
        if flags < 0:
            pending.popleft()
            size = len(data)
            self._transport.write(data)
        else:
            size = min(len(data), self._send_window, call.send_window, self._frame_bytes)
            if size <= 0:
                return False
            self._send_window -= size
            call.send_window -= size
            if size == len(data):
                pending.popleft()
                last = flags == frames.END_STREAM
                self._transport.write(frames.head(size, frames.DATA, flags, call.stream) + data)
            else:
                pending[0] = (data[size:], flags)
                self._transport.write(frames.head(size, frames.DATA, 0, call.stream) + data[:size])
        self.port.held_bytes -= size
        self._moved = time.monotonic()
        if not pending:
            self._blocked.pop(call.stream, None)
            if last:
                self._over(call)
            elif not call.answered:
                if call.on_drained is not None:
                    call.on_drained()
                self.feed_receiver(call)
        return True

    def on_window(self, stream: int, size: int) -> None:
        """The client takes `size` more bytes."""
        if stream == 0:
            self._send_window += size
            if self._send_window > frames.MAX_WINDOW:
                raise ConnectionFaultError(frames.FLOW_CONTROL_ERROR, "the window is too large")
            self.flush()
            return
        call = self._calls.get(stream)
        if call is not None:
            call.send_window += size
            if call.send_window > frames.MAX_WINDOW:
                raise StreamFaultError(stream, frames.FLOW_CONTROL_ERROR, "the window is too large")
            while self._flush_call(call):
                pass

    def on_setting(self, name: int, value: int) -> None:
        """One of the client's settings."""
        if name == frames.INITIAL_WINDOW_SIZE:
            more = value - self._initial_window
            self._initial_window = value
            for call in self._calls.values():
                call.send_window += more
                if call.send_window > frames.MAX_WINDOW:
                    raise ConnectionFaultError(frames.FLOW_CONTROL_ERROR, "a window is too large")

    # The end of calls.

    def _over(self, call: Call) -> None:
        """The answer is out."""
        stream = call.stream
        if self._calls.pop(stream, None) is None:
            return
        self.port.calls -= 1
        self.port.received_bytes -= call.head_bytes
        call.on_gone = None
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if not call.ended:
            # The client may stop: nobody reads on.
            call.forget()
            self._transport.write(frames.rst_stream(stream, frames.NO_ERROR))
            self._remember(stream)
        if self._offences:
            self._offences = max(0, self._offences - GOOD)
        if not self._calls:
            self._rest_now()

    def _drop(self, call: Call) -> None:
        """The client has gone, or broken the rules: what is being done for it is not done."""
        if self._calls.pop(call.stream, None) is None:
            return
        self._blocked.pop(call.stream, None)
        self.port.calls -= 1
        self.port.received_bytes -= call.head_bytes
        call.answered = True
        call.forget()
        self.port.held_bytes -= sum(len(data) for data, _ in call.pending)
        call.pending.clear()
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        gone, call.on_gone = call.on_gone, None
        if gone is not None:
            gone()
        if not self._calls and not self._closed:
            self._rest_now()

    def _rest_now(self) -> None:
        self._since = time.monotonic()
        if not self._accepting and not self._closed:
            self._end(b"")

    def _remember(self, stream: int) -> None:
        dropped = self._dropped
        if len(dropped) >= _REMEMBERED:
            del dropped[next(iter(dropped))]
        dropped[stream] = None

    def lost(self) -> None:
        """There is nobody left to answer."""
        for call in list(self._calls.values()):
            self._drop(call)

    def feed_receiver(self, call: Call) -> None:
        """There is room for the answers of a streaming call again."""
        raise NotImplementedError


def _message(parts: list[bytes | memoryview], size: int) -> bytes:
    return b"".join((b"\0", (size - PREFIX_BYTES).to_bytes(4, "big"), *parts))
