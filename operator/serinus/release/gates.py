"""What the world says about a candidate: its pods, the gateway, the requests it answered."""

from __future__ import annotations

from serinus.api.shown import Counts
from serinus.api.status import Phase
from serinus.api.steps import Step
from serinus.evidence.verdict import Finding, Verdict, fade
from serinus.release.capacity import floor_for
from serinus.release.draft import Draft
from serinus.release.form import form_of
from serinus.release.observed import Failure
from serinus.release.plan import heading_for
from serinus.release.steps import COUNTED_PHASES
from serinus.release.transitions import NOTHING_COUNTED, roll_back, stop

WAITING = "WaitingForPods"
SETTLE = 3.0
"""Seconds a route that the gateway has accepted is given to reach every proxy before something depends on it."""


def confirm_route(draft: Draft) -> None:
    """Notes when the gateway has confirmed the present weight. Counts and hold times start there."""
    release, route = draft.release, draft.given.observed.route
    if release.serving_since is not None or not route.accepted or not route.formed:
        return
    total = sum(route.weights.values())
    share = 100 * route.weights.get(release.revision, 0) / total if total else 0
    if abs(share - release.weight) < 0.5 and (total or release.weight == 0):
        draft.update_release(serving_since=draft.now)
        if release.phase in COUNTED_PHASES:
            draft.update_release(**NOTHING_COUNTED)


def count(draft: Draft) -> None:
    """Adds what both revisions answered since the last decision, and lets the tests bet on it."""
    release, evidence = draft.release, draft.given.evidence
    if not evidence.available:
        return
    fresh = evidence.counts.get(release.revision, Counts())
    if fresh.requests > 0 and (release.weight > 0 or release.phase is Phase.ROLLING_BACK):
        draft.update_release(served=release.served + fresh.requests, evidence_at=draft.now)
    live_name = draft.status.live.revision if draft.status.live else ""
    live_fresh = evidence.counts.get(live_name, Counts())
    recent = fade(release.recent, live_fresh)
    draft.update_release(recent=recent)
    previewed = release.phase is Phase.PREVIEWING
    if not previewed and (release.serving_since is None or release.weight == 0):
        return
    live = add(release.live, live_fresh)
    candidate = add(release.candidate, fresh)
    draft.update_release(candidate=candidate, live=live)
    counted = draft.counted
    if counted is None or fresh.requests == 0:
        return
    stage, step = counted
    held = (draft.now - (release.serving_since or release.phase_since)).total_seconds()
    progress = 1.0 if release.phase is not Phase.CANARY else held / max(step.hold.seconds, 1e-9)
    blocks = evidence.blocks.get(release.revision, (fresh,))
    before = evidence.before.get(release.revision, ())
    judge = draft.judge(stage)
    beside = evidence.blocks.get(live_name, (live_fresh,))
    tests = judge.observe(release.tests, blocks, live, recent, progress, before, live_fresh, beside)
    draft.update_release(tests=tests)


def verdict(draft: Draft, stage: int, step: Step) -> Verdict:
    """What the counts of a step say, by its index and itself."""
    release = draft.release
    judge = draft.judge(stage)
    return judge.judge(release.tests, release.candidate, release.live, release.recent, step.min_requests)


def condemned(draft: Draft, found: Verdict) -> bool:
    """Rolls back where the verdict is clear."""
    if found.finding is not Finding.FAIL:
        return False
    roll_back(draft, found.reason, found.message, found.message)
    return True


def unapproved(draft: Draft, evidence: str | None = None) -> bool:
    """Whether the present step waits for somebody's approval. Says so."""
    step, release = draft.step, draft.release
    if step is None or not step.approval or release.approved == release.step:
        return False
    what = f"holding at {release.weight}%" if release.weight else f"holding after {step.kind}"
    draft.say("WaitingForApproval", f"{what}: set the annotation approve", evidence)
    return True


def failure(draft: Draft) -> Failure | None:
    """What Kubernetes shows of the candidate's pods and waiting does not mend."""
    state = draft.given.observed.state(draft.release.revision)
    if state.failure is not None and state.failure.since(draft.release.started_at):
        return state.failure
    limit = draft.spec.release.unschedulable_timeout
    if state.unschedulable_since is None:
        return None
    if state.ready >= needed(draft, heading_for(draft.given, draft.status)):
        # An autoscaler may want more than there is room for: the candidate has all that it needs.
        return None
    waited = (draft.now - state.unschedulable_since).total_seconds()
    if waited >= limit.seconds:
        return Failure("Unschedulable", f"no node for {limit}: {state.unschedulable_message}")
    draft.wake.append(max(limit.seconds - waited, 0.1))
    return None


def unhealthy(draft: Draft) -> bool:
    """Rolls back a candidate whose pods fail, or that has none left to serve its share."""
    release = draft.release
    found = failure(draft)
    if found is None and release.weight > 0 and draft.given.observed.state(release.revision).ready == 0:
        found = Failure("CandidateUnavailable", "none of its pods is ready any more")
    if found is None:
        return False
    stop(draft, found.reason, found.message)
    return True


def waits_for_pods(draft: Draft, wanted: int, what: str) -> bool:
    """Whether pods are missing for `what`. Says so, and ends the release when they are overdue."""
    release = draft.release
    ready = draft.given.observed.state(release.revision).ready
    if ready >= wanted:
        if release.unavailable_since is not None:
            draft.update_release(unavailable_since=None)
        return False
    deadline = draft.spec.release.progress_deadline
    # Whatever else the release has waited for meanwhile, people most of all, is none of the pods' time.
    since = (release.unavailable_since if release.reason == WAITING else None) or draft.now
    left = deadline.seconds - (draft.now - since).total_seconds()
    if left > 0:
        draft.update_release(unavailable_since=since)
        draft.say(WAITING, f"{ready} of {wanted} pods{what} are ready")
        draft.wake.append(max(left, 0.1))
        return True
    message = f"{ready} of {wanted} pods{what} were ready after {deadline} (spec.release.progressDeadline)"
    stop(draft, "ProgressDeadlineExceeded", message)
    return True


def waits_for_rules(draft: Draft) -> bool:
    """Whether users are divided by rules that some proxy may not have yet. Says so."""
    release, form = draft.release, form_of(draft.spec)
    if release.weight or form is None or not form.divides:
        return False
    if release.serving_since is None:
        text = f"the gateway has not confirmed the rules that divide the users: {draft.route_message}"
        draft.say("WaitingForGateway", text)
        return True
    left = SETTLE - (draft.now - release.serving_since).total_seconds()
    if left > 0:
        draft.wake.append(left)
    return left > 0


def needed(draft: Draft, weight: int) -> int:
    """Pods that the candidate needs for `weight` percent of the traffic."""
    live = draft.given.observed.state(draft.status.live.revision if draft.status.live else None)
    return floor_for(weight, draft.spec.scaling, live.desired)


def add(total: Counts, more: Counts) -> Counts:
    """Both together."""
    return Counts(
        requests=total.requests + more.requests, errors=total.errors + more.errors, slow=total.slow + more.slow
    )
