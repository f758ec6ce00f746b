"""Shadowing: the route mirrors requests to the candidate, and a joiner compares the answers. Its weight is 0."""

from __future__ import annotations

from serinus.api.shadow import Shadow
from serinus.api.shown import ShadowStatus
from serinus.api.status import Outcome
from serinus.evidence.verdict import Finding, Verdict
from serinus.release.draft import Draft
from serinus.release.inconclusive import STALE, conclusive, hold
from serinus.release.observed import Mirrored
from serinus.release.passing import may_not_pass
from serinus.release.shadow import gather, verdict
from serinus.release.transitions import finish, next_step, pass_step

JOINER = "-shadow-hub"
"""What the joiner's Service is called behind the ModelDeployment's name."""
REFUSED = 10.0
"""Seconds a gateway may refuse the route with the mirror before the release ends: users need the route."""


def shadowing(draft: Draft) -> None:
    """Ends the release, holds, or goes on to the next step. The mirror goes with the phase, in the same route write."""
    step, release = draft.step, draft.release
    if step is None or step.shadow is None:
        next_step(draft)
        return
    shadow = step.shadow
    known = release.shadow
    if known is None or known.step != release.step or known.since is None:
        known = _begin(draft, shadow, known if known and known.step == release.step else None)
        if known is None:
            return
    evidence = draft.given.evidence
    if evidence.available:
        known = gather(draft, known, shadow, evidence.shadows.get(release.revision, Mirrored()))
        draft.update_release(shadow=known, evidence=known.message)
    found = verdict(draft, shadow, known)
    if found.finding is Finding.FAIL:
        finish(draft, Outcome.FAILED, found.reason, f"{found.message}; no user saw its answers")
        return
    if draft.paused:
        conclusive(draft)
        draft.say("Paused", "the shadow goes on and does not end: remove the annotation pause", known.message)
        return
    if _holds(draft, shadow, known, found):
        return
    pass_step(draft, "shadow", found.message)


def _begin(draft: Draft, shadow: Shadow, known: ShadowStatus | None) -> ShadowStatus | None:
    """Waits until the gateway serves the mirror; from then on time and pairs count."""
    release, route = draft.release, draft.given.observed.route
    if known is None:
        known = ShadowStatus(step=release.step, joiner=f"{draft.given.name}{JOINER}")
        draft.update_release(shadow=known)
        text = f"{shadow.percent}% of the requests go to version {draft.version} as well; nobody sees its answers"
        draft.note("Shadowing", text)
    if route.mirrored != release.revision or not route.accepted:
        refused = route.refused and route.mirrored == release.revision
        since = (known.refused_since or draft.now) if refused else None
        draft.update_release(shadow=known.model_copy(update={"refused_since": since}))
        if since is not None and (draft.now - since).total_seconds() >= REFUSED:
            finish(draft, Outcome.FAILED, "MirrorRefused", f"the gateway refuses to mirror requests: {route.message}")
            return None
        draft.say("WaitingForGateway", f"the gateway has not confirmed the mirror yet: {draft.route_message}")
        return None
    known = known.model_copy(update={"since": draft.now, "refused_since": None})
    draft.update_release(shadow=known)
    return known


def _holds(draft: Draft, shadow: Shadow, known: ShadowStatus, found: Verdict) -> bool:
    """Says why the step cannot pass yet, if so."""
    since = known.since or draft.now
    held = (draft.now - since).total_seconds()
    if not draft.given.evidence.available:
        hold(draft, "EvidenceMissing", f"shadowing: {draft.given.evidence.message}")
        return True
    if found.reason == "NoPairs":
        hold(draft, found.reason, f"shadowing: {found.message}{_pods(draft)}", found.message)
        return True
    if held < shadow.duration.seconds:
        hold(draft, "Shadowing", f"{shadow.percent}% mirrored for {shadow.duration}: {found.message}", found.message)
        draft.wake.append(max(shadow.duration.seconds - held, 0.1))
        return True
    if found.finding is Finding.NOT_YET:
        hold(draft, found.reason, f"shadowing: {found.message}", found.message)
        return True
    silent = (draft.now - (known.paired_at or since)).total_seconds()
    if silent > STALE:
        hold(draft, "EvidenceStale", f"shadowing: no pair was counted for {silent:.0f} s", found.message)
        return True
    return may_not_pass(draft, found.message)


def _pods(draft: Draft) -> str:
    """What the joiner reads, where nothing comes of it."""
    told = draft.given.evidence.shadows.get(draft.release.revision)
    if told is None or not told.pods:
        return "; the joiner has told nothing yet"
    return f"; the joiner reads {told.pods.get('live', 0)} live and {told.pods.get('candidate', 0)} candidate pods"
