"""One HTTP/1.1 connection: keep-alive, pipelining in order, limits, slow clients, back-pressure."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from typing import Final, cast

import httptools
import msgspec

from serinus_runtime import logs
from serinus_runtime.fast import answer
from serinus_runtime.http.exchange import JSON, STATUS_LINES, Exchange
from serinus_runtime.http.heads import HEAD_BYTES, Head
from serinus_runtime.http.reading import RefusedError, RequestReader
from serinus_runtime.http.site import Site
from serinus_runtime.http.streaming import Producer, Stream, Successor

_NEVER: Final = float("inf")
_OK: Final = STATUS_LINES[200]
_now: Final = time.monotonic
_NO_LINGER = struct.pack("ii", 1, 0)


def connection(site: Site) -> asyncio.Protocol:
    """What a new connection of `site` is given to."""
    return cast(asyncio.Protocol, HttpProtocol(site))


class HttpProtocol(RequestReader):
    """A connection of `site`: the order of answers, time limits, streams, the end.

    It is an asyncio.Protocol in all but name: compiled classes inherit from compiled classes only.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.deadline = _NEVER
        """When `on_deadline` is due, in seconds of time.monotonic."""
        self._active: deque[Exchange] = deque()
        self._parked: deque[Exchange] = deque()
        self._refused: Exchange | None = None
        self._lingering = False
        self._advancing = False
        self._reading = True
        self._writable = True
        self._closed = False
        self._upgrading: Exchange | None = None
        """A request for a WebSocket that is neither answered nor granted; what comes behind it is held."""
        self._held = b""
        self._successor: Successor | None = None

    @property
    def site(self) -> Site:
        """What it shares with the other connections of its port."""
        return self._site

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        site = self._site
        if len(site.connections) >= site.limits.connections:
            self._closed = True
            self._transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\n"
                + site.headers
                + b"x-request-id: "
                + site.request_id(None)
                + b"\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self._transport.close()
            return
        site.connections.add(self)
        self._parser = httptools.HttpRequestParser(self)
        self.deadline = time.monotonic() + site.limits.request_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or we closed."""
        self._closed = True
        self._site.connections.discard(self)
        self._drop_active()
        self._forget_body()
        self._parser = None

    def eof_received(self) -> bool:
        """The client sends no more; what it asked is still answered."""
        if self._lingering or not (self._active or self._parked):
            return False
        if self._active and self._active[0].cancel_on_eof:
            return False
        last = self._parked[-1] if self._parked else self._active[-1]
        last.close = True
        return True

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; whatever it says, this does not raise."""
        if self._closed or self._refused is not None:
            return
        cut = -1
        if self._current is None and not self._active and not self._parked and self._upgrade_body < 0:
            if self._writable and (found := self._site.heads.find(data)) is not None:
                self._repeat(found[0], found[1])
                return
            cut = data.find(b"\r\n\r\n", 0, HEAD_BYTES)
        self._completed = 0
        try:
            self._feed(data)
        except RefusedError as refusal:
            self._refuse(refusal.status, refusal.message)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, RefusedError):
                self._refuse(cause.status, cause.message)
            else:
                logs.event("error", "a parser callback failed", error=repr(cause))
                self._refuse(500, "internal error")
        except httptools.HttpParserError as error:
            self._refuse(400, f"not HTTP/1.1: {error}")
        if self._in_head and self._current is not None and self._refused is None:
            # httptools holds a header until it is whole, so what has come so far is counted here as well. The chunk
            # in which the request began may hold others before it, and is bounded by what one read returns.
            if not self._began:
                self._raw_head_bytes += len(data)
            if self._raw_head_bytes > self._site.limits.head_bytes:
                self._refuse(431, f"the request's head is larger than {self._site.limits.head_bytes} bytes")
        self._began = False
        last, self._last = self._last, None
        if cut > 0 and self._completed == 1 and last is not None and self._current is None:
            self._site.heads.learn(data[:cut], len(data) - cut - 4, last)

    def pause_writing(self) -> None:
        """The client does not take its answers: stop reading what it sends."""
        self._writable = False
        self.deadline = time.monotonic() + self._site.limits.request_seconds
        self._pause()
        if self._active and (stream := self._active[0].streamed) is not None:
            stream.pause()

    def resume_writing(self) -> None:
        """The client has taken its answers."""
        self._writable = True
        if self._current is None:
            self.deadline = _NEVER
        self._rest()
        self._advance()
        if self._active and (stream := self._active[0].streamed) is not None:
            stream.resume()

    # What the half that reads asks.

    def _begins(self) -> Exchange | None:
        if self._refused is not None:
            return None
        if self._writable:
            self.deadline = time.monotonic() + self._site.limits.request_seconds
        return Exchange(self._answer, self)

    def _whole(self, exchange: Exchange) -> None:
        if self._writable:
            self.deadline = _NEVER
        if exchange.upgrade:
            self._upgrading = exchange
        if not self._parked and self._may_begin(exchange):
            self._begin(exchange)
        else:
            self._parked.append(exchange)
            self._pause()

    def _offered(self, rest: bytes) -> bool:
        if self._successor is not None:
            if rest:
                self._successor.data_received(rest)
            return True
        if self._upgrading is None:
            return False
        self._held = rest
        self._pause()
        return True

    # The connection's own life.

    def on_deadline(self) -> None:
        """Called by the sweep when the deadline has passed."""
        if not self._writable or self._lingering:
            self._transport.abort()
        elif self._current is not None:
            self._refuse(408, f"the request was not complete after {self._site.limits.request_seconds:g} s")
        elif not self._active:
            self._transport.close()

    @property
    def address(self) -> str:
        """The client's, without its port; empty where it has none."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) and peer else ""

    def abort(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    def close_if_idle(self) -> None:
        """Closes a connection that is neither sending a request nor waiting for an answer."""
        if self._current is None and not self._active and not self._parked and not self._closed:
            self._transport.close()

    def _repeat(self, head: Head, body: bytes) -> None:
        """A request whose head is, byte for byte, one that the parser has read before, with its whole body."""
        exchange = Exchange(self._answer, self)
        exchange.method, exchange.target, exchange.headers = head.method, head.target, head.headers
        exchange.known_path, exchange.plain = head.path, head.plain
        exchange.body = body
        exchange.received = _now()
        self.deadline = _NEVER
        self._begin(exchange)

    def _may_begin(self, exchange: Exchange) -> bool:
        if exchange.upgrade and self._active:
            return False
        return len(self._active) < self._site.limits.pipeline and self._writable

    def _begin(self, exchange: Exchange) -> None:
        self._active.append(exchange)
        self._site.application.handle(exchange)

    def _answer(self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: bytes) -> None:
        if self._closed or exchange.answer is not None:
            return
        site = self._site
        if site.closing:
            exchange.close = True
        if exchange.close:
            headers += b"connection: close\r\n"
        elif exchange.keep_alive_10:
            headers += b"connection: keep-alive\r\n"
        if not exchange.request_id:
            exchange.request_id = site.request_id(None if exchange.plain else exchange.headers.get(b"x-request-id"))
        exchange.answer = answer(
            _OK if status == 200 else STATUS_LINES[status],
            site.headers,
            exchange.request_id,
            content_type,
            headers,
            body,
            exchange.method == b"HEAD",
        )
        exchange.on_gone = None
        if self._active and self._active[0] is exchange:
            self._flush()

    def _ending(self, exchange: Exchange) -> bytes:
        """The header line that says whether the connection ends with this answer."""
        if self._site.closing:
            exchange.close = True
        if exchange.close:
            return b"connection: close\r\n"
        return b"connection: keep-alive\r\n" if exchange.keep_alive_10 else b""

    def _head(self, exchange: Exchange, status: bytes, headers: bytes, more: bytes) -> bytes:
        request_id = self.known_id(exchange)
        return b"".join((status, self._site.headers, b"x-request-id: ", request_id, b"\r\n", headers, more, b"\r\n"))

    def known_id(self, exchange: Exchange) -> bytes:
        """The request's id, given by the client or made."""
        if not exchange.request_id:
            exchange.request_id = self._site.request_id(exchange.headers.get(b"x-request-id"))
        return exchange.request_id

    def answer_raw(self, exchange: Exchange, status: bytes, headers: bytes, body: bytes) -> None:
        """Sends a whole answer; `headers` says how long its body is, where an answer of this kind says so."""
        if self._closed or exchange.answer is not None:
            return
        exchange.answer = self._head(exchange, status, headers, self._ending(exchange)) + body
        exchange.on_gone = None
        if self._active and self._active[0] is exchange:
            self._flush()

    def stream(
        self, exchange: Exchange, producer: Producer, status: bytes, headers: bytes, length: int | None
    ) -> Stream | None:
        """Begins an answer that comes in pieces."""
        if self._closed or exchange.answer is not None:
            return None
        chunked = length is None and not exchange.http_10
        if length is None and not chunked:
            exchange.close = True
        lengths = b"transfer-encoding: chunked\r\n" if chunked else b""
        if length is not None:
            lengths = b"content-length: %d\r\n" % length
        silent = exchange.method == b"HEAD"
        exchange.streamed = stream = Stream(self, exchange, producer, length, chunked=chunked, silent=silent)
        exchange.answer = self._head(exchange, status, headers, lengths + self._ending(exchange))
        exchange.on_gone = None
        if self._active and self._active[0] is exchange:
            self._flush()
        return stream

    def stream_write(self, data: bytes) -> None:
        """A piece of the stream at the front."""
        self._transport.write(data)

    def stream_ended(self, exchange: Exchange) -> None:
        """The stream at the front is whole."""
        if self._closed or not self._active or self._active[0] is not exchange:
            return
        self._active.popleft()
        if exchange.close:
            self._end(exchange)
        else:
            self._flush()

    def stream_failed(self, exchange: Exchange, reset: bool) -> None:
        """The stream at the front will never be whole."""
        if self._closed or not self._active or self._active[0] is not exchange:
            return
        self._active.popleft()
        if reset and (sock := self._transport.get_extra_info("socket")) is not None:
            # An orderly end would look like the end of the body.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._drop_active()
            self._closed = True
            self._transport.abort()
            return
        self._end(exchange)

    def take_over(self, exchange: Exchange, headers: bytes, successor: Successor) -> bool:
        """Ends HTTP on this connection: `successor` has it from now on."""
        if self._closed or self._upgrading is not exchange or exchange.answer is not None:
            return False
        exchange.answer = head = self._head(exchange, STATUS_LINES[101], headers, b"connection: Upgrade\r\n")
        exchange.on_gone = None
        self._upgrading = None
        self._active.clear()
        self._closed = True
        self._successor = successor
        site = self._site
        site.connections.discard(self)
        site.connections.add(successor)
        successor.leave = lambda: site.connections.discard(successor)
        self._transport.write(head)
        self._transport.set_protocol(successor)
        successor.connection_made(self._transport)
        if not self._writable:
            successor.pause_writing()
        held, self._held = self._held, b""
        if held:
            successor.data_received(held)
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        return True

    def _flush(self) -> None:
        active = self._active
        while active and active[0].answer is not None:
            exchange = active[0]
            self._transport.write(exchange.answer or b"")
            if exchange.streamed is not None:
                if not self._writable:
                    exchange.streamed.pause()
                if not exchange.streamed.attach():
                    if self._writable and not self._closed:
                        exchange.streamed.resume()
                    return
            active.popleft()
            if exchange.close:
                self._end(exchange)
                return
            if exchange is self._upgrading:
                self._upgrading = None
        if self._expect_continue:
            self._send_continue()
        self._rest()
        if self._parked or not self._reading:
            self._advance()

    def _rest(self) -> None:
        """Sets the deadline for a connection that has nothing to do but wait for the next request."""
        if self._current is None and not self._active and self._writable:
            self.deadline = _now() + self._site.limits.keep_alive_seconds

    def _advance(self) -> None:
        """Begins parked requests as far as there is room, and reads on when none is left."""
        if self._advancing:
            return
        self._advancing = True
        while self._parked and not self._closed and self._may_begin(self._parked[0]):
            self._begin(self._parked.popleft())
        self._advancing = False
        if self._parked or not self._writable or self._reading or self._closed or self._upgrading is not None:
            return
        self._reading = True
        self._transport.resume_reading()
        if self._held:
            held, self._held = self._held, b""
            self.data_received(held)

    def _pause(self) -> None:
        if self._reading and not self._closed:
            self._reading = False
            self._transport.pause_reading()

    def _send_continue(self) -> None:
        if not self._active and not self._parked:
            self._expect_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _drop_active(self) -> None:
        """Nobody waits for what is under way any more."""
        dropped = list(self._active)
        self._active.clear()
        self._parked.clear()
        for exchange in dropped:
            if exchange.streamed is not None:
                exchange.streamed.gone()
            elif exchange.answer is None and exchange.on_gone is not None:
                exchange.on_gone()

    def _refuse(self, status: int, message: str) -> None:
        """Answers behind everything that was asked before, and ends the connection."""
        exchange = self._current or Exchange(self._answer, self)
        self._current = None
        self._forget_body()
        exchange.close = True
        self._refused = exchange
        self._site.application.refused(exchange.target, status)
        # No more pipelined requests come behind this one, so those that wait may all begin.
        parked, self._parked = self._parked, deque()
        for waiting in parked:
            self._begin(waiting)
        self._active.append(exchange)
        headers = b"retry-after: 1\r\n" if status == 429 else b""
        exchange.respond(status, msgspec.json.encode({"error": message}), JSON, headers)

    def _end(self, last: Exchange) -> None:
        self._drop_active()
        if last is not self._refused:
            self._closed = True
            self._transport.close()
            return
        # Closing at once would reset the connection, and the client might lose the answer: read on for a while.
        self._lingering = True
        self.deadline = time.monotonic() + self._site.limits.linger_seconds
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
