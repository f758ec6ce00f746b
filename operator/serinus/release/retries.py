"""When something outside is tried again: webhooks, messages to people, smoke tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from serinus.release.draft import Draft


@dataclass(frozen=True)
class Retries:
    """Pauses that grow by a factor with each try."""

    first: float
    """Seconds after the first try."""
    factor: float
    longest: float
    """Seconds of the longest pause."""
    most: int | None = None
    """Tries until one gives up; None: something else ends it."""

    def pause(self, tried: int) -> float:
        """Seconds before the next try, after `tried` of them: 1 or more, and no end where a webhook holds a release."""
        seconds = self.first
        for _ in range(tried - 1):
            if seconds >= self.longest:
                break
            seconds *= self.factor
        return min(seconds, self.longest)

    def spent(self, tried: int) -> bool:
        """Whether `tried` tries were all."""
        return self.most is not None and tried >= self.most


HOOK = Retries(first=2.0, factor=2.0, longest=60.0, most=5)
MESSAGE = Retries(first=10.0, factor=4.0, longest=640.0, most=5)
"""Nothing waits for a message: it may come when the receiver is well again."""
SMOKE_TEST = Retries(first=2.0, factor=2.0, longest=30.0)


def too_early(draft: Draft, moment: datetime | None) -> bool:
    """Whether the next try is yet to come; then the decision asks for a look at that time. None: it is due."""
    left = (moment - draft.now).total_seconds() if moment is not None else 0.0
    if left > 0:
        draft.wake.append(max(left, 0.1))
    return left > 0
