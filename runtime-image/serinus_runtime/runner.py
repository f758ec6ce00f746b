"""Runs batches on threads of their own, so that the event loop stays free while the engine computes."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

from serinus_runtime import logs

_Work = tuple[Callable[[], None], Callable[[], None]]
_JOIN_SECONDS = 10.0


class ThreadRunner:
    """One worker thread per instance; engines release the GIL while they compute.

    `cores`: thread i runs on the i-th of them only, going round; empty: wherever the kernel likes. `stuck_after`:
    seconds after which a batch that is still running counts as stuck, 0 for never.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        instances: int = 1,
        *,
        cores: Sequence[int] = (),
        stuck_after: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instances = instances
        self._loop = loop
        self._cores = tuple(cores)
        self._stuck_after = stuck_after
        self._clock = clock
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._began = [0.0] * instances
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"serinus-worker-{index}", daemon=True)
            for index in range(instances)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Runs `work` on a thread that is free, then `done` on the event loop."""
        self._queue.put((work, done))

    def alive(self) -> bool:
        """False when a thread has died, or has been at one batch for too long: only a new process helps then."""
        return self.stuck() == 0 and all(thread.is_alive() for thread in self._threads)

    def stuck(self) -> int:
        """How many instances have been at one batch for too long."""
        if not self._stuck_after:
            return 0
        since = self._clock() - self._stuck_after
        return sum(0.0 < began <= since for began in self._began)

    def close(self) -> None:
        """Ends the threads once what they were given is done."""
        for _ in self._threads:
            self._queue.put(None)
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def _work(self, index: int) -> None:
        if self._cores:
            _pin(self._cores[index % len(self._cores)])
        call, began, clock = self._loop.call_soon_threadsafe, self._began, self._clock
        while (item := self._queue.get()) is not None:
            work, done = item
            began[index] = clock()
            work()
            began[index] = 0.0
            try:
                call(done)
            except RuntimeError:
                return


def _pin(core: int) -> None:
    try:
        # Linux: 0 is the thread that asks, not its process.
        os.sched_setaffinity(0, {core})
    except (AttributeError, OSError) as error:
        logs.event("warning", "a thread could not be pinned", core=core, error=str(error))


def cores() -> tuple[int, ...]:
    """The cores that this process may use."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:
        return tuple(range(os.cpu_count() or 1))


class LoopScheduler:
    """The event loop's timers, with a clock finer than the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = time.monotonic

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls `callback` on the event loop after `delay` seconds, to a millisecond or so."""
        return self._loop.call_later(delay, callback)
