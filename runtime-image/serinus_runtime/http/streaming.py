"""Answers that are sent as they are made, and connections that stop being HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from serinus_runtime.http.exchange import Exchange

BUFFER_BYTES = 64 << 10
"""What a stream may hold while answers before it are not sent yet; then its producer is told to pause."""


class Producer(Protocol):
    """Who makes a stream. All calls come on the event loop's thread, also from within `Stream.write`."""

    def pause(self) -> None:
        """The client takes no more for now. What is written nevertheless is kept, unbounded: stop soon."""

    def resume(self) -> None:
        """The client takes more."""

    def gone(self) -> None:
        """Nobody listens any more: the client has left or was too slow. Called once at most, and then nothing else."""


class Carrier(Protocol):
    """The connection that a stream goes out on."""

    def stream_write(self, data: bytes) -> None:
        """Sends bytes as they are."""

    def stream_ended(self, exchange: Exchange) -> None:
        """The stream at the front is over: what comes behind it may go."""

    def stream_failed(self, exchange: Exchange, reset: bool) -> None:
        """The stream at the front cannot be finished: the connection ends, by a reset where only that is noticed."""


class Successor(asyncio.Protocol):
    """What a connection becomes after an upgrade. The site keeps it among its connections."""

    deadline: float = float("inf")
    """When `on_deadline` is due, in seconds of time.monotonic."""
    leave: Callable[[], None] | None = None
    """What tells the site that the connection is gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. Whoever overrides this calls it."""
        if self.leave is not None:
            self.leave()

    def on_deadline(self) -> None:
        """Called by the sweep, about every second, when the deadline has passed."""

    def abort(self) -> None:
        """Drops the connection at once."""

    def close_if_idle(self) -> None:
        """The server is going away: called again and again until the connection is gone."""


class Stream:
    """One answer under way. `write` as often as there is something, then `end`, or `fail` when there will be no end.

    With `length` the body has exactly so many bytes; without, it is chunked, or ended by the end of the connection.
    """

    __slots__ = (
        "_attaching",
        "_carrier",
        "_chunked",
        "_exchange",
        "_failed",
        "_held",
        "_left",
        "_live",
        "_over",
        "_producer",
        "_silent",
        "_waiting",
        "paused",
    )

    def __init__(
        self,
        carrier: Carrier,
        exchange: Exchange,
        producer: Producer,
        length: int | None,
        *,
        chunked: bool,
        silent: bool,
    ) -> None:
        self._carrier = carrier
        self._exchange = exchange
        self._producer: Producer | None = producer
        self._left = -1 if length is None else length
        self._chunked = chunked
        self._silent = silent
        """The answer has no body, as the request was a HEAD."""
        self._waiting: list[bytes] = []
        self._held = 0
        self._live = False
        self._attaching = False
        self._over = False
        self._failed = False
        self.paused = False
        """True between `pause` and `resume` of the producer."""

    def write(self, data: bytes) -> None:
        """Sends a piece, or keeps it until it is this answer's turn. After the end nothing is sent."""
        if self._over or not data:
            return
        if self._left >= 0:
            if len(data) > self._left:
                # More than was promised would be read as the next answer.
                self.fail()
                return
            self._left -= len(data)
        if self._silent:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._live:
            self._carrier.stream_write(data)
            return
        self._waiting.append(data)
        self._held += len(data)
        if self._held >= BUFFER_BYTES:
            self.pause()

    def end(self) -> None:
        """That was all."""
        if self._over:
            return
        if self._left > 0 and not self._silent:
            self.fail()
            return
        self._over = True
        self._producer = None
        last = b"0\r\n\r\n" if self._chunked and not self._silent else b""
        if not self._live:
            self._waiting.append(last)
        else:
            if last:
                self._carrier.stream_write(last)
            if not self._attaching:
                self._carrier.stream_ended(self._exchange)

    def fail(self) -> None:
        """There will be no end: the connection is closed in such a way that the client notices."""
        if self._over:
            return
        self._over = self._failed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.gone()
        if self._live and not self._attaching:
            self._carrier.stream_failed(self._exchange, self._unmarked)

    @property
    def _unmarked(self) -> bool:
        return not self._chunked and self._left < 0

    # What the connection calls.

    def attach(self) -> bool:
        """It is this answer's turn, and its head is sent. True: it is over already."""
        self._live = self._attaching = True
        waiting, self._waiting = self._waiting, []
        self._held = 0
        for data in waiting:
            if data:
                self._carrier.stream_write(data)
        self._attaching = False
        if self._failed:
            self._carrier.stream_failed(self._exchange, self._unmarked)
            return False
        return self._over

    def pause(self) -> None:
        """The connection's buffer is full."""
        if not self.paused and self._producer is not None:
            self.paused = True
            self._producer.pause()

    def resume(self) -> None:
        """There is room again."""
        if self.paused and self._producer is not None:
            self.paused = False
            self._producer.resume()

    def gone(self) -> None:
        """The connection is gone."""
        self._over = True
        self._waiting = []
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.gone()
