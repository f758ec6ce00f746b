"""Whether a release may start, or the candidate get more users, at this moment. Going back never asks."""

from __future__ import annotations

from serinus.api.status import Held
from serinus.release.draft import Draft
from serinus.release.windows import next_opening, shown

FROZEN = "Frozen"
OUTSIDE = "OutsideWindow"


def forbidden(draft: Draft) -> Held | None:
    """Why not now; None where nothing speaks against it.

    A freeze stops everything but roll-backs. A window stops neither the first version, which no user can miss, nor
    what somebody promotes by hand.
    """
    if _going_back(draft):
        return None
    if draft.given.frozen is not None:
        return Held(reason=FROZEN, message=f"releases are frozen: {draft.given.frozen}", since=draft.now)
    release = draft.status.release
    if draft.status.live is None or (release is not None and release.skips_steps):
        return None
    windows = draft.spec.release.windows
    opening = next_opening(windows, draft.now)
    if opening is None:
        return None
    draft.wake.append(max((opening - draft.now).total_seconds(), 0.1))
    message = f"outside the release windows; the next one opens {shown(opening, windows)}"
    return Held(reason=OUTSIDE, message=message, since=draft.now, until=opening)


def held(draft: Draft) -> bool:
    """Whether the release under way has to wait with more weight. Says so."""
    found = forbidden(draft)
    if found is None:
        return False
    draft.say(found.reason, f"holding at {draft.release.weight}%: {found.message}")
    return True


def _going_back(draft: Draft) -> bool:
    previous = draft.status.previous
    return draft.status.override is not None or (previous is not None and previous.revision == draft.target.name)
