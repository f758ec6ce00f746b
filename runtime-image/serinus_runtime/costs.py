"""What batches cost, and so which of them may run on the event loop."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping

INLINE_SECONDS = 0.001
"""How long the event loop may be held by inference in one go, and what a batch may cost to run there at all."""
_DOUBTED = 20
"""After a dear measurement so many cheap ones of the same size are looked at closely before it is forgotten."""
_WHO: int | None = getattr(resource, "RUSAGE_THREAD", None)

Usage = Callable[[], tuple[int, float]]


def thread_usage() -> tuple[int, float]:
    """Of this thread so far: how often it lost its core while it had work to do, and its CPU seconds.

    Where the system does not count the former it is always 0. Two system calls, about 1.5 us.
    """
    switches = resource.getrusage(_WHO).ru_nivcsw if _WHO is not None else 0
    return switches, time.thread_time()


class Meter:
    """Tells what a batch takes from what it waits for because others use its core as well.

    Wall time counts, since an engine may wait for threads of its own. Only when the thread lost its core between
    `begin` and `end` it says nothing: CPU time is what the batch took at least. A core that a hypervisor gives to
    others meanwhile shows in neither.
    """

    def __init__(self, usage: Usage = thread_usage) -> None:
        self._usage = usage
        self._switches = 0
        self._cpu = 0.0
        self.disturbed = False
        """What `end` returned last is the least that the batch took, and not what it took."""

    def begin(self) -> None:
        """A batch begins on this thread."""
        self._switches, self._cpu = self._usage()

    def end(self, seconds: float) -> float:
        """What the batch that took `seconds` on the clock took of its own."""
        switches, cpu = self._usage()
        self.disturbed = switches != self._switches
        return cpu - self._cpu if self.disturbed else seconds


class Costs:
    """What batches cost in seconds by their size, and so which of them may run on the event loop.

    It begins with what warm-up measured and follows what is seen later, since trees cost more on real inputs than on
    zeros. One measurement counts as at most four times the estimate.

    A batch that held the loop for too long may have done so because the machine is crowded: running it elsewhere would
    not help then. So such a measurement does not count, but the next ones of that size are made with `usage`, which
    costs system calls, and those do.
    """

    def __init__(
        self,
        measured: Mapping[int, float] | None = None,
        budget: float = INLINE_SECONDS,
        usage: Usage = thread_usage,
    ) -> None:
        self.budget = budget
        self._seconds: list[float] = []
        for rows, seconds in sorted((measured or {}).items()):
            self._seconds += [seconds] * (rows.bit_length() - len(self._seconds))
        self._warm = tuple(self._seconds)
        self._meter = Meter(usage)
        self._metered = False
        self._doubts: dict[int, int] = {}
        """Sizes that are looked at closely, and for how many more cheap batches."""

    def inline(self, rows: int) -> bool:
        """True when `rows` rows can run on the event loop without being felt."""
        if not self._seconds:
            return False
        size = (rows - 1).bit_length()
        return size < len(self._seconds) and self._seconds[size] <= self.budget

    def begins_inline(self, rows: int) -> None:
        """A batch is about to run on the loop."""
        if self._doubts and (rows - 1).bit_length() in self._doubts:
            self._metered = True
            self._meter.begin()

    def ran_inline(self, rows: int, seconds: float) -> None:
        """The batch took `seconds` on the loop."""
        size = (rows - 1).bit_length()
        if self._metered:
            self._metered = False
            seconds = self._meter.end(seconds)
            if self._meter.disturbed and seconds <= self.budget:
                return
            self._look(size, seconds)
        elif seconds > self.budget:
            self._doubts[size] = _DOUBTED
            return
        known = self._seconds[size]
        self._seconds[size] = known + 0.05 * (min(seconds, 4 * known) - known)

    def _look(self, size: int, seconds: float) -> None:
        left = _DOUBTED if seconds > self.budget else self._doubts[size] - 1
        if left:
            self._doubts[size] = left
        else:
            del self._doubts[size]

    def ran_elsewhere(self, rows: int) -> None:
        """A batch ran on the runner: an estimate that a bad hour has driven up comes down again."""
        size = (rows - 1).bit_length()
        if size < len(self._seconds):
            self._seconds[size] += 0.02 * (self._warm[size] - self._seconds[size])
