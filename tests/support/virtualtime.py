"""An event loop whose clock moves only while nothing happens: a slow machine makes a test longer, never different.

The sockets are real. Time stands still while there is anything to read, write or call, and then goes on in steps, so a
run of one second on this clock sees one second's timers and as much work as it likes between them. Only what runs on
the loop itself is seen: threads and other processes keep the machine's time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STEP = 0.01
"""Seconds on the virtual clock that pass at most before sockets are looked at again."""
GRACE = 0.001
"""Real seconds in which nothing may have happened on any socket before the clock moves: the kernel delivers on the
loopback at once, or nearly so. A time-out of half a second is 50 steps away, so what is late by one does no harm."""


class _Selector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(GRACE)
        if not events:
            self.now += min(timeout, STEP)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, which begins at 0."""

    def __init__(self) -> None:
        self._own = _Selector()
        super().__init__(self._own)

    def time(self) -> float:
        """Seconds since the loop was made, as far as it has something to say about it."""
        return self._own.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a `VirtualLoop`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
