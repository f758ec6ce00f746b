"""Jobs of one process: a bounded number waits, a few run at a time behind everybody who waits for an answer.

A job is run as the request that it is, by the same path, and its result is what that request would have been answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serinus_runtime import logs
from serinus_runtime.http import Exchange
from serinus_runtime.jobs.callbacks import Callbacks
from serinus_runtime.jobs.records import Record, Result, Store, StoreUnavailableError, new_id

_KEEP_SECONDS = 10.0
_FULL_AGAIN = 0.1
"""Seconds until a job is tried again that found the queue full."""
_LATE_TRIES = 10
_OUTCOMES = ("accepted", "refused", "succeeded", "failed", "cancelled")
Start = Callable[[Exchange], None]


class JobsFullError(Exception):
    """As many jobs or bytes as may be are kept already."""


class Job:
    """A job that this process has accepted and not finished."""

    __slots__ = ("body", "callback", "exchange", "headers", "held", "id", "record", "target", "tries")

    def __init__(self, client: str, target: bytes, headers: dict[bytes, bytes], body: bytes, callback: str) -> None:
        self.id = new_id()
        self.record = Record(client)
        self.target = target
        self.headers = headers
        self.body = body
        self.callback = callback
        self.exchange: Exchange | None = None
        """While it runs."""
        self.tries = 0
        self.held = len(body)
        """Bytes that are kept for it."""


class Jobs:
    """See the module's text. `start` runs an exchange; `bound` and `size` are of jobs and bytes that are kept."""

    def __init__(
        self,
        store: Store,
        start: Start,
        *,
        ttl: float,
        bound: int,
        size: int,
        concurrency: int,
        callbacks: Callbacks,
    ) -> None:
        self.store = store
        self.callbacks = callbacks
        self._start = start
        self._ttl = ttl
        self._bound = bound
        self._size = size
        self._concurrency = concurrency
        self._queue: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._running = 0
        self._bytes = 0
        self._kept: dict[str, tuple[float, int]] = {}
        """By id, in the order of time: until when a result is kept, and its bytes."""
        self._counts = dict.fromkeys(_OUTCOMES, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept_alive = time.monotonic()

    @property
    def unfinished(self) -> int:
        """Jobs that were accepted and are not done."""
        return len(self._jobs)

    async def submit(self, job: Job) -> None:
        """Accepts `job`: known to the store from now on. Raises JobsFullError, StoreUnavailableError."""
        self._expire()
        if len(self._jobs) + len(self._kept) >= self._bound or self._bytes + job.held > self._size:
            self._counts["refused"] += 1
            raise JobsFullError
        self._bytes += job.held
        self._jobs[job.id] = job
        try:
            await self.store.begin(job.id, job.record)
        except BaseException:
            self._forget(job)
            self._counts["refused"] += 1
            raise
        self._counts["accepted"] += 1
        self._queue.append(job)
        self._pump()

    def retry_after(self) -> int:
        """Seconds until there is room, perhaps."""
        if self._jobs or not self._kept:
            return 1
        return max(1, round(next(iter(self._kept.values()))[0] - time.monotonic()))

    async def find(self, job: str) -> Record | None:
        """What is known of a job, here or in the store. Raises StoreUnavailableError."""
        known = self._jobs.get(job)
        return known.record if known is not None else await self.store.get(job)

    async def cancel(self, job: str, client: str) -> None:
        """Forgets a job, whether it is done or not. Raises StoreUnavailableError."""
        await self.store.cancel(job, client)
        self._drop(job)
        if (kept := self._kept.pop(job, None)) is not None:
            self._bytes -= kept[1]

    async def sweep(self, now: float) -> None:
        """Called about once a second: forgets what is too old, and says that the rest is worked on."""
        self._expire()
        if now - self._kept_alive < _KEEP_SECONDS or not self._jobs:
            return
        self._kept_alive = now
        try:
            for job in await self.store.keep({name: Record(job.record.client) for name, job in self._jobs.items()}):
                self._drop(job)
        except StoreUnavailableError:
            return

    async def close(self) -> None:
        """Ends what runs, unfinished or not."""
        for task in list(self._tasks):
            task.cancel()
        self._jobs.clear()
        self._queue.clear()
        await asyncio.get_running_loop().run_in_executor(None, self.callbacks.close, 3.0)

    def _pump(self) -> None:
        while self._queue and self._running < self._concurrency:
            job = self._queue.popleft()
            if job.id not in self._jobs:
                continue
            exchange = Exchange(self._answering(job))
            exchange.method, exchange.target, exchange.headers = b"POST", job.target, job.headers
            exchange.body, exchange.received = job.body, time.monotonic()
            exchange.request_id = job.headers.get(b"x-request-id", job.id.encode())
            job.exchange = exchange
            job.tries += 1
            self._running += 1
            self._start(exchange)

    def _answering(self, job: Job) -> Callable[[Exchange, int, bytes, bytes, bytes], None]:
        def answer(_: Exchange, status: int, body: bytes, content_type: bytes, headers: bytes) -> None:
            self._answered(job, Result(status, content_type, headers, bytes(body)))

        return answer

    def _answered(self, job: Job, result: Result) -> None:
        exchange = job.exchange
        if exchange is None or exchange.answer is not None:
            return
        exchange.answer, exchange.on_gone, job.exchange = b"", None, None
        self._running -= 1
        loop = asyncio.get_running_loop()
        if job.id not in self._jobs:
            loop.call_soon(self._pump)
        elif result.status == 429 or (result.status == 504 and job.tries < _LATE_TRIES):
            # The queue was full, or it was not its turn in time: it was accepted, so it waits.
            loop.call_later(min(_FULL_AGAIN * job.tries, 2.0), self._again, job)
        else:
            task = loop.create_task(self._finish(job, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            loop.call_soon(self._pump)

    def _again(self, job: Job) -> None:
        self._queue.appendleft(job)
        self._pump()

    async def _finish(self, job: Job, result: Result) -> None:
        record = Record(job.record.client, result)
        until = time.monotonic() + self._ttl
        pause = 0.1
        # The body is not needed any more, the result is.
        self._bytes += result.size - job.held
        job.body, job.held, job.record = b"", result.size, record
        while True:
            try:
                kept = await self.store.finish(job.id, record)
                break
            except StoreUnavailableError as error:
                if time.monotonic() >= until:
                    logs.event("error", "the result of a job is lost", job=job.id[:8], error=str(error))
                    kept = False
                    break
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)
        if job.id not in self._jobs:
            return
        self._counts["succeeded" if result.status < 400 else "failed"] += 1
        if not kept:
            self._forget(job)
            return
        del self._jobs[job.id]
        self._kept[job.id] = (time.monotonic() + self._ttl, job.held)
        if job.callback:
            self.callbacks.post(job.callback, job.id, result)

    def _drop(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None:
            return
        self._counts["cancelled"] += 1
        self._forget(job)
        exchange, job.exchange = job.exchange, None
        if exchange is not None and exchange.answer is None:
            exchange.answer = b""
            self._running -= 1
            if exchange.on_gone is not None:
                exchange.on_gone()
            asyncio.get_running_loop().call_soon(self._pump)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._bytes -= job.held

    def _expire(self) -> None:
        now = time.monotonic()
        while self._kept:
            job, (until, size) = next(iter(self._kept.items()))
            if until > now:
                return
            del self._kept[job]
            self._bytes -= size

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Jobs by what became of them, with the labels that all metrics have."""
        jobs = CounterMetricFamily("serinus_async_jobs", "Jobs by what became of them", labels=[*names, "outcome"])
        for outcome, count in self._counts.items():
            jobs.add_metric([*values, outcome], count)
        yield jobs
        for name, text, value in (
            ("serinus_async_pending", "Jobs that are accepted and not done", len(self._jobs)),
            ("serinus_async_kept", "Results that wait to be fetched", len(self._kept)),
            ("serinus_async_bytes", "Bytes of bodies and results", self._bytes),
        ):
            gauge = GaugeMetricFamily(name, text, labels=names)
            gauge.add_metric(values, value)
            yield gauge
        calls = CounterMetricFamily("serinus_async_callbacks", "Callbacks by outcome", labels=[*names, "outcome"])
        for outcome, count in (
            ("sent", self.callbacks.sent), ("failed", self.callbacks.failed), ("dropped", self.callbacks.dropped),
        ):  # fmt: skip
            calls.add_metric([*values, outcome], count)
        yield calls
