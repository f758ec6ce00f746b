"""A fair sample of bounded size that does not depend on the order in which things come."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

from serinus_runtime.shadow.records import ALL

T = TypeVar("T")


class BottomK(Generic[T]):
    """Keeps the `count` things with the smallest places (bottom-k sampling: E. Cohen and H. Kaplan, Summarizing data
    using bottom-k sketches, PODC 2007). With places that are hashes of ids, that is a fair sample."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[int, str, T]] = []
        self._ids: set[str] = set()

    def add(self, place: int, key: str, thing: T) -> None:
        """Keeps it, or not. A key that is there already changes nothing."""
        if key in self._ids:
            return
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, (-place, key, thing))
            self._ids.add(key)
        elif self._heap and (-place, key) > self._heap[0][:2]:
            self._ids.discard(heapq.heapreplace(self._heap, (-place, key, thing))[1])
            self._ids.add(key)

    @property
    def below(self) -> int:
        """Things with this place and above would not be kept."""
        return ALL if len(self._heap) < self._count else -self._heap[0][0] if self._heap else 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """In the order of their places."""
        return (thing for _, _, thing in sorted(self._heap, key=lambda entry: (-entry[0], entry[1])))
