"""Webhooks that are told how a release ended: `After` and `RollBack`. Nothing waits for them."""

from __future__ import annotations

from datetime import timedelta

from serinus.api.status import Outcome, ReleaseRecord
from serinus.api.webhooks import HookTime, Notice
from serinus.release.draft import Draft
from serinus.release.hooks import Said, answer_of, errand
from serinus.release.retries import HOOK, too_early

MOST = 16
"""Notices that may be under way; the oldest are dropped."""


def inform(draft: Draft, entry: ReleaseRecord) -> None:
    """The release that `entry` records has ended: whoever wants to know is to be told."""
    when = HookTime.AFTER if entry.outcome is Outcome.PROMOTED else HookTime.ROLL_BACK
    fresh = [
        Notice(name=hook.name, when=when, revision=entry.revision, finished_at=entry.finished_at)
        for hook in draft.spec.release.webhooks
        if when in hook.when
    ]
    if fresh:
        draft.update(notices=[*draft.status.notices, *fresh][-MOST:])


def deliver(draft: Draft) -> None:
    """Tells those who are still to be told."""
    if draft.status.notices:
        left = [after for notice in draft.status.notices if (after := _told(draft, notice)) is not None]
        draft.update(notices=left)


def _told(draft: Draft, notice: Notice) -> Notice | None:
    """The notice as it stands; None once it was heard, or nobody can hear it any more."""
    hook = next((each for each in draft.spec.release.webhooks if each.name == notice.name), None)
    entry = next(
        (
            each
            for each in draft.status.history
            if (each.revision, each.finished_at) == (notice.revision, notice.finished_at)
        ),
        None,
    )
    if hook is None or entry is None:
        return None
    if too_early(draft, notice.retry_at):
        return notice
    key = f"{notice.revision}/{notice.finished_at.timestamp():.0f}/{notice.when}/{notice.name}"
    result = draft.ask(errand(hook, key, notice.attempt, _facts(draft, notice, entry)))
    if result is None:
        return notice
    answer = answer_of(result)
    if answer.said is not Said.NOTHING:
        return None
    if HOOK.spent(notice.attempt):
        text = f"webhook {notice.name} ({notice.when}) was not told of version {entry.version}: {answer.message}"
        draft.note("WebhookNotTold", text, warning=True)
        return None
    seconds = HOOK.pause(notice.attempt)
    draft.wake.append(seconds)
    return notice.model_copy(update={"attempt": notice.attempt + 1, "retry_at": draft.now + timedelta(seconds=seconds)})


def _facts(draft: Draft, notice: Notice, entry: ReleaseRecord) -> dict[str, object]:
    return {
        "when": notice.when,
        "deployment": draft.given.name,
        "revision": entry.revision,
        "version": entry.version,
        "digest": entry.digest,
        "liveVersion": entry.instead_of,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "message": entry.message,
        "requests": entry.requests,
        "evidence": entry.evidence,
        "startedAt": entry.started_at,
        "finishedAt": entry.finished_at,
    }
