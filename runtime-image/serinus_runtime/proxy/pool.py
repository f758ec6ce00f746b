"""The connections to the engine: so many at most, a bounded queue before them, the newest idle one first."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import cast

from serinus_runtime.proxy.client import Upstream
from serinus_runtime.proxy.problems import FullError, Problem, connect


class Turn:
    """A request that waits for a connection or has one. Whoever asks inherits and says what happens then."""

    upstream: Upstream | None = None
    size: int = 0
    """Bytes of memory that it keeps while it waits."""
    until: float = 0.0
    """When waiting in the queue is too long."""
    fresh: bool = False
    """True: it wants a new connection, since an old one has let it down."""
    running: bool = False
    """True from when it begins until it leaves."""

    def begin(self, upstream: Upstream) -> None:
        """It is its turn: `upstream` is its own until the answer is whole."""
        raise NotImplementedError

    def refused(self, problem: Problem) -> None:
        """There is no connection."""
        raise NotImplementedError

    def overdue(self) -> None:
        """It waited for too long."""
        raise NotImplementedError


class Pool:
    """At most `limit` requests are with the engine; `queue` more wait, with `queue_bytes` of memory. `sweep` often.

    Connections idle for `idle_seconds` are closed: less than what engines allow (gunicorn: 2 s, uvicorn: 5 s),
    since a request that crosses the engine's end of the connection cannot always be repeated.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limit: int,
        queue: int,
        queue_bytes: int,
        idle_seconds: float = 1.5,
        connect_seconds: float = 2.0,
    ) -> None:
        self._host = host
        self._port = port
        self._limit = limit
        self._queue = queue
        self._queue_bytes = queue_bytes
        self._idle_seconds = idle_seconds
        self._connect_seconds = connect_seconds
        self._idle: list[Upstream] = []
        self._all: set[Upstream] = set()
        self._waiting: deque[Turn] = deque()
        self._waiting_bytes = 0
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds = 0.1
        self.connected = 0
        """Connections that were made since the start."""

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that are with the engine."""
        return self._running

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._all)

    def put(self, turn: Turn) -> None:
        """Begins at once or queues. Raises FullError."""
        if self._running < self._limit and not self._waiting:
            self._start(turn)
            return
        waiting = len(self._waiting)
        if waiting >= self._queue or (waiting and self._waiting_bytes + turn.size > self._queue_bytes):
            raise FullError(waiting / self._limit * self._seconds)
        self._waiting.append(turn)
        self._waiting_bytes += turn.size

    def again(self, turn: Turn) -> None:
        """Begins once more, on a new connection, without having left."""
        turn.fresh = True
        self._connect_soon(turn)

    def leave(self, turn: Turn, seconds: float = 0.0) -> None:
        """It is over, or the caller has gone: the next may begin. `seconds`: how long it was with the engine."""
        if not turn.running:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._waiting_bytes -= turn.size
            return
        turn.running = False
        self._running -= 1
        if seconds:
            self._seconds += 0.1 * (min(seconds, 60.0) - self._seconds)
        while self._waiting and self._running < self._limit:
            following = self._waiting.popleft()
            self._waiting_bytes -= following.size
            self._start(following)

    def sweep(self, now: float) -> None:
        """Ends what has been silent or has waited for too long."""
        for turn in [each for each in self._waiting if each.until <= now]:
            self._waiting.remove(turn)
            self._waiting_bytes -= turn.size
            turn.overdue()
        for upstream in [each for each in self._all if each.deadline <= now]:
            upstream.expire()
        while self._idle and self._idle[0].idle_since + self._idle_seconds <= now:
            self._idle.pop(0).drop()

    async def close(self) -> None:
        """Drops everything."""
        for task in list(self._tasks):
            task.cancel()
        for upstream in list(self._all):
            upstream.drop()
        await asyncio.sleep(0)

    def _start(self, turn: Turn) -> None:
        self._running += 1
        turn.running = True
        if not turn.fresh:
            oldest = time.monotonic() - self._idle_seconds
            while self._idle:
                upstream = self._idle.pop()
                if upstream.usable and upstream.idle_since > oldest:
                    turn.upstream = upstream
                    turn.begin(upstream)
                    return
                upstream.drop()
        self._connect_soon(turn)

    def _connect_soon(self, turn: Turn) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, turn: Turn) -> None:
        try:
            upstream = await self.open()
        except Problem as problem:
            if turn.running:
                turn.refused(problem)
            return
        if turn.running:
            turn.upstream = upstream
            turn.begin(upstream)
        else:
            self._free(upstream)

    async def open(self) -> Upstream:
        """A new connection. Raises Problem."""
        upstream = Upstream(self._free, self._lost)
        await connect(cast(asyncio.BaseProtocol, upstream), self._host, self._port, self._connect_seconds)
        self._all.add(upstream)
        self.connected += 1
        upstream.idle_since = time.monotonic()
        return upstream

    def _free(self, upstream: Upstream) -> None:
        if upstream.usable:
            self._idle.append(upstream)

    def _lost(self, upstream: Upstream) -> None:
        self._all.discard(upstream)
        if upstream in self._idle:
            self._idle.remove(upstream)
