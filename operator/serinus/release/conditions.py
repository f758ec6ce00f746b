"""Conditions after kstatus: Ready is positive; Reconciling and Stalled exist only while true."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from serinus.api.status import Condition


@dataclass(frozen=True)
class Wanted:
    """A condition before it has a transition time."""

    type: str
    status: bool
    reason: str
    message: str


def merge(old: Iterable[Condition], wanted: Iterable[Wanted], generation: int, now: datetime) -> list[Condition]:
    """The wanted conditions; a transition time changes only where the status does."""
    before = {condition.type: condition for condition in old}
    merged = []
    for want in wanted:
        status = "True" if want.status else "False"
        known = before.get(want.type)
        since = known.last_transition_time if known and known.status == status else now.replace(microsecond=0)
        merged.append(
            Condition(
                type=want.type,
                status=status,
                reason=want.reason,
                message=want.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return merged
