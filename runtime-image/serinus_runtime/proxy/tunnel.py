"""Two connections joined end to end after an upgrade: bytes pass both ways, as fast as the slower reader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from serinus_runtime.http.streaming import Successor

_LINGER_SECONDS = 5.0
"""For a side that does not take what was written to it."""


class End(Successor):
    """One side; `other` is where its bytes go. The tunnel ends when nothing has passed for `idle_seconds`."""

    def __init__(self, idle_seconds: float, on_end: Callable[[], None]) -> None:
        self._idle_seconds = idle_seconds
        self._on_end: Callable[[], None] | None = on_end
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._lost = False
        self.other: End = cast(End, None)
        self.active = time.monotonic()
        self.deadline = self.active + idle_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is ours."""
        self._transport = cast(asyncio.Transport, transport)
        early, self._early = self._early, []
        for data in early:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Passes it on."""
        self.active = time.monotonic()
        self.other.write(data)

    def write(self, data: bytes) -> None:
        """Sends bytes to this side's peer."""
        if self._transport is None:
            self._early.append(data)
        elif not self._lost:
            self._transport.write(data)

    def flow(self, on: bool) -> None:
        """Reads this side, or not."""
        if self._transport is not None and not self._lost:
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def finish(self) -> None:
        """Ends this side after what was written to it."""
        if self._transport is not None and not self._lost:
            self.flow(on=True)
            self._transport.close()
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)

    def pause_writing(self) -> None:
        """This side's peer is slow: the other side is not read."""
        self.other.flow(on=False)

    def resume_writing(self) -> None:
        """It reads again."""
        self.other.flow(on=True)

    def eof_received(self) -> bool:
        """No more from this side: WebSocket knows no half-closed connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """One side is gone, so the other one goes, after what was written to it."""
        super().connection_lost(exc)
        self._lost = True
        self.other.finish()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def on_deadline(self) -> None:
        """Ends both sides if nothing has passed either way, or if a slow reader holds everything up."""
        newest = max(self.active, self.other.active)
        if newest + self._idle_seconds <= time.monotonic():
            self.abort()
            self.other.abort()
        else:
            self.deadline = newest + self._idle_seconds

    def abort(self) -> None:
        """Drops this side, and so the other."""
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """A tunnel may be in use at any moment: it ends when its ends want, or when the time to leave is over."""
