"""What waits in the batcher: one ticket per request, and the slices of requests that are larger than a batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import EngineTimeoutError
from serinus_runtime.ingress.ratelimit import Bucket
from serinus_runtime.joined import Joined

Run = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]


class Ticket:
    """A request on its way through the batcher, which calls `done` once. Fronts inherit from it.

    Before it is submitted it needs `inputs` (rows along axis 0), `rows`, and `outputs`, the names that it wants.
    Times are seconds on the scheduler's clock.
    """

    def __init__(self, inputs: Mapping[str, Array], rows: int, outputs: tuple[str, ...]) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.key: Hashable = None
        """What only requests with the same may join: the shape of a row."""
        self.result: list[Array] | Exception | None = None
        """The arrays of `outputs` in their order, or why there are none. Known when `done` is called."""
        self.parts: list[Ticket] | None = None
        """The slices that are run in its place."""
        self.held = 0
        """Bytes of memory that it keeps while it waits."""
        self.priority = 0
        """Lower goes first, within limits: see batching."""
        self.rank = 0.0
        """The batcher's own: its place in the queue."""
        self.deadline: float | None = None
        """After this moment nobody wants the answer any more."""
        self.enqueued = 0.0
        self.started = 0.0
        """When its batch began; 0 when it was never run."""
        self.finished = 0.0
        self.cancelled = False
        self.client = ""
        """Who asks, by the name of its key; empty when keys are not asked for."""
        self.lines = b""
        """Header lines of the answer, whatever it is."""
        self.best = 1
        """The best priority that it may ask for."""
        self.bucket: Bucket | None = None
        """What its rows are charged to."""
        self.batch: Joined | None = None
        """What it was run with, where each request of that had one row and wanted the same outputs."""
        self.place = 0
        """Its row there."""

    def done(self) -> None:
        """`result` is there."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Forgets the caller: `done` is not called any more, and rows that have not been sent yet are not run."""
        self.cancelled = True
        if self.parts is not None:
            for part in self.parts:
                part.cancelled = True


class Answer:
    """What a callback gets: the outputs by name, and when (on the scheduler's clock) the work began and ended."""

    __slots__ = ("finished", "outputs", "started")

    def __init__(self, outputs: dict[str, Array], started: float, finished: float) -> None:
        self.outputs = outputs
        self.started = started
        self.finished = finished


Done = Callable[[Answer | Exception], None]


class Call(Ticket):
    """A ticket for callers that would rather give a function than inherit."""

    def __init__(self, inputs: Mapping[str, Array], rows: int, outputs: tuple[str, ...], done: Done) -> None:
        super().__init__(inputs, rows, outputs)
        self._tell = done

    def done(self) -> None:
        """Tells the caller."""
        result = self.result
        if isinstance(result, list):
            self._tell(Answer(dict(zip(self.outputs, result, strict=True)), self.started, self.finished))
        else:
            self._tell(result or RuntimeError("the worker gave no result"))


class _Slice(Ticket):
    def __init__(self, whole: Ticket, start: int, rows: int) -> None:
        inputs = {name: array[start : start + rows] for name, array in whole.inputs.items()}
        super().__init__(inputs, rows, whole.outputs)
        self._whole = whole
        self.key = whole.key
        self.held = whole.held * rows // whole.rows
        self.priority = whole.priority
        self.deadline = whole.deadline

    def done(self) -> None:
        whole = self._whole
        if whole.cancelled or whole.parts is None:
            return
        results = [part.result for part in whole.parts if isinstance(part.result, list)]
        if not isinstance(self.result, list):
            whole.cancel()
            whole.result = self.result
        elif len(results) < len(whole.parts):
            return
        else:
            whole.result = [
                np.concatenate([result[index] for result in results]) for index in range(len(whole.outputs))
            ]
            whole.started = min(part.started for part in whole.parts)
            whole.finished = self.finished
        whole.parts = None
        whole.done()


def sliced(whole: Ticket, size: int) -> list[Ticket]:
    """Tickets of at most `size` rows that together answer `whole`."""
    whole.parts = [_Slice(whole, start, min(size, whole.rows - start)) for start in range(0, whole.rows, size)]
    return whole.parts


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
        rows = 0
        for ticket in batch:
            rows += ticket.rows
        _check_rows(answers, rows)
        shared = Joined(names, answers) if rows == len(batch) else None
        at = 0
        for ticket in batch:
            end = at + ticket.rows
            if ticket.outputs == names:
                ticket.result = [answer[at:end] for answer in answers]
                ticket.batch, ticket.place = shared, at
            else:
                ticket.result = [answers[names.index(name)][at:end] for name in ticket.outputs]
            at = end
    except EngineTimeoutError as error:
        for ticket in batch:
            ticket.result = error
    except Exception:
        for ticket in batch:
            run_batch(run, [ticket])


def _check_rows(answers: Sequence[Array], rows: int) -> None:
    if any(answer.shape[:1] != (rows,) for answer in answers):
        raise ValueError(f"the model gave {[answer.shape for answer in answers]} for a batch of {rows} rows")
