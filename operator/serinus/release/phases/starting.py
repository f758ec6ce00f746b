"""Starting: pods of the candidate fetch, verify and warm up; no user reaches them."""

from __future__ import annotations

from serinus.api.status import Outcome
from serinus.api.webhooks import HookTime
from serinus.release.asking import unanswered
from serinus.release.draft import Draft
from serinus.release.gates import failure, needed, waits_for_pods
from serinus.release.transitions import begin_step, finish


def starting(draft: Draft) -> None:
    """Waits for enough ready pods, for a failure, or for the deadline."""
    release = draft.release
    if found := failure(draft):
        finish(draft, Outcome.FAILED, found.reason, found.message)
        return
    if waits_for_pods(draft, needed(draft, draft.upcoming_share), ""):
        return
    if release.reason != "Paused":
        ready = draft.given.observed.state(release.revision).ready
        draft.note("CandidateReady", f"{ready} pods of version {draft.version} are verified, warm and ready")
    if draft.paused and draft.status.live is not None:
        draft.say("Paused", "ready, and held before its first request: remove the annotation pause to go on")
    elif not unanswered(draft, HookTime.BEFORE):
        begin_step(draft, 0)
