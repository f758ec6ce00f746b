"""What the state machine wants done outside, and what came of it.

The machine does nothing itself: a decision carries errands, an edge (`serinus.errands`) does them away from the
reconcile loop, and the results are part of the next input. An errand is named by what it is for and by its attempt,
and the machine keeps in status what it learnt from it: an operator that is killed meanwhile does the same attempt
again, and nothing else. So every errand must be safe to repeat.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Errand:
    """One thing to be done outside."""

    key: str
    """Unique within a ModelDeployment and the same after a restart: revision, step, name, attempt."""
    task: object
    """What to do: a frozen dataclass, whose type chooses who does it."""
    limit: float
    """Seconds that it may take."""


@dataclass(frozen=True)
class Result:
    """What came of an errand."""

    value: object | None = None
    """What whoever did it found; None where it could not be done."""
    problem: str = ""
    """Why it could not be done."""
