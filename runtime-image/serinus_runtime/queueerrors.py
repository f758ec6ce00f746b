"""Why the batcher does not run a request."""

from __future__ import annotations


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
