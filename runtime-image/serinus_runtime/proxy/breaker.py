"""A circuit breaker, as M. Nygard describes it in "Release It!": closed, open, half-open. It knows no clock."""

from __future__ import annotations

from enum import Enum


class Circuit(Enum):
    """Where the breaker stands."""

    CLOSED = "closed"
    """Everything passes."""
    OPEN = "open"
    """Nothing passes until the pause is over."""
    HALF_OPEN = "half_open"
    """One request at a time passes, and its outcome decides."""


class Breaker:
    """Keeps callers away from something that does not answer. Times are seconds of one clock that only goes forward.

    It opens after `failures` failures in a row, for `pause` seconds, then lets one request through at a time. A success
    closes it; a failure opens it again for twice as long, up to `longest_pause`. Every request that `admit` lets
    through is told of by exactly one of `succeeded`, `failed` and `gave_up`, with the number that `admit` gave; a probe
    that is not told of within `patience` seconds no longer holds up the next.
    """

    def __init__(
        self, *, failures: int = 5, pause: float = 1.0, longest_pause: float = 30.0, patience: float = 60.0
    ) -> None:
        self._limit = failures
        self._first_pause = pause
        self._longest_pause = longest_pause
        self._patience = patience
        self._pause = pause
        self._failures = 0
        self._state = Circuit.CLOSED
        self._until = 0.0
        """Open: when the pause ends. Half-open with a probe under way: when the next may go."""
        self._era = 0
        """Grows whenever the state changes and with every probe: outcomes of an earlier era say nothing."""
        self.openings = 0
        """How often it has opened."""

    @property
    def state(self) -> Circuit:
        """Where it stands; an open breaker whose pause is over stays open until somebody asks."""
        return self._state

    def admit(self, now: float) -> int | None:
        """A number for the request, to be given back with its outcome; None: it must not be sent."""
        if self._state is Circuit.CLOSED:
            return self._era
        if now < self._until:
            return None
        self._state = Circuit.HALF_OPEN
        self._until = now + self._patience
        self._era += 1
        return self._era

    def retry_after(self, now: float) -> float:
        """Seconds until it is worth asking again; 0 when it is now."""
        if self._state is Circuit.CLOSED:
            return 0.0
        if self._state is Circuit.HALF_OPEN:
            return min(max(self._until - now, 0.0), self._first_pause)
        return max(self._until - now, 0.0)

    def succeeded(self, number: int) -> None:
        """The request was answered, whatever the answer says."""
        if number != self._era:
            return
        self._failures = 0
        if self._state is not Circuit.CLOSED:
            self._state = Circuit.CLOSED
            self._pause = self._first_pause
            self._era += 1

    def failed(self, number: int, now: float) -> None:
        """The request could not be sent, or was not answered in time."""
        if number != self._era:
            return
        if self._state is Circuit.HALF_OPEN:
            self._pause = min(2 * self._pause, self._longest_pause)
            self._open(now)
            return
        self._failures += 1
        if self._failures >= self._limit:
            self._open(now)

    def gave_up(self, number: int) -> None:
        """The request ended for a reason of its own (the caller has gone): the next one may probe at once."""
        if number == self._era and self._state is Circuit.HALF_OPEN:
            self._until = 0.0

    def tell(self, number: int, good: bool | None, now: float) -> None:
        """How the request with this number ended: answered, not answered, or (None) given up."""
        if good is None:
            self.gave_up(number)
        elif good:
            self.succeeded(number)
        else:
            self.failed(number, now)

    def _open(self, now: float) -> None:
        self._state = Circuit.OPEN
        self._until = now + self._pause
        self._failures = 0
        self._era += 1
        self.openings += 1
