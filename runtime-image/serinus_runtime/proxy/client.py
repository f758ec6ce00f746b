"""One connection to the engine: httptools parses, callbacks tell, no task and no timer per request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from serinus_runtime import logs
from serinus_runtime.proxy.problems import Problem

_NEVER = float("inf")
MAX_HEAD_BYTES = 64 << 10
"""Heads of the engine's answers that are larger than this are not believed."""


class Receiver(Protocol):
    """Who waits for an answer of the engine. Calls come on the event loop's thread."""

    def head(self, status: int, phrase: bytes, headers: list[tuple[bytes, bytes]], length: int | None) -> None:
        """The head of the answer; names in lower case. `length` of the body, None when it is not said."""

    def piece(self, data: bytes) -> None:
        """A part of the body."""

    def fed(self) -> None:
        """What has been read so far is told, and more will come."""

    def done(self) -> None:
        """The answer is whole. The connection is somebody else's already."""

    def upgraded(self, transport: asyncio.Transport, rest: bytes) -> None:
        """The engine has switched protocols; the transport is the receiver's from now on, with what came behind."""

    def broken(self, problem: Problem) -> None:
        """There will be no answer, or no end of it."""


class Upstream:
    """A connection that carries one request at a time: an asyncio.Protocol in all but name, since compiled classes have
    compiled bases only. `on_free` is called when it can take the next, `on_lost` once when it cannot any more."""

    def __init__(self, on_free: Callable[[Upstream], None], on_lost: Callable[[Upstream], None]) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._bodyless = False
        self._phrase = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = True
        self._answered = False
        self._open_ended = False
        self._finished = False
        self._keep = False
        self._paused = False
        self.lost = True
        self.requests = 0
        """How many requests it has carried."""
        self.idle_since = 0.0
        self.deadline = _NEVER
        """When the engine has been silent for too long; the pool looks."""
        self.patience = _NEVER
        """Seconds of silence that are allowed once the answer has begun."""

    @property
    def usable(self) -> bool:
        """False when the engine has closed it."""
        return not self.lost and not self._transport.is_closing()

    def send(self, request: bytes, receiver: Receiver, *, bodyless: bool, deadline: float, patience: float) -> None:
        """Sends a whole request. `bodyless`: the answer to a HEAD; `deadline` for the answer's head."""
        self._receiver = receiver
        self._bodyless = bodyless
        self._in_head = True
        self._answered = self._finished = self._open_ended = False
        self.deadline = deadline
        self.patience = patience
        self.requests += 1
        self._transport.write(request)

    def pause(self) -> None:
        """Reads no further for now: a reader of ours is slow, and the engine is not to blame."""
        if not self._paused and not self.lost and not self._finished:
            self._paused = True
            self.deadline = _NEVER
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self._paused and not self.lost:
            self._paused = False
            self.deadline = time.monotonic() + self.patience
            self._transport.resume_reading()

    def drop(self) -> None:
        """Nobody wants the answer: the engine notices by the end of the connection."""
        self._receiver = None
        self.deadline = _NEVER
        if not self.lost:
            self._transport.abort()

    def expire(self) -> None:
        """Called by the pool when the deadline has passed."""
        self._break(Problem("the engine did not answer in time", answered=self._answered, timeout=True))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The engine has let us in."""
        self._transport = cast(asyncio.Transport, transport)
        self.lost = False

    def data_received(self, data: bytes) -> None:
        """Feeds the parser and tells the receiver."""
        receiver = self._receiver
        if receiver is None:
            # Nothing was asked: whatever this is, it is not an answer.
            self._transport.abort()
            return
        if self.deadline != _NEVER and self._answered:
            self.deadline = time.monotonic() + self.patience
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Problem):
                logs.event("error", "an answer of the engine could not be passed on", error=repr(cause))
                cause = Problem("internal error", answered=self._answered)
            if not self._finished:
                self._break(cause)
                return
            self._keep = False
        except httptools.HttpParserError as error:
            if not self._finished:
                self._break(Problem(f"the engine's answer is not HTTP/1.1: {error}", answered=self._answered))
                return
            self._keep = False
        if self._finished:
            self._finish()
        elif self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(Problem(f"the head of the engine's answer is larger than {MAX_HEAD_BYTES} bytes"))
        elif self._receiver is receiver:
            receiver.fed()

    def eof_received(self) -> bool:
        """The engine sends no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine is gone, or we dropped it."""
        self.lost = True
        if self._receiver is not None:
            if self._open_ended and exc is None:
                self._finished, self._keep = True, False
                self._finish()
            else:
                told = f": {exc}" if exc is not None else ""
                self._break(Problem(f"the engine closed the connection{told}", answered=self._answered))
        self._on_lost(self)

    # What httptools calls.

    def on_status(self, phrase: bytes) -> None:
        """A part of the reason phrase."""
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; also trailers, which are dropped."""
        if self._in_head:
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise Problem(f"the head of the engine's answer is larger than {MAX_HEAD_BYTES} bytes")
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        receiver, headers, phrase = self._receiver, self._headers, self._phrase
        self._headers, self._phrase, self._head_bytes = [], b"", 0
        if receiver is None or self._finished:
            raise Problem("the engine sent an answer that nobody asked for")
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            return
        self._in_head = False
        self._keep = self._parser.should_keep_alive() and status != 101
        length: int | None = None
        chunked = False
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                chunked = value.lower().rpartition(b",")[2].strip() == b"chunked"
        self._answered = True
        if self._bodyless or status in (204, 304):
            if self._bodyless:
                self._keep = self._keep or length is not None or chunked
        elif length is None and not chunked and status != 101:
            self._open_ended = True
        if self.deadline != _NEVER:
            self.deadline = time.monotonic() + self.patience
        if status != 101:
            receiver.head(status, phrase, headers, length)
        else:
            self._headers, self._phrase = headers, phrase
        if self._bodyless:
            self._finished = True

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._receiver is not None and not self._bodyless:
            self._receiver.piece(data)

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one is."""
        if not self._in_head:
            self._finished = True

    def _finish(self) -> None:
        receiver, self._receiver = self._receiver, None
        self.deadline = _NEVER
        if self._paused and not self.lost:
            self._paused = False
            self._transport.resume_reading()
        if self.lost:
            pass
        elif self._keep:
            if self._bodyless:
                # The parser waits for the body that the head promised.
                self._parser = httptools.HttpResponseParser(self)
            self.idle_since = time.monotonic()
            self._on_free(self)
        else:
            self._transport.close()
        if receiver is not None:
            receiver.done()

    def _switch(self, rest: bytes) -> None:
        receiver, self._receiver = self._receiver, None
        headers, phrase = self._headers, self._phrase
        self._headers = []
        self.deadline = _NEVER
        if receiver is None:
            self._transport.abort()
            return
        self.lost = True
        self._on_lost(self)
        receiver.head(101, phrase, headers, None)
        receiver.upgraded(self._transport, rest)

    def _break(self, problem: Problem) -> None:
        receiver, self._receiver = self._receiver, None
        self.deadline = _NEVER
        if not self.lost:
            self._transport.abort()
        if receiver is not None:
            receiver.broken(problem)
