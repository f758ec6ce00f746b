"""What the batcher needs of its surroundings: a clock with timers, and threads to run batches on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


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
