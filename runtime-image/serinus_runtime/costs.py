"""What batches cost, and so which of them may run on the event loop."""

from __future__ import annotations

from collections.abc import Mapping

INLINE_SECONDS = 0.001
"""How long the event loop may be held by inference in one go, and what a batch may cost to run there at all."""


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
