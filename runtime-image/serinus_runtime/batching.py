"""Joins requests into batches, bounds what waits, and gives every caller its own rows back.

The batcher lives on the event loop and is never locked; only `Runner` knows threads. Semantics are Triton's dynamic
batcher: a batch is sent when it is full, or when an instance is free and the oldest request has waited `max_delay`
(0: at once). All requests that the event loop reads in one tick are in before the batcher decides (`soon`), so they
go as one batch. What is cheap enough runs right there, on the loop (`Costs`); the rest goes to the runner.

With a delay, waiting is skipped where it would gain nothing: while requests come more rarely than the delay, and, ever
longer, after waits whose second half nobody joined. Then as many requests as there were in that wait are enough: these
are clients that send again when they have their answer, and all of them are there.

Priorities are points in time: every level down counts as `level_seconds` of arriving later. So a request is overtaken
only by those of higher levels that come soon enough after it, and nobody starves. A request whose deadline passes while
it waits is not run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

from serinus_runtime.costs import Costs
from serinus_runtime.datatypes import Array
from serinus_runtime.ragged import Ragged
from serinus_runtime.tickets import Answer, Call, Done, Run, Ticket, run_batch, sliced

__all__ = [
    "Answer",
    "Batcher",
    "DeadlinePassedError",
    "QueueFullError",
    "QueueTimeoutError",
    "Ticket",
    "TooManyRowsError",
]

_NEVER = float("inf")
_TIMER_SLACK = 0.0005
"""Seconds by which a timer may fire early: event loop timers have a resolution of a millisecond."""
_ARRIVALS_REMEMBERED = 0.2
"""Weight of the newest gap in the moving average of gaps between arrivals."""
_LEVELS_PER_TIMEOUT = 10
"""A level of priority is worth this part of the queue timeout."""
_MAX_SKIPS = 256
"""After waits in vain, at most so many requests are sent without waiting before it is tried again."""


class QueueFullError(Exception):
    """The queue cannot take the request now; try again in `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class TooManyRowsError(Exception):
    """The request has more rows than the queue could ever hold."""


class QueueTimeoutError(Exception):
    """The request waited longer than the queue timeout and was not run."""

    def __init__(self, text: str = "the request waited in the queue for longer than the queue timeout") -> None:
        super().__init__(text)


class DeadlinePassedError(QueueTimeoutError):
    """Nobody wants the answer any more, and so the request was not run."""

    def __init__(self) -> None:
        super().__init__("the request's deadline passed while it waited in the queue")


class Timer(Protocol):
    """What `Scheduler.call_later` returns."""

    def cancel(self) -> None:
        """Makes sure that the callback is not called."""


class Scheduler(Protocol):
    """A clock with timers."""

    def now(self) -> float:
        """Seconds that only go forward."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Calls `callback` on this thread after `delay` seconds."""


class Runner(Protocol):
    """Runs work away from the event loop and calls back on it."""

    @property
    def instances(self) -> int:
        """How much work may run at the same time."""

    def start(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Runs `work`, which never raises, then calls `done` on the event loop's thread."""


Observe = Callable[[int, float], None]


class Batcher:
    """See the module's text. All methods belong to the event loop's thread."""

    def __init__(
        self,
        run: Run,
        runner: Runner,
        scheduler: Scheduler,
        *,
        batched: bool = True,
        max_size: int = 32,
        max_delay: float = 0.0,
        queue_rows: int = 512,
        queue_bytes: int = 256 << 20,
        timeout: float = 1.0,
        observe: Observe = lambda _rows, _seconds: None,
        soon: Callable[[Callable[[], None]], object] | None = None,
        costs: Costs | None = None,
        preferred: Sequence[int] = (),
        ragged: Ragged | None = None,
    ) -> None:
        """`soon` calls back when this tick's arrivals are all in; without it every arrival is looked at alone.

        `preferred`: sizes that the engine likes, such as 8, 16 and 32. A batch is cut to the largest of them that is
        full, and is worth sending at once when it has the smallest; what is due goes whatever its size.
        """
        self._run = run
        self._runner = runner
        self._scheduler = scheduler
        self._batched = batched
        self._max_size = max_size if batched else 1
        self._max_delay = max_delay if batched else 0.0
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._timeout = timeout
        self._level_seconds = timeout / _LEVELS_PER_TIMEOUT
        self._preferred = sorted({size for size in preferred if 0 < size < self._max_size} | {self._max_size})
        self._ragged = ragged
        self._observe = observe
        self._groups: dict[Hashable, deque[Ticket]] = {}
        self._group_rows: dict[Hashable, int] = {}
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._idle = runner.instances
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._last_arrival = -1e9
        self._gap = 1.0
        self._skips = 0
        self._next_skips = 1
        self._enough = 0
        self._mixed = False
        """True while something waits that does not go in the order of arrival or has a time-out of its own."""
        self._next_due = _NEVER
        """While mixed: nothing that waits is too late before this moment."""
        self._batch_seconds = 0.001
        self._soon = soon
        self._pump_due = False
        self._costs = costs or Costs()

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for an instance."""
        return self._waiting_rows

    @property
    def busy(self) -> int:
        """Batches that are running."""
        return self._runner.instances - self._idle

    def submit(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        outputs: tuple[str, ...],
        done: Done,
        *,
        held: int = 0,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Ticket:
        """`put` for callers that have a function: `done` is called once with the answer or with an exception."""
        ticket = Call(inputs, rows, outputs, done)
        ticket.held, ticket.priority, ticket.deadline = held, priority, deadline
        self.put(ticket)
        return ticket

    def put(self, ticket: Ticket) -> None:
        """Queues a request; its `done` is called once. More rows than a batch holds are run in slices.

        `ticket.held` is raised to what its arrays take. Raises QueueFullError or TooManyRowsError.
        """
        now = ticket.enqueued = self._scheduler.now()
        rows = ticket.rows
        if rows > self._queue_rows:
            raise TooManyRowsError(
                f"{rows} rows in one request; at most {self._queue_rows} can wait: send them in parts"
            )
        inputs = ticket.inputs
        if len(inputs) == 1:
            (array,) = inputs.values()
            nbytes = array.nbytes
            ticket.key = array.shape[1:]
        else:
            nbytes = sum(array.nbytes for array in inputs.values())
            ticket.key = tuple(array.shape[1:] for array in inputs.values())
        if self._ragged is not None:
            ticket.key = self._ragged.key(inputs)
        if nbytes > ticket.held:
            ticket.held = nbytes
        if self._waiting_rows + rows > self._queue_rows or (
            self._waiting_rows and self._waiting_bytes + ticket.held > self._queue_bytes
        ):
            raise QueueFullError(self._retry_after())
        self._gap += _ARRIVALS_REMEMBERED * (min(now - self._last_arrival, 1.0) - self._gap)
        self._last_arrival = now
        if rows > self._max_size and self._batched:
            for part in sliced(ticket, self._max_size):
                part.enqueued = now
                self._enqueue(part)
        else:
            self._enqueue(ticket)
        self._pump_soon()

    def hold(self) -> None:
        """Only takes requests, and runs none of them, until `release`. For a batcher that is new."""
        self._idle = 0

    def release(self) -> None:
        """Runs what was held up, and everything from now on."""
        self._idle = self._runner.instances
        self._pump_soon()

    def refuse_if_full(self) -> None:
        """Raises QueueFullError when the queue cannot take a single row."""
        if self._waiting_rows >= self._queue_rows:
            raise QueueFullError(self._retry_after())

    def _retry_after(self) -> float:
        batches = -(-self._waiting_rows // self._max_size)
        return batches * self._batch_seconds / self._runner.instances

    def _enqueue(self, ticket: Ticket) -> None:
        group = self._groups.get(ticket.key)
        if group is None:
            group = self._groups[ticket.key] = deque()
            self._group_rows[ticket.key] = 0
        self._group_rows[ticket.key] += ticket.rows
        self._waiting_rows += ticket.rows
        self._waiting_bytes += ticket.held
        deadline = ticket.deadline
        if not self._mixed:
            if not ticket.priority and (deadline is None or deadline >= ticket.enqueued + self._timeout):
                group.append(ticket)
                return
            self._mix()
        self._next_due = min(self._next_due, self._due(ticket))
        rank = ticket.rank = ticket.enqueued + ticket.priority * self._level_seconds
        if not group or group[-1].rank <= rank:
            group.append(ticket)
        else:
            group.insert(bisect_right(group, rank, key=_rank), ticket)

    def _mix(self) -> None:
        """What waits came in order and has no deadline that matters; what comes may be different."""
        self._mixed = True
        self._next_due = _NEVER
        for group in self._groups.values():
            for ticket in group:
                ticket.rank = ticket.enqueued
                self._next_due = min(self._next_due, self._due(ticket))

    def _due(self, ticket: Ticket) -> float:
        """When it is too late to run `ticket`."""
        late = ticket.enqueued + self._timeout
        return late if ticket.deadline is None else min(late, ticket.deadline)

    def _pump_soon(self) -> None:
        if self._soon is None:
            self._pump()
        elif not self._pump_due:
            self._pump_due = True
            self._soon(self._on_tick)

    def _on_tick(self) -> None:
        self._pump_due = False
        self._pump()

    def _pump(self) -> None:
        """Sends what may be sent, then sets the timer for what must happen next."""
        expired: list[Ticket] = []
        answered: list[Ticket] = []
        held = 0.0
        while self._idle and self._groups:
            if held >= self._costs.budget:
                # The loop has other things to do as well: the rest goes in the next tick.
                self._pump_soon()
                break
            key = self._next_group()
            if key is None:
                break
            batch, rows = self._take(key, expired)
            if not batch:
                continue
            if self._soon is not None and self._costs.inline(rows):
                held += self._send_inline(batch, rows)
                answered += batch
            else:
                self._send(batch, rows)
        self._set_timer()
        # Callers may submit again from their callback, so they are told last.
        _tell(answered)
        if expired:
            self._too_late(expired)

    def _first(self) -> Hashable:
        """The group whose head goes first."""
        if len(self._groups) == 1:
            return next(iter(self._groups))
        heads = [group[0] for group in self._groups.values()]
        return min(heads, key=_rank if self._mixed else _enqueued).key

    def _oldest(self) -> Ticket:
        if self._mixed:
            return min((ticket for group in self._groups.values() for ticket in group), key=_enqueued)
        if len(self._groups) == 1:
            (group,) = self._groups.values()
            return group[0]
        return min((group[0] for group in self._groups.values()), key=_enqueued)

    def _next_group(self) -> Hashable | None:
        """The group to send from now, or None when waiting for more is better."""
        if self._max_delay <= 0.0 or self._gap >= self._max_delay:
            return self._first()
        oldest = self._oldest()
        now = self._scheduler.now()
        if now - oldest.enqueued >= self._max_delay - _TIMER_SLACK:
            if len(self._groups) == 1 and now - self._last_arrival >= self._max_delay / 2:
                self._enough = len(self._groups[oldest.key])
                self._skips = self._next_skips
                self._next_skips = min(2 * self._next_skips, _MAX_SKIPS)
            return oldest.key
        if self._skips and len(self._groups[oldest.key]) >= self._enough:
            self._skips -= 1
            return oldest.key
        return next((key for key, rows in self._group_rows.items() if rows >= self._preferred[0]), None)

    def _drop(self, key: Hashable, group: deque[Ticket]) -> Ticket:
        ticket = group.popleft()
        self._group_rows[key] -= ticket.rows
        self._waiting_rows -= ticket.rows
        self._waiting_bytes -= ticket.held
        self._dropped(key, group)
        return ticket

    def _dropped(self, key: Hashable, group: deque[Ticket]) -> None:
        if not group:
            del self._groups[key], self._group_rows[key]
            if not self._groups:
                self._mixed = False

    def _take(self, key: Hashable, expired: list[Ticket]) -> tuple[list[Ticket], int]:
        batch: list[Ticket] = []
        rows = 0
        group = self._groups[key]
        now = self._scheduler.now()
        overdue = now - self._timeout
        size = self._max_size
        if len(self._preferred) > 1:
            waiting = self._group_rows[key]
            size = next((size for size in reversed(self._preferred) if size <= waiting), size)
        while group and (not batch or (self._batched and rows + group[0].rows <= size)):
            ticket = self._drop(key, group)
            if ticket.cancelled:
                continue
            if ticket.enqueued <= overdue or (ticket.deadline is not None and ticket.deadline <= now):
                expired.append(ticket)
                continue
            batch.append(ticket)
            rows += ticket.rows
        return batch, rows

    def _send_inline(self, batch: list[Ticket], rows: int) -> float:
        if len(batch) > self._enough:
            self._skips, self._next_skips = 0, 1
        self._costs.begins_inline(rows)
        started = self._scheduler.now()
        self._run_batch(batch)
        finished = self._scheduler.now()
        self._costs.ran_inline(rows, finished - started)
        self._ran(batch, rows, started, finished)
        return finished - started

    def _run_batch(self, batch: list[Ticket]) -> None:
        if self._ragged is None:
            run_batch(self._run, batch)
        else:
            self._ragged.run_batch(self._run, batch)

    def _ran(self, batch: list[Ticket], rows: int, started: float, finished: float) -> None:
        for ticket in batch:
            ticket.started = started
            ticket.finished = finished
        self._batch_seconds += 0.1 * (finished - started - self._batch_seconds)
        self._observe(rows, finished - started)

    def _send(self, batch: list[Ticket], rows: int) -> None:
        self._idle -= 1
        if len(batch) > self._enough:
            self._skips, self._next_skips = 0, 1
        scheduler = self._scheduler
        times = [0.0, 0.0]

        def work() -> None:
            times[0] = scheduler.now()
            self._run_batch(batch)
            times[1] = scheduler.now()

        def done() -> None:
            self._idle += 1
            self._costs.ran_elsewhere(rows)
            self._ran(batch, rows, times[0], times[1])
            # The next batch goes out first: the instance works while answers are being encoded here.
            self._pump()
            _tell(batch)

        self._runner.start(work, done)

    def _set_timer(self) -> None:
        if not self._groups:
            return
        delayed = self._idle and self._max_delay > 0.0
        if self._mixed:
            at = self._next_due
            if delayed:
                at = min(at, self._oldest().enqueued + self._max_delay)
        else:
            oldest = self._oldest().enqueued
            at = oldest + (min(self._max_delay, self._timeout) if delayed else self._timeout)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._scheduler.call_later(max(at - self._scheduler.now(), 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._scheduler.now() + _TIMER_SLACK
        overdue = now - self._timeout
        expired: list[Ticket] = []
        for key, group in list(self._groups.items()):
            if self._mixed:
                expired += self._weed(key, group, now)
            else:
                while group and (group[0].enqueued <= overdue or group[0].cancelled):
                    expired.append(self._drop(key, group))
        if self._mixed:
            waiting = (ticket for group in self._groups.values() for ticket in group)
            self._next_due = min(map(self._due, waiting), default=_NEVER)
        self._pump()
        self._too_late(expired)

    def _weed(self, key: Hashable, group: deque[Ticket], now: float) -> list[Ticket]:
        """Takes what is too late out of the middle of a group."""
        late = [ticket for ticket in group if ticket.cancelled or self._due(ticket) <= now]
        if late:
            kept = [ticket for ticket in group if not (ticket.cancelled or self._due(ticket) <= now)]
            group.clear()
            group.extend(kept)
            for ticket in late:
                self._group_rows[key] -= ticket.rows
                self._waiting_rows -= ticket.rows
                self._waiting_bytes -= ticket.held
            self._dropped(key, group)
        return late

    def _too_late(self, tickets: Sequence[Ticket]) -> None:
        now = self._scheduler.now() + _TIMER_SLACK
        for ticket in tickets:
            passed = ticket.deadline is not None and ticket.deadline <= now
            ticket.result = DeadlinePassedError() if passed else QueueTimeoutError()
        _tell(tickets)


def _rank(ticket: Ticket) -> float:
    return ticket.rank


def _enqueued(ticket: Ticket) -> float:
    return ticket.enqueued


def _tell(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        if not ticket.cancelled:
            ticket.done()
