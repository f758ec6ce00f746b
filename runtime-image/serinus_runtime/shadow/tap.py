"""A ring of the latest predictions, filled only while somebody reads it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from serinus_runtime.predictionlog import Prediction
from serinus_runtime.shadow.records import Page, Scoring, Told

IDLE_SECONDS = 10.0
"""After so long without a reader nothing is kept any more."""
PAGE = 64
"""Records of one page: they are made on the event loop, between requests."""
Make = Callable[[Prediction], Told]


class Tap:
    """At most `records` predictions and `size` bytes of their arrays. Not for several threads.

    `attach` is given what takes predictions when reading begins, and None when it has ended.
    """

    def __init__(
        self,
        revision: str,
        columns: Sequence[str],
        attach: Callable[[Callable[[Prediction], None] | None], None],
        scoring: Scoring | None = None,
        *,
        records: int = 4096,
        size: int = 8 << 20,
    ) -> None:
        self._revision = revision
        self._columns = tuple(columns)
        self._scoring = scoring
        self._attach = attach
        self._records = records
        self._size = size
        self._process = os.urandom(6).hex()
        self._ring: deque[tuple[Prediction, int]] = deque()
        self._held = 0
        self._next = 0
        self._until = 0.0
        self.open = False
        """Whether predictions are being kept."""

    def add(self, prediction: Prediction) -> None:
        """Keeps a prediction; the oldest make room for it."""
        size = prediction.nbytes()
        self._ring.append((prediction, size))
        self._next += 1
        self._held += size
        while len(self._ring) > self._records or (self._held > self._size and len(self._ring) > 1):
            self._held -= self._ring.popleft()[1]

    def read(self, process: str, after: int, make: Make, now: float) -> Page:
        """What came since the cursor `after` of `process`. A cursor that is not this process' own begins now.

        Args:
            make: what is told of a prediction.
            now: seconds on the monotonic clock; without another call for `IDLE_SECONDS` the tap closes.
        """
        self._until = now + IDLE_SECONDS
        if not self.open:
            self.open = True
            self._attach(self.add)
        first = self._next - len(self._ring)
        if process != self._process or not 0 <= after <= self._next:
            # Also what is still in the ring from another reader is told: its partner may be there as well.
            after = first
        lost = max(0, first - after)
        start = max(after, first) - first
        told = [make(prediction) for prediction, _ in islice(self._ring, start, start + PAGE)]
        following = first + start + len(told)
        more = following < self._next
        return Page(self._process, self._revision, following, lost, more, self._columns, self._scoring, told)

    def sweep(self, now: float) -> None:
        """Closes when nobody reads any more."""
        if self.open and now >= self._until:
            self.open = False
            self._attach(None)
            self._ring.clear()
            self._held = 0
