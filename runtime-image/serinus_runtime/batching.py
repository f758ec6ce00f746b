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

from collections.abc import Callable, Mapping, Sequence

from serinus_runtime.costs import Costs
from serinus_runtime.datatypes import Array
from serinus_runtime.queueerrors import DeadlinePassedError, QueueFullError, QueueTimeoutError, TooManyRowsError
from serinus_runtime.ragged import Ragged
from serinus_runtime.scheduling import Runner, Scheduler, Timer
from serinus_runtime.tickets import Answer, Call, Done, Run, Ticket, run_batch, sliced
from serinus_runtime.waiting import Group, Waiting

__all__ = [
    "Answer",
    "Batcher",
    "DeadlinePassedError",
    "QueueFullError",
    "QueueTimeoutError",
    "Ticket",
    "TooManyRowsError",
]

_TIMER_SLACK = 0.0005
"""Seconds by which a timer may fire early: event loop timers have a resolution of a millisecond."""
_ARRIVALS_REMEMBERED = 0.2
"""Weight of the newest gap in the moving average of gaps between arrivals."""
_MAX_SKIPS = 256
"""After waits in vain, at most so many requests are sent without waiting before it is tried again."""

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
        self._preferred = sorted({size for size in preferred if 0 < size < self._max_size} | {self._max_size})
        self._ragged = ragged
        self._observe = observe
        self._waiting = Waiting(timeout)
        self._idle = runner.instances
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._last_arrival = -1e9
        self._gap = 1.0
        self._skips = 0
        self._next_skips = 1
        self._enough = 0
        self._batch_seconds = 0.001
        self._soon = soon
        self._pump_due = False
        self._costs = costs or Costs()

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for an instance."""
        return self._waiting.rows

    @property
    def waiting_bytes(self) -> int:
        """Bytes of memory that requests hold while they wait."""
        return self._waiting.nbytes

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
        waiting = self._waiting
        if waiting.rows + rows > self._queue_rows or (
            waiting.rows and waiting.nbytes + ticket.held > self._queue_bytes
        ):
            raise QueueFullError(self._retry_after())
        self._gap += _ARRIVALS_REMEMBERED * (min(now - self._last_arrival, 1.0) - self._gap)
        self._last_arrival = now
        if rows > self._max_size and self._batched:
            for part in sliced(ticket, self._max_size):
                part.enqueued = now
                waiting.add(part)
        else:
            waiting.add(ticket)
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
        if self._waiting.rows >= self._queue_rows:
            raise QueueFullError(self._retry_after())

    def _retry_after(self) -> float:
        batches = -(-self._waiting.rows // self._max_size)
        return batches * self._batch_seconds / self._runner.instances

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
        while self._idle and self._waiting.groups:
            if held >= self._costs.budget:
                # The loop has other things to do as well: the rest goes in the next tick.
                self._pump_soon()
                break
            group = self._next_group()
            if group is None:
                break
            batch, rows = self._waiting.take(group, self._size(group), self._scheduler.now(), expired)
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

    def _next_group(self) -> Group | None:
        """The group to send from now, or None when waiting for more is better."""
        waiting = self._waiting
        if self._max_delay <= 0.0 or self._gap >= self._max_delay:
            return waiting.first()
        oldest = waiting.oldest()
        group = waiting.groups[oldest.key]
        now = self._scheduler.now()
        if now - oldest.enqueued >= self._max_delay - _TIMER_SLACK:
            if len(waiting.groups) == 1 and now - self._last_arrival >= self._max_delay / 2:
                self._enough = len(group.tickets)
                self._skips = self._next_skips
                self._next_skips = min(2 * self._next_skips, _MAX_SKIPS)
            return group
        if self._skips and len(group.tickets) >= self._enough:
            self._skips -= 1
            return group
        return next((each for each in waiting.groups.values() if each.rows >= self._preferred[0]), None)

    def _size(self, group: Group) -> int:
        """How many rows a batch of `group` should have."""
        if len(self._preferred) == 1:
            return self._max_size
        return next((size for size in reversed(self._preferred) if size <= group.rows), self._max_size)

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
        waiting = self._waiting
        if not waiting.groups:
            return
        delayed = self._idle and self._max_delay > 0.0
        if waiting.mixed:
            at = waiting.next_due
            if delayed:
                at = min(at, waiting.oldest().enqueued + self._max_delay)
        else:
            at = waiting.oldest().enqueued + (min(self._max_delay, waiting.timeout) if delayed else waiting.timeout)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._scheduler.call_later(max(at - self._scheduler.now(), 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        expired = self._waiting.weed(self._scheduler.now() + _TIMER_SLACK)
        self._pump()
        self._too_late(expired)

    def _too_late(self, tickets: Sequence[Ticket]) -> None:
        now = self._scheduler.now() + _TIMER_SLACK
        for ticket in tickets:
            passed = ticket.deadline is not None and ticket.deadline <= now
            ticket.result = DeadlinePassedError() if passed else QueueTimeoutError()
        _tell(tickets)


def _tell(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        if not ticket.cancelled:
            ticket.done()
