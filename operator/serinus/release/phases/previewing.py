"""Previewing: the candidate has an address of its own, and what comes by it is judged before the first user."""

from __future__ import annotations

from serinus.api.status import Outcome
from serinus.evidence.verdict import Finding
from serinus.release.draft import Draft
from serinus.release.gates import verdict
from serinus.release.inconclusive import conclusive, hold
from serinus.release.passing import may_not_pass
from serinus.release.transitions import finish, next_step, pass_step


def previewing(draft: Draft) -> None:
    """Ends the release of a candidate that breaks the SLO here; goes on after the hold, the requests, the approval."""
    step, release = draft.step, draft.release
    if step is None or step.preview is None:
        next_step(draft)
        return
    found = verdict(draft, release.step, step)
    if found.finding is Finding.FAIL:
        finish(draft, Outcome.FAILED, found.reason, f"in the preview, {found.message}")
        return
    if draft.paused:
        conclusive(draft)
        draft.say("Paused", "held in the preview: remove the annotation pause to go on", found.message)
        return
    seen = release.candidate.requests
    if "min_requests" in step.model_fields_set and seen < step.min_requests:
        evidence = draft.given.evidence
        reason = "TooFewRequests" if evidence.available else "EvidenceMissing"
        text = f"{seen} of {step.min_requests} requests came by the preview"
        hold(draft, reason, text if evidence.available else f"{text}: {evidence.message}", found.message)
        return
    conclusive(draft)
    left = step.hold.seconds - (draft.now - release.phase_since).total_seconds()
    if left > 0:
        draft.say("Holding", f"preview for {step.hold}: {found.message}", found.message)
        draft.wake.append(max(left, 0.1))
        return
    if not may_not_pass(draft, found.message):
        pass_step(draft, "the preview", found.message)
