"""Runs batches on a thread of its own, so that the event loop stays free while the engine computes."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable

_Work = tuple[Callable[[], None], Callable[[], None]]


class ThreadRunner:
    """One worker thread. ONNX Runtime releases the GIL while it computes."""

    instances = 1

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="serinus-worker", daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Runs `work` on the thread, then `done` on the event loop."""
        self._queue.put((work, done))

    def alive(self) -> bool:
        """False when the thread has died: nothing can be answered any more."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread once what it was given is done."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _work(self) -> None:
        call = self._loop.call_soon_threadsafe
        while (item := self._queue.get()) is not None:
            work, done = item
            work()
            try:
                call(done)
            except RuntimeError:
                return


class LoopScheduler:
    """The event loop's timers, with a clock finer than the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = time.monotonic

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls `callback` on the event loop after `delay` seconds, to a millisecond or so."""
        return self._loop.call_later(delay, callback)
