"""Records in this process: gone with it, and unknown to other replicas."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from serinus_runtime.jobs.records import Record


class MemoryStore:
    """Results for `ttl` seconds on `clock`. How many there are is for those to bound who put them in."""

    shared = False

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._clock = clock
        self._pending: dict[str, Record] = {}
        self._finished: OrderedDict[str, tuple[float, Record]] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._pending) + len(self._finished)

    async def begin(self, job: str, record: Record) -> None:
        """See Store."""
        self._pending[job] = record

    async def finish(self, job: str, record: Record) -> bool:
        """See Store."""
        self._expire()
        if self._pending.pop(job, None) is None:
            return False
        self._finished[job] = (self._clock() + self._ttl, record)
        return True

    async def get(self, job: str) -> Record | None:
        """See Store."""
        self._expire()
        if (found := self._finished.get(job)) is not None:
            return found[1]
        return self._pending.get(job)

    async def cancel(self, job: str, client: str) -> None:
        """See Store."""
        self._pending.pop(job, None)
        self._finished.pop(job, None)

    async def keep(self, jobs: dict[str, Record]) -> list[str]:
        """See Store."""
        return []

    async def close(self) -> None:
        """See Store."""

    def _expire(self) -> None:
        now = self._clock()
        while self._finished and next(iter(self._finished.values()))[0] <= now:
            self._finished.popitem(last=False)
