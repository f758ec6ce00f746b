"""Joins requests into batches, bounds what waits, and gives every caller its own rows back.

The batcher lives on the event loop and is never locked; only `Runner` knows threads. Semantics are Triton's dynamic
batcher: a batch is sent when it is full, or when an instance is free and the oldest request has waited `max_delay`
(0: at once). All requests that the event loop reads in one tick are in before the batcher decides (`soon`), so they
go as one batch. What is cheap enough runs right there, on the loop (`Costs`); the rest goes to the runner.

With a delay, waiting is skipped where it would gain nothing: while requests come more rarely than the delay, and, ever
longer, after waits that nobody joined (a single client that sends when it has its answer).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import numpy as np

from serinus_runtime.datatypes import Array

_TIMER_SLACK = 0.0005
"""Seconds by which a timer may fire early: event loop timers have a resolution of a millisecond."""
_ARRIVALS_REMEMBERED = 0.2
"""Weight of the newest gap in the moving average of gaps between arrivals."""
INLINE_SECONDS = 0.001
"""How long the event loop may be held by inference in one go, and what a batch may cost to run there at all."""
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


class Costs:
    """What batches cost in seconds by their size, and so which of them may run on the event loop.

    It begins with what warm-up measured and follows what is seen later, since trees cost more on real inputs than on
    zeros. One measurement counts as at most four times the estimate: the process may have been off its core.
    """

    def __init__(self, measured: Mapping[int, float] | None = None, budget: float = INLINE_SECONDS) -> None:
        self.budget = budget
        self._seconds: list[float] = []
        for rows, seconds in sorted((measured or {}).items()):
            self._seconds += [seconds] * (rows.bit_length() - len(self._seconds))
        self._warm = tuple(self._seconds)

    def inline(self, rows: int) -> bool:
        """True when `rows` rows can run on the event loop without being felt."""
        if not self._seconds:
            return False
        size = (rows - 1).bit_length()
        return size < len(self._seconds) and self._seconds[size] <= self.budget

    def ran_inline(self, rows: int, seconds: float) -> None:
        """A batch took `seconds` on the loop."""
        size = (rows - 1).bit_length()
        known = self._seconds[size]
        self._seconds[size] = known + 0.05 * (min(seconds, 4 * known) - known)

    def ran_elsewhere(self, rows: int) -> None:
        """A batch ran on the runner: an estimate that a bad hour has driven up comes down again."""
        size = (rows - 1).bit_length()
        if size < len(self._seconds):
            self._seconds[size] += 0.02 * (self._warm[size] - self._seconds[size])


class Answer:
    """What a caller gets: the outputs by name, and when (on the scheduler's clock) the work began and ended."""

    __slots__ = ("finished", "outputs", "started")

    def __init__(self, outputs: dict[str, Array], started: float, finished: float) -> None:
        self.outputs = outputs
        self.started = started
        self.finished = finished


Done = Callable[[Answer | Exception], None]
Run = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]
Observe = Callable[[int, float], None]


class Ticket:
    """A request in the batcher. `cancel` when the caller has gone: rows that have not been sent yet are not run."""

    __slots__ = ("cancelled", "done", "enqueued", "inputs", "key", "nbytes", "outputs", "result", "rows")

    def __init__(
        self, inputs: Mapping[str, Array], rows: int, outputs: tuple[str, ...], key: Hashable, nbytes: int, done: Done
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.key = key
        self.nbytes = nbytes
        self.done = done
        self.enqueued = 0.0
        self.cancelled = False
        self.result: list[Array] | Exception | None = None

    def cancel(self) -> None:
        """Forgets the caller: `done` is not called any more."""
        self.cancelled = True


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
    ) -> None:
        """`soon` calls back when this tick's arrivals are all in; without it every arrival is looked at alone."""
        self._run = run
        self._runner = runner
        self._scheduler = scheduler
        self._batched = batched
        self._max_size = max_size if batched else 1
        self._max_delay = max_delay if batched else 0.0
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._timeout = timeout
        self._observe = observe
        self._groups: dict[Hashable, deque[Ticket]] = {}
        self._group_rows: dict[Hashable, int] = {}
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._idle = runner.instances
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._last_arrival = -1e9
        self._gap = 1e9
        self._skips = 0
        self._next_skips = 1
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
        self, inputs: Mapping[str, Array], rows: int, outputs: tuple[str, ...], done: Done, *, held: int = 0
    ) -> Ticket:
        """Queues a request of `rows` rows; `done` is called once with its answer or with an exception.

        `held`: bytes of memory that the request keeps while it waits, where that is more than its arrays say.
        More rows than a batch holds are run in slices. Raises QueueFullError or TooManyRowsError.
        """
        if rows > self._queue_rows:
            raise TooManyRowsError(
                f"{rows} rows in one request; at most {self._queue_rows} can wait: send them in parts"
            )
        if len(inputs) == 1:
            (array,) = inputs.values()
            nbytes = array.nbytes
            key: Hashable = array.shape[1:]
        else:
            nbytes = sum(array.nbytes for array in inputs.values())
            key = tuple(array.shape[1:] for array in inputs.values())
        if held > nbytes:
            nbytes = held
        if self._waiting_rows + rows > self._queue_rows or (
            self._waiting_rows and self._waiting_bytes + nbytes > self._queue_bytes
        ):
            raise QueueFullError(self._retry_after())
        ticket = Ticket(inputs, rows, outputs, key, nbytes, done)
        now = self._scheduler.now()
        self._gap += _ARRIVALS_REMEMBERED * (min(now - self._last_arrival, 1.0) - self._gap)
        self._last_arrival = now
        if rows > self._max_size and self._batched:
            for part in self._slices(ticket):
                self._enqueue(part, now)
        else:
            self._enqueue(ticket, now)
        self._pump_soon()
        return ticket

    def refuse_if_full(self) -> None:
        """Raises QueueFullError when the queue cannot take a single row."""
        if self._waiting_rows >= self._queue_rows:
            raise QueueFullError(self._retry_after())

    def _retry_after(self) -> float:
        batches = -(-self._waiting_rows // self._max_size)
        return batches * self._batch_seconds / self._runner.instances

    def _slices(self, whole: Ticket) -> list[Ticket]:
        starts = range(0, whole.rows, self._max_size)
        parts: list[dict[str, Array] | None] = [None] * len(starts)
        first = [float("inf")]

        def collector(index: int) -> Done:
            def done(answer: Answer | Exception) -> None:
                if whole.cancelled:
                    return
                if isinstance(answer, Exception):
                    whole.cancelled = True
                    whole.done(answer)
                    return
                parts[index] = answer.outputs
                first[0] = min(first[0], answer.started)
                ready = [part for part in parts if part is not None]
                if len(ready) == len(parts):
                    joined: dict[str, Array] = {
                        name: np.concatenate([part[name] for part in ready]) for name in whole.outputs
                    }
                    whole.done(Answer(joined, first[0], answer.finished))

            return done

        return [
            _Slice(whole, {name: array[at : at + self._max_size] for name, array in whole.inputs.items()},
                   min(self._max_size, whole.rows - at), collector(index))
            for index, at in enumerate(starts)
        ]  # fmt: skip

    def _enqueue(self, ticket: Ticket, now: float) -> None:
        ticket.enqueued = now
        group = self._groups.get(ticket.key)
        if group is None:
            group = self._groups[ticket.key] = deque()
            self._group_rows[ticket.key] = 0
        group.append(ticket)
        self._group_rows[ticket.key] += ticket.rows
        self._waiting_rows += ticket.rows
        self._waiting_bytes += ticket.nbytes

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
        answered: list[tuple[list[Ticket], float, float]] = []
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
                started, finished = self._send_inline(batch, rows)
                answered.append((batch, started, finished))
                held += finished - started
            else:
                self._send(batch, rows)
        self._set_timer()
        for batch, started, finished in answered:
            _tell(batch, started, finished)
        # Callers may submit again from their callback, so they are told last.
        for ticket in expired:
            _finish(ticket, QueueTimeoutError())

    def _oldest(self) -> Ticket:
        if len(self._groups) == 1:
            (group,) = self._groups.values()
            return group[0]
        return min((group[0] for group in self._groups.values()), key=lambda ticket: ticket.enqueued)

    def _next_group(self) -> Hashable | None:
        """The group to send from now, or None when waiting for more is better."""
        if self._max_delay <= 0.0 and len(self._groups) == 1:
            return next(iter(self._groups))
        oldest = self._oldest()
        if self._max_delay <= 0.0 or self._gap >= self._max_delay:
            return oldest.key
        if self._scheduler.now() - oldest.enqueued >= self._max_delay - _TIMER_SLACK:
            if len(self._groups) == 1 and len(self._groups[oldest.key]) == 1:
                self._skips = self._next_skips
                self._next_skips = min(2 * self._next_skips, _MAX_SKIPS)
            return oldest.key
        if self._skips:
            self._skips -= 1
            return oldest.key
        return next((key for key, rows in self._group_rows.items() if rows >= self._max_size), None)

    def _drop(self, key: Hashable, group: deque[Ticket]) -> Ticket:
        ticket = group.popleft()
        self._group_rows[key] -= ticket.rows
        self._waiting_rows -= ticket.rows
        self._waiting_bytes -= ticket.nbytes
        if not group:
            del self._groups[key], self._group_rows[key]
        return ticket

    def _take(self, key: Hashable, expired: list[Ticket]) -> tuple[list[Ticket], int]:
        batch: list[Ticket] = []
        rows = 0
        group = self._groups[key]
        overdue = self._scheduler.now() - self._timeout
        while group and (not batch or (self._batched and rows + group[0].rows <= self._max_size)):
            ticket = self._drop(key, group)
            if ticket.cancelled:
                continue
            if ticket.enqueued <= overdue:
                expired.append(ticket)
                continue
            batch.append(ticket)
            rows += ticket.rows
        return batch, rows

    def _send_inline(self, batch: list[Ticket], rows: int) -> tuple[float, float]:
        if len(batch) > 1:
            self._skips, self._next_skips = 0, 1
        started = self._scheduler.now()
        run_batch(self._run, batch)
        finished = self._scheduler.now()
        self._costs.ran_inline(rows, finished - started)
        self._ran(rows, finished - started)
        return started, finished

    def _ran(self, rows: int, seconds: float) -> None:
        self._batch_seconds += 0.1 * (seconds - self._batch_seconds)
        self._observe(rows, seconds)

    def _send(self, batch: list[Ticket], rows: int) -> None:
        self._idle -= 1
        if len(batch) > 1:
            self._skips, self._next_skips = 0, 1
        scheduler = self._scheduler
        times = [0.0, 0.0]

        def work() -> None:
            times[0] = scheduler.now()
            run_batch(self._run, batch)
            times[1] = scheduler.now()

        def done() -> None:
            self._idle += 1
            self._costs.ran_elsewhere(rows)
            self._ran(rows, times[1] - times[0])
            # The next batch goes out first: the instance works while answers are being encoded here.
            self._pump()
            _tell(batch, times[0], times[1])

        self._runner.start(work, done)

    def _set_timer(self) -> None:
        if not self._groups:
            return
        oldest = self._oldest().enqueued
        at = oldest + self._timeout
        if self._idle:
            at = min(at, oldest + self._max_delay)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._scheduler.call_later(max(at - self._scheduler.now(), 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        overdue = self._scheduler.now() - self._timeout + _TIMER_SLACK
        expired: list[Ticket] = []
        for key, group in list(self._groups.items()):
            while group and (group[0].enqueued <= overdue or group[0].cancelled):
                expired.append(self._drop(key, group))
        self._pump()
        for ticket in expired:
            _finish(ticket, QueueTimeoutError())


class _Slice(Ticket):
    """A part of a request that is larger than a batch; it is dropped when the whole is."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Ticket, inputs: Mapping[str, Array], rows: int, done: Done) -> None:
        self._whole = whole
        super().__init__(inputs, rows, whole.outputs, whole.key, whole.nbytes * rows // whole.rows, done)

    @property
    def cancelled(self) -> bool:
        return self._whole.cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        pass


def run_batch(run: Run, batch: Sequence[Ticket]) -> None:
    """Runs the tickets as one batch and gives each its rows, or an exception.

    When a joined batch fails, each request is run alone: one poisonous request must not fail its neighbours.
    """
    if len(batch) == 1:
        ticket = batch[0]
        try:
            ticket.result = run(ticket.inputs, ticket.outputs)
        except Exception as error:
            ticket.result = error
        return
    try:
        names = batch[0].outputs
        if any(ticket.outputs != names for ticket in batch):
            names = tuple(dict.fromkeys(name for ticket in batch for name in ticket.outputs))
        joined: dict[str, Array] = {
            name: np.concatenate([ticket.inputs[name] for ticket in batch]) for name in batch[0].inputs
        }
        answers = run(joined, names)
        rows = sum(ticket.rows for ticket in batch)
        _check_rows(answers, rows)
        at = 0
        for ticket in batch:
            part = slice(at, at + ticket.rows)
            if ticket.outputs == names:
                ticket.result = [answer[part] for answer in answers]
            else:
                ticket.result = [answers[names.index(name)][part] for name in ticket.outputs]
            at += ticket.rows
    except Exception:
        for ticket in batch:
            run_batch(run, [ticket])


def _check_rows(answers: Sequence[Array], rows: int) -> None:
    if any(answer.shape[:1] != (rows,) for answer in answers):
        raise ValueError(f"the model gave {[answer.shape for answer in answers]} for a batch of {rows} rows")


def _tell(batch: Sequence[Ticket], started: float, finished: float) -> None:
    """Gives every caller its result."""
    for ticket in batch:
        result = ticket.result
        ticket.result = None
        if isinstance(result, list):
            _finish(ticket, Answer(dict(zip(ticket.outputs, result, strict=True)), started, finished))
        else:
            _finish(ticket, result if result is not None else RuntimeError("the worker gave no result"))


def _finish(ticket: Ticket, answer: Answer | Exception) -> None:
    if not ticket.cancelled:
        ticket.done(answer)
