"""The calls of one HTTP/2 connection: how they begin, what comes in for them, and how the connection ends."""

from __future__ import annotations

import asyncio

from serinus_runtime import logs
from serinus_runtime.grpc import frames, status
from serinus_runtime.grpc.answers import FRAME, GOOD, LAST, Answers
from serinus_runtime.grpc.call import PREFIX_BYTES, Call, RefusedError
from serinus_runtime.grpc.frames import ConnectionFaultError, StreamFaultError
from serinus_runtime.grpc.heads import Head
from serinus_runtime.grpc.port import Port, literal

_TINY = 64
"""A DATA frame with fewer bytes, and more to come, is an offence: each costs as much as a large one."""
_NOT_GRPC = b"this port speaks gRPC: POST with content-type application/grpc\n"


class Connection(Answers):
    """A connection of `port`."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._receive_window = port.connection_window
        self._warned = False
        self._loop = asyncio.get_running_loop()

    @property
    def address(self) -> str:
        """The client's, without its port; empty where it has none."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) and peer else ""

    # Requests.

    def on_head(self, stream: int, head: Head, size: int, last: bool) -> None:
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
            self._offend(GOOD)
            raise StreamFaultError(stream, frames.PROTOCOL_ERROR, head.fault)
        limits = port.limits
        if len(self._calls) >= limits.streams or port.calls >= limits.calls:
            self._offend(10)
            raise StreamFaultError(stream, frames.REFUSED_STREAM, "too many streams")
        if port.held_bytes > limits.send_bytes or port.received_bytes > limits.receive_bytes:
            raise StreamFaultError(stream, frames.REFUSED_STREAM, "too many answers that are not taken, or requests")
        call = Call(self, stream, head, self._now, port.stream_window, self._initial_window)
        call.head_bytes = size
        self._calls[stream] = call
        port.calls += 1
        port.received_bytes += size
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
        if not call.head.grpc or call.answered:
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
        if call.answered:
            return
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
        if call.on_refused is not None:
            call.on_refused(code)
        self.finish_call(call, status.of_http(code), text, b"")

    def _refuse_http(self, call: Call) -> None:
        block = b"\x08\x03415" + literal(b"content-type", b"text/plain")
        if call.head.method == b"HEAD":
            call.answered = True
            self.put(call, frames.headers(call.stream, block, frames.END_STREAM), LAST)
        else:
            self.put(call, frames.headers(call.stream, block, 0), FRAME)
            call.answered = True
            self.put(call, _NOT_GRPC, frames.END_STREAM)

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
            self._offend(GOOD)
            self._drop(call)

    def reset(self, stream: int, code: int) -> None:
        """Ends a stream with an error of HTTP/2."""
        self._transport.write(frames.rst_stream(stream, code))
        self._remember(stream)
        call = self._calls.get(stream)
        if call is not None:
            self._drop(call)

    # The connection's end.

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
