"""Pairs of records with the same request id. Pure: the time is an argument."""

from __future__ import annotations

import enum

from serinus_runtime.shadow.records import Record


class Side(enum.Enum):
    """Whose record it is."""

    LIVE = "live"
    CANDIDATE = "candidate"


REASONS = ("live_only", "candidate_only", "duplicate", "evicted", "lost")
"""Why a record has no partner: the request was not mirrored, or its mirror did not arrive in time; the candidate
answered a request that no live pod told of; the id came again (a retry of the gateway's); too many waited; the ring of
a pod was overrun before it was read."""


class Pairing:
    """Waits `window` seconds for the partner of a record; at most `records` of them and `size` bytes wait.

    Each record that is added is, at last, half of one pair or counted once in `unpaired`.
    """

    def __init__(self, window: float = 30.0, records: int = 100_000, size: int = 128 << 20) -> None:
        self._window = window
        self._records = records
        self._size = size
        self._waiting: dict[str, tuple[Side, Record, float]] = {}
        self._joined: dict[str, float] = {}
        """Ids of the pairs of the last window, the oldest first."""
        self._held = 0
        self.pairs = 0
        self.unpaired = dict.fromkeys(REASONS, 0)

    def __len__(self) -> int:
        """Records that wait."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return self._held

    def add(self, side: Side, record: Record, now: float) -> tuple[Record, Record] | None:
        """The pair (live, candidate) that `record` completes, if it does. `now` only goes forward."""
        key = record.id
        if key in self._joined:
            self.unpaired["duplicate"] += 1
            return None
        known = self._waiting.get(key)
        if known is None:
            self._waiting[key] = (side, record, now)
            self._held += record.size
            while len(self._waiting) > self._records or (self._held > self._size and len(self._waiting) > 1):
                self._drop("evicted")
            return None
        if known[0] is side:
            self.unpaired["duplicate"] += 1
            return None
        del self._waiting[key]
        self._held -= known[1].size
        self.pairs += 1
        self._joined[key] = now
        if len(self._joined) > self._records:
            del self._joined[next(iter(self._joined))]
        return (known[1], record) if known[0] is Side.LIVE else (record, known[1])

    def expire(self, now: float) -> None:
        """Gives up those that have waited too long."""
        while self._waiting:
            side, _, since = next(iter(self._waiting.values()))
            if now - since < self._window:
                break
            self._drop(f"{side.value}_only")
        while self._joined and now - next(iter(self._joined.values())) >= self._window:
            del self._joined[next(iter(self._joined))]

    def lost(self, count: int) -> None:
        """Records that a pod no longer had when it was asked."""
        self.unpaired["lost"] += count

    def _drop(self, reason: str) -> None:
        key = next(iter(self._waiting))
        self._held -= self._waiting.pop(key)[1].size
        self.unpaired[reason] += 1
