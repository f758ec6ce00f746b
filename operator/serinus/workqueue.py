"""A queue of keys: each at most once, never two workers on one key, failures back off, time is a reason to look."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)
Key = tuple[str, str]
FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0


class WorkQueue:
    """Calls `work(key)` for every added key. It answers in how many seconds the key is due again, or None."""

    def __init__(self, work: Callable[[Key], Awaitable[float | None]], workers: int = 8) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._running: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Marks a key as due now."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Marks a key as due later; the latest call for a key wins."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    def __len__(self) -> int:
        return len(self._queued) + len(self._running)

    @property
    def longest_run(self) -> float:
        """Seconds that the oldest call under way has taken; 0 when idle."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._loop())

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _loop(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._running[key] = time.monotonic()
            try:
                after = await self._work(key)
                self._failures.pop(key, None)
            except Exception:
                count = self._failures[key] = self._failures.get(key, 0) + 1
                after = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(count - 1, 10)) * random.uniform(0.75, 1.25)  # noqa: S311
                log.exception("reconciling failed, next try in %.1f s", after, extra={"object": "/".join(key)})
            finally:
                del self._running[key]
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if after is not None:
                self.add_after(key, after)
