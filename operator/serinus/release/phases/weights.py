"""Canary: the route gives the candidate the weight of a step, and the step's counts decide."""

from __future__ import annotations

from serinus.api.status import Phase
from serinus.api.steps import PassOn, Step
from serinus.evidence.verdict import Finding, Verdict
from serinus.release import measurements
from serinus.release.coverage import overdue, unseen
from serinus.release.draft import Draft
from serinus.release.gates import condemned, needed, verdict, waits_for_pods, waits_for_rules
from serinus.release.inconclusive import STALE, conclusive, hold
from serinus.release.measurements import measure
from serinus.release.passing import may_not_pass
from serinus.release.permits import held
from serinus.release.transitions import enter, next_step, pass_step


def weights(draft: Draft) -> None:
    """Rolls back, holds, or goes on to the next step."""
    release = draft.release
    step = draft.step
    if step is None:
        enter(draft, Phase.PROMOTING, weight=release.weight)
        return
    measure(draft)
    found, measured = verdict(draft, release.step, step), measurements.verdict(draft)
    if condemned(draft, found) or (measured and condemned(draft, measured)):
        return
    if release.skips_steps:
        next_step(draft)
        draft.update_release(evidence=found.message)
        return
    if draft.paused:
        conclusive(draft)
        draft.say("Paused", f"held at {release.weight}%: remove the annotation pause to go on", found.message)
        return
    if release.weight != step.weight:
        _raise_to(draft, step)
        return
    if _holds(draft, step, found, measured):
        return
    pass_step(draft, f"{step.weight}%", found.message)


def _holds(draft: Draft, step: Step, found: Verdict, measured: Verdict | None) -> bool:
    """Says why the step cannot pass yet, if so."""
    since, seen = draft.release.serving_since, draft.release.evidence_at
    if since is None:
        draft.say("WaitingForGateway", f"the gateway has not confirmed {step.weight}% yet: {draft.route_message}")
        return True
    lasted = (draft.now - since).total_seconds()
    if step.pass_on is PassOn.READINESS:
        if lasted < step.hold.seconds:
            draft.say("Holding", f"{step.weight}% for {step.hold}: {found.message}", found.message)
            draft.wake.append(max(step.hold.seconds - lasted, 0.1))
            return True
        return may_not_pass(draft, found.message)
    holding = f"holding at {step.weight}%"
    if not draft.given.evidence.available:
        hold(draft, "EvidenceMissing", f"{holding}: {draft.given.evidence.message}")
        return True
    partial = unseen(draft)
    if partial and overdue(draft):
        hold(draft, "EvidencePartial", f"{holding}: {partial}", found.message)
        return True
    if found.finding is Finding.NOT_YET:
        hold(draft, found.reason, f"{holding}: {found.message}", found.message)
        return True
    silent = (draft.now - (seen or since)).total_seconds()
    if silent > STALE:
        hold(draft, "EvidenceStale", f"{holding}: no request was counted for {silent:.0f} s", found.message)
        return True
    if measured is not None:
        hold(draft, measured.reason, f"{holding}: {measured.message}", found.message)
        return True
    if lasted < step.hold.seconds:
        hold(draft, "Holding", f"{step.weight}% for {step.hold}: {found.message}", found.message)
        draft.wake.append(max(step.hold.seconds - lasted, 0.1))
        return True
    if partial:
        hold(draft, "EvidencePartial", f"{holding}: {partial}", found.message)
        return True
    return may_not_pass(draft, found.message)


def _raise_to(draft: Draft, step: Step) -> None:
    """More traffic only where it is allowed now, and once there are pods for it."""
    if held(draft) or waits_for_pods(draft, needed(draft, step.share), f" for {step.weight}%"):
        return
    if waits_for_rules(draft):
        return
    enter(draft, Phase.CANARY, weight=step.share, step=draft.release.step)
    draft.tell_weight(step.share, draft.release.step)
