"""Which decisions are worth a write: a settled ModelDeployment should not be written to at every look.

What the watch counts after a promotion changes at each look. A restart must know of it only roughly: the operator
keeps it in memory and stores it when a new part of the window begins, or when the capital of a test has doubled or
halved while it still is of any weight. So a restart forgets at most a factor of two of evidence in either direction:
a false alarm becomes at most twice as likely by it (Ville's inequality, with the stored capital as the start), and a
bad revision is found a look or two later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from serinus.api.shown import Capital
from serinus.api.status import ModelDeploymentStatus, Watch
from serinus.evidence.sequential import log_evidence

FACTOR = 2.0
"""How far a capital may move before it is stored."""
NOTHING = 0.05
"""A capital below is as good as lost, and how much below matters to nobody."""

_EXACT = ("revision", "since", "slice", "unavailable_since")
"""Fields of the watch that are stored as soon as they change."""


def worth_storing(stored: ModelDeploymentStatus, fresh: ModelDeploymentStatus) -> bool:
    """Whether `fresh` holds anything that people or a restart must know."""
    if fresh == stored:
        return False
    if fresh.model_copy(update={"watch": stored.watch}) != stored:
        return True
    return _moved(stored.watch, fresh.watch)


def resumed(stored: ModelDeploymentStatus, remembered: Watch | None) -> ModelDeploymentStatus:
    """`stored` with what this process remembers of the watch beyond it."""
    watch = stored.watch
    if remembered is None or watch is None or (watch.revision, watch.since) != (remembered.revision, remembered.since):
        return stored
    return stored.model_copy(update={"watch": remembered})


def _moved(old: Watch | None, new: Watch | None) -> bool:
    if old is None or new is None:
        return old is not new
    if any(getattr(old, name) != getattr(new, name) for name in _EXACT):
        return True
    return _capital_moved(old.tests, new.tests) or _capital_moved(old.tests_lately, new.tests_lately)


def _capital_moved(old: Mapping[str, Capital], new: Mapping[str, Capital]) -> bool:
    if old.keys() != new.keys():
        return True
    return any(_far(_size(old[name]), _size(new[name])) for name in new)


def _far(old: float, new: float) -> bool:
    return max(old, new) > math.log(NOTHING) and abs(old - new) > math.log(FACTOR)


def _size(capital: Capital) -> float:
    return log_evidence(capital.invested, capital.held_back) if capital.invested else 0.0
