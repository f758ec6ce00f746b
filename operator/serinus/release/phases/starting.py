"""Starting: pods of the candidate fetch, verify and warm up; no user reaches them."""

from __future__ import annotations

from serinus.api.status import Outcome, Phase
from serinus.release.draft import Draft
from serinus.release.gates import failure, needed
from serinus.release.phases.promoting import promoting
from serinus.release.transitions import enter, finish


def starting(draft: Draft) -> None:
    """Waits for enough ready pods, for a failure, or for the deadline."""
    release = draft.release
    if found := failure(draft):
        finish(draft, Outcome.FAILED, found.reason, found.message)
        return
    state = draft.given.observed.state(release.revision)
    waited = (draft.now - release.phase_since).total_seconds()
    wanted = needed(draft, draft.steps[0].weight if draft.steps else 100)
    if state.ready >= wanted:
        if release.reason != "Paused":
            draft.note("CandidateReady", f"{state.ready} pods of version {draft.version} are verified, warm and ready")
        if draft.paused and draft.status.live is not None:
            draft.say("Paused", "ready, and held before its first request: remove the annotation pause to go on")
        elif draft.steps and draft.status.live is not None and not release.skips_steps:
            enter(draft, Phase.CANARY, weight=draft.steps[0].weight)
            draft.tell_weight(draft.steps[0].weight, 0)
        else:
            enter(draft, Phase.PROMOTING)
            promoting(draft)
        return
    deadline = draft.spec.release.progress_deadline
    if waited >= deadline.seconds:
        finish(
            draft,
            Outcome.FAILED,
            "ProgressDeadlineExceeded",
            f"{state.ready} of {wanted} pods were ready after {deadline} (spec.release.progressDeadline)",
        )
        return
    draft.say("WaitingForPods", f"{state.ready} of {wanted} pods are ready")
    draft.wake.append(max(deadline.seconds - waited, 0.1))
