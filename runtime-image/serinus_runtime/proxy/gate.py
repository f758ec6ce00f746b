"""A bounded queue before something that takes so much at a time."""

from __future__ import annotations

from collections import deque

from serinus_runtime.proxy.problems import FullError


class Waiting:
    """Who waits. Whoever inherits says what happens then."""

    size: int = 0
    """Bytes of memory that it keeps while it waits."""
    until: float = 0.0
    """When waiting is too long, in seconds of time.monotonic."""
    inside: bool = False
    """True from `enter` until it leaves."""

    def enter(self) -> None:
        """It is its turn."""
        raise NotImplementedError

    def overdue(self) -> None:
        """It waited for too long, and waits no more."""
        raise NotImplementedError


class Gate:
    """`limit` at a time; `queue` more wait, with `queue_bytes` of memory. `sweep` often."""

    def __init__(self, limit: int, queue: int, queue_bytes: int) -> None:
        self._limit = limit
        self._queue = queue
        self._queue_bytes = queue_bytes
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._seconds = 0.1
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, turn: Waiting) -> None:
        """Enters at once or queues. Raises FullError."""
        if self.running < self._limit and not self._waiting:
            self._enter(turn)
            return
        waiting = len(self._waiting)
        if waiting >= self._queue or (waiting and self._bytes + turn.size > self._queue_bytes):
            raise FullError(waiting / self._limit * self._seconds)
        self._waiting.append(turn)
        self._bytes += turn.size

    def grew(self, turn: Waiting, size: int) -> None:
        """It keeps `size` more bytes while it waits."""
        if not turn.inside and turn in self._waiting:
            turn.size += size
            self._bytes += size

    def leave(self, turn: Waiting, seconds: float = 0.0) -> None:
        """It is over, or nobody wants it any more. `seconds`: how long it was inside."""
        if not turn.inside:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._bytes -= turn.size
            return
        turn.inside = False
        self.running -= 1
        if seconds:
            self._seconds += 0.1 * (min(seconds, 60.0) - self._seconds)
        while self._waiting and self.running < self._limit:
            following = self._waiting.popleft()
            self._bytes -= following.size
            self._enter(following)

    def sweep(self, now: float) -> None:
        """Tells those that have waited for too long."""
        for turn in [each for each in self._waiting if each.until <= now]:
            self._waiting.remove(turn)
            self._bytes -= turn.size
            turn.overdue()

    def _enter(self, turn: Waiting) -> None:
        self.running += 1
        turn.inside = True
        turn.enter()
