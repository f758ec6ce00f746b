"""Between releases: what ends a warm revision's time, and what starts a release."""

from __future__ import annotations

from serinus.api.status import Held, Phase, ReleaseStatus
from serinus.release.draft import Draft
from serinus.release.permits import forbidden
from serinus.release.who import author


def expire_previous(draft: Draft) -> None:
    """The previous revision is let go when its window is over, unless a release is going back to it."""
    previous = draft.status.previous
    if previous is None or previous.until is None:
        return
    left = (previous.until - draft.now).total_seconds()
    if left > 0:
        draft.wake.append(max(left, 0.1))
    elif draft.status.release is None or draft.status.release.revision != previous.revision:
        draft.update(previous=None)


def settle(draft: Draft) -> None:
    """No release is under way: starts one where the spec asks for another revision that has not failed."""
    live, before = draft.status.live, draft.status.held
    draft.update(held=None)
    if live is not None and live.revision == draft.target.name:
        draft.update(candidate=None)
    elif draft.target.name not in draft.status.failed_revisions:
        found = forbidden(draft)
        if found is None:
            _start(draft)
        else:
            _wait(draft, found, before)


def _wait(draft: Draft, found: Held, before: Held | None) -> None:
    """The release starts later."""
    known = before is not None and before.reason == found.reason
    draft.update(held=found.model_copy(update={"since": before.since}) if known and before else found)
    if not known:
        draft.note(found.reason, f"version {draft.target.version} waits: {found.message}")


def _start(draft: Draft) -> None:
    previous, target = draft.status.previous, draft.target
    back = previous is not None and previous.revision == target.name
    release = ReleaseStatus(
        revision=target.name,
        phase=Phase.PROMOTING if back else Phase.STARTING,
        started_at=draft.now,
        phase_since=draft.now,
        by=author(draft),
    )
    draft.update(release=release, candidate=target.ref(since=draft.now))
    what = f"version {target.version} (revision {target.name}, {target.model.digest[:19]})"
    if back:
        draft.note("ReturningToPrevious", f"{what} is still warm: every request goes back to it, without steps")
    else:
        draft.note("ReleaseStarted", f"starting {what}")
