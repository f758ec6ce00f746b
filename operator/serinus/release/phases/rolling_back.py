"""RollingBack: weight 0 was written first of all; the pods stay until what is under way is answered."""

from __future__ import annotations

from serinus.api.status import Outcome
from serinus.release.draft import Draft
from serinus.release.transitions import finish

DRAIN = 8.0
"""Seconds between taking the last traffic from a revision and removing its pods."""


def rolling_back(draft: Draft) -> None:
    """Waits for the gateway and the drain, then ends the release."""
    release = draft.release
    if draft.status.live is not None and draft.spec.route is not None and release.serving_since is None:
        draft.say_keeping_reason(f"the gateway has not confirmed 0% yet: {draft.route_message}")
        return
    since = release.serving_since or release.phase_since
    left = DRAIN - (draft.now - since).total_seconds()
    if left > 0:
        draft.wake.append(left)
        return
    superseded = release.reason == "SpecChanged"
    finish(
        draft,
        Outcome.SUPERSEDED if superseded else Outcome.ROLLED_BACK,
        release.reason or "Unknown",
        release.message or "",
    )
