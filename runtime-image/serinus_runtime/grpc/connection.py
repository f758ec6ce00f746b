"""The calls of one HTTP/2 connection: their life, their windows, their answers."""

from __future__ import annotations

import asyncio
import time

from serinus_runtime import logs
from serinus_runtime.grpc import frames, status
from serinus_runtime.grpc.call import PREFIX_BYTES, Call, RefusedError
from serinus_runtime.grpc.frames import ConnectionFaultError, StreamFaultError
from serinus_runtime.grpc.heads import Head
from serinus_runtime.grpc.port import Port, literal
from serinus_runtime.grpc.wire import Wire

_OK_TRAILERS = literal(b"grpc-status", b"0")
_OK_FLAGS = frames.END_STREAM | frames.END_HEADERS
_REMEMBERED = 256
_TINY = 64
"""A DATA frame with fewer bytes, and more to come, is an offence: each costs as much as a large one."""
_GOOD = 8
"""Offences that an answered call makes good: the pings and window updates that come with it."""
_NOT_GRPC = b"this port speaks gRPC: POST with content-type application/grpc\n"
_REQUEST_ID = b"\x00\x0cx-request-id"
_FRAME, _LAST = -1, -2
"""For `_put`: a frame as it is, and one that ends its stream."""


class Connection(Wire):
    """A connection of `port`."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._calls: dict[int, Call] = {}
        self._dropped: dict[int, None] = {}
        """Streams that ended here first: what the client had sent by then is no fault of its."""
        self._send_window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._receive_window = port.connection_window
        self._frame_bytes = frames.MAX_FRAME
        self._blocked: dict[int, Call] = {}
        """Calls whose answer waits for the windows, or for the client's system."""
        self._moved = 0.0
        """When something of them last went out."""
        self._accepting = True
        self._warned = False
        self._loop = asyncio.get_running_loop()

    # Requests.

    def on_head(self, stream: int, head: Head, last: bool) -> None:
        """A call begins, or a client's trailers end its messages."""
        call = self._calls.get(stream)
        if call is not None:
            self._on_trailers(call, head, last)
            return
        if stream <= self._last:
            if stream in self._dropped:
                return
            raise ConnectionFaultError(frames.STREAM_CLOSED, "headers on a stream that is closed")
        if not self._accepting:
            return
        self._last = stream
        port = self.port
        if head.fault or head.trailers:
            self._offend(_GOOD)
            raise StreamFaultError(stream, frames.PROTOCOL_ERROR, head.fault)
        if len(self._calls) >= port.limits.streams:
            self._offend(10)
            raise StreamFaultError(stream, frames.REFUSED_STREAM, "too many streams")
        if port.held_bytes > port.limits.send_bytes:
            raise StreamFaultError(stream, frames.REFUSED_STREAM, "too many answers that are not taken")
        call = Call(self, stream, head, self._now, port.stream_window, self._initial_window)
        self._calls[stream] = call
        if last:
            call.ended = True
            if head.content_length > 0:
                raise StreamFaultError(stream, frames.PROTOCOL_ERROR, "content-length differs from the body")
        if not head.grpc:
            if last:
                self._refuse_http(call)
            return
        if head.timeout >= 0.0:
            call.timer = self._loop.call_later(head.timeout, self._expire, call)
        method = call.method = port.application.find(head.path)
        if method is None:
            name = head.path[:200].decode("latin-1")
            self.finish_call(call, status.UNIMPLEMENTED, f"there is no method {name!r} here", b"")
        elif method.stream is not None:
            call.receiver = method.stream(call)
            if last:
                self.feed_receiver(call)
        elif last:
            self._end_of_unary(call)

    def _on_trailers(self, call: Call, head: Head, last: bool) -> None:
        if call.ended:
            raise StreamFaultError(call.stream, frames.STREAM_CLOSED, "headers behind the end of the stream")
        if not last or not head.trailers or head.fault:
            raise StreamFaultError(call.stream, frames.PROTOCOL_ERROR, "these are no trailers")
        self._end_of_body(call)

    def on_data(self, stream: int, payload: bytes, size: int, last: bool) -> None:
        """A part of a call's messages."""
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFaultError(frames.FLOW_CONTROL_ERROR, "more data than the connection's window")
        port = self.port
        if self._receive_window < port.connection_window >> 1:
            self._transport.write(frames.window_update(0, port.connection_window - self._receive_window))
            self._receive_window = port.connection_window
        call = self._calls.get(stream)
        if call is None:
            if stream not in self._dropped:
                self._offend(10)
                raise StreamFaultError(stream, frames.STREAM_CLOSED, "data on a stream that is closed")
            return
        if call.ended:
            raise StreamFaultError(stream, frames.STREAM_CLOSED, "data behind the end of the stream")
        call.receive_window -= size
        if call.receive_window < 0:
            raise StreamFaultError(stream, frames.FLOW_CONTROL_ERROR, "more data than the stream's window")
        call.total += len(payload)
        if last:
            if call.head.content_length not in (-1, call.total):
                raise StreamFaultError(stream, frames.PROTOCOL_ERROR, "content-length differs from the body")
        elif len(payload) < _TINY:
            self._offend(1)
        if not call.head.grpc:
            if last:
                self._end_of_body(call)
            return
        call.feed(payload)
        if port.received_bytes > port.limits.receive_bytes:
            self._refuse(call, 429, "too many large requests are being received: try again later")
        elif last:
            self._end_of_body(call)
        elif call.receiver is not None:
            self.feed_receiver(call)
        else:
            self._look_at_size(call)

    def _look_at_size(self, call: Call) -> None:
        """Refuses a message that is too large as soon as it says so."""
        size = call.announced()
        limit = self.port.limits.message_bytes
        if size > limit:
            self._refuse(call, 413, f"the body is larger than {limit} bytes")
        elif 0 <= size < call.total - PREFIX_BYTES:
            self._refuse(call, 400, "a plain call has one message")

    def _end_of_body(self, call: Call) -> None:
        call.ended = True
        if not call.head.grpc:
            self._refuse_http(call)
        elif call.receiver is None:
            self._end_of_unary(call)
        else:
            self.feed_receiver(call)

    def _end_of_unary(self, call: Call) -> None:
        try:
            payload = call.next_message()
        except RefusedError as refusal:
            self._refuse(call, refusal.code, refusal.text)
            return
        if payload is None or call.leftover:
            self._refuse(call, 400, "a plain call has one message, with a length before it that is right")
            return
        call.received = self._now
        assert call.method is not None
        assert call.method.unary is not None
        try:
            call.method.unary(call, payload)
        except Exception as error:
            logs.event("error", "a call failed", path=call.head.path.decode("latin-1"), error=repr(error))
            self.finish_call(call, status.INTERNAL, "internal error", b"")

    def feed_receiver(self, call: Call) -> None:
        """Gives a streaming call's method what it wants of the messages that are there."""
        receiver = call.receiver
        if receiver is None or call.feeding:
            return
        call.feeding = True
        try:
            while not call.answered and not call.pending and receiver.wants():
                payload = call.next_message()
                if payload is None:
                    break
                self._replenish(call)
                receiver.message(payload)
            if call.ended and not call.answered and not call.half_closed and not call.has_message():
                if call.leftover:
                    raise RefusedError(400, "the last message is cut off")  # noqa: TRY301
                call.half_closed = True
                receiver.end()
        except RefusedError as refusal:
            self._refuse(call, refusal.code, refusal.text)
        except Exception as error:
            logs.event("error", "a call failed", path=call.head.path.decode("latin-1"), error=repr(error))
            self.finish_call(call, status.INTERNAL, "internal error", b"")
        finally:
            call.feeding = False

    def _refuse(self, call: Call, code: int, text: str) -> None:
        """Refuses a call before its method has seen it."""
        call.forget()
        self.port.application.refused(call.head.path, code)
        self.finish_call(call, status.of_http(code), text, b"")

    def _refuse_http(self, call: Call) -> None:
        block = b"\x08\x03415" + literal(b"content-type", b"text/plain")
        if call.head.method == b"HEAD":
            call.answered = True
            self._put(call, frames.headers(call.stream, block, frames.END_STREAM), _LAST)
        else:
            self._put(call, frames.headers(call.stream, block, 0), _FRAME)
            call.answered = True
            self._put(call, _NOT_GRPC, frames.END_STREAM)

    def _replenish(self, call: Call) -> None:
        """Lets a streaming call's client send more."""
        window = self.port.stream_window
        room = window - call.receive_window - call.leftover
        if room >= window >> 1 and not call.ended and not call.answered and not self._closed:
            call.receive_window += room
            self._transport.write(frames.window_update(call.stream, room))

    def _expire(self, call: Call) -> None:
        """The client's deadline has passed."""
        call.timer = None
        if not call.answered:
            if call.on_expired is not None:
                call.on_expired()
            else:
                self._refuse(call, 504, "the deadline of the request has passed")

    def on_reset(self, stream: int) -> None:
        """The client has given up on a call."""
        call = self._calls.get(stream)
        if call is not None:
            self._offend(_GOOD)
            self._drop(call)

    def reset(self, stream: int, code: int) -> None:
        """Ends a stream with an error of HTTP/2."""
        self._transport.write(frames.rst_stream(stream, code))
        self._remember(stream)
        call = self._calls.get(stream)
        if call is not None:
            self._drop(call)

    # Answers.

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
        if size > room or self._blocked or not self._writable or call.begun or len(request_id) > 126:
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
        self._put(call, _message(parts, size), 0)
        self._put(call, frames.headers(call.stream, _OK_TRAILERS, frames.END_STREAM), _LAST)

    def _begin(self, call: Call) -> None:
        if not call.begun:
            call.begun = True
            block = self.port.block + literal(b"x-request-id", call.identify())
            self._put(call, frames.headers(call.stream, block, 0), _FRAME)

    def send(self, call: Call, parts: list[bytes | memoryview]) -> None:
        """One message of many."""
        if not call.answered and not self._closed:
            self._begin(call)
            self._put(call, _message(parts, PREFIX_BYTES + sum(map(len, parts))), 0)

    def finish_call(self, call: Call, code: int, text: str, more: bytes) -> None:
        """Trailers; without an answer before them, all there is."""
        if call.answered or self._closed:
            return
        call.answered = True
        trailers = literal(b"grpc-status", b"%d" % code) + more
        if text:
            trailers += literal(b"grpc-message", status.percent_encoded(text))
        if not call.begun:
            trailers = self.port.block + literal(b"x-request-id", call.identify()) + trailers
        self._put(call, frames.headers(call.stream, trailers, frames.END_STREAM), _LAST)

    def _put(self, call: Call, data: bytes, flags: int) -> None:
        """Sends `data`, or keeps it for when there is room: a DATA payload with these flags, or a frame as it is."""
        if not call.pending and self._writable:
            if flags < 0:
                self._transport.write(data)
                if flags == _LAST:
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
        last = flags == _LAST
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

    # The end of calls, and of the connection.

    def _over(self, call: Call) -> None:
        """The answer is out."""
        stream = call.stream
        if self._calls.pop(stream, None) is None:
            return
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
            self._offences = max(0, self._offences - _GOOD)
        if not self._calls:
            self._rest_now()

    def _drop(self, call: Call) -> None:
        """The client has gone, or broken the rules: what is being done for it is not done."""
        self._calls.pop(call.stream, None)
        self._blocked.pop(call.stream, None)
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

    def on_sweep(self, now: float) -> None:
        """Called about once a second: ends what has been slow for too long."""
        super().on_sweep(now)
        if self._closed:
            return
        limits = self.port.limits
        if self._blocked and now - self._moved > limits.request_seconds:
            self._fault(frames.ENHANCE_YOUR_CALM, f"no answer was taken for {limits.request_seconds:g} s")
            return
        if not self._calls:
            if self._settled and now - self._since > limits.keep_alive_seconds:
                self._fault(frames.NO_ERROR, "")
            return
        for call in list(self._calls.values()):
            if now - call.received <= limits.request_seconds:
                break
            if not call.ended and call.receiver is None:
                self._refuse(call, 408, f"the request was not complete after {limits.request_seconds:g} s")

    def go_away(self) -> None:
        """Asks the client to open its next call elsewhere."""
        if self._accepting and self._settled and not self._closed and not self._warned:
            self._warned = True
            self._transport.write(frames.goaway(frames.MAX_WINDOW, frames.NO_ERROR))

    def finish(self) -> None:
        """Takes no more calls, and closes once those under way are answered."""
        if self._closed:
            return
        if self._accepting:
            self._accepting = False
            self._transport.write(frames.goaway(self._last, frames.NO_ERROR))
        if not self._calls:
            self._end(b"")


def _message(parts: list[bytes | memoryview], size: int) -> bytes:
    return b"".join((b"\0", (size - PREFIX_BYTES).to_bytes(4, "big"), *parts))
