"""The release state machine: `decide(input) -> decision`.

One release moves through

    Starting -> the steps, each of one kind -> Promoting -> Live
        \\            |                          |
         +--> Failed  +------> RollingBack <-----+ --> RolledBack

The steps are Testing, Shadowing, Previewing, Canary and Experimenting, in the order that the spec gives. A candidate
that has no users yet is Failed where one that has is RolledBack.

Every transition depends only on the input: the spec, the stored status, what the cluster shows, what Prometheus
said, and `now`. So a release resumes wherever it was when the operator was killed, and two weeks pass in a test in
milliseconds. What each phase does is in `phases/`; how one is entered and how a release ends, in `transitions`.
"""

from __future__ import annotations

from serinus.api.status import Outcome, Phase
from serinus.release import outbox, settled, timeline
from serinus.release.draft import Draft
from serinus.release.gates import condemned, confirm_route, count, unhealthy, verdict
from serinus.release.hands import heed
from serinus.release.informing import deliver
from serinus.release.observed import Decision, Input
from serinus.release.phases import PHASES
from serinus.release.plan import plan_for
from serinus.release.report import ROUTE_CONFLICT, report
from serinus.release.steps import STEP_PHASES
from serinus.release.transitions import finish, next_step, roll_back
from serinus.release.watch import watch

TICK = 2.0
"""Seconds between two looks at a release under way."""


def decide(given: Input) -> Decision:
    """The next status, what should exist in the cluster, the events to tell, and when to look again."""
    draft = Draft(given)
    heed(draft)
    settled.expire_previous(draft)
    if draft.status.release is None:
        settled.settle(draft)
    if draft.status.release is not None:
        _advance(draft)
    watch(draft)
    deliver(draft)
    _notice_conflict(draft)
    timeline.keep(draft)
    outbox.post(draft)
    status = report(given, draft.status, draft.target)
    if status.release is not None:
        draft.wake.append(TICK)
    plan = plan_for(given, status, draft.target)
    wake = min(draft.wake, default=None)
    return Decision(status, plan, tuple(draft.notes), wake, tuple(draft.errands.values()))


def _notice_conflict(draft: Draft) -> None:
    """An event when somebody older turns out to have the same address; the condition stays for as long as it lasts."""
    known = any(each.type == ROUTE_CONFLICT for each in draft.status.conditions)
    if draft.given.conflict and not known:
        draft.note(ROUTE_CONFLICT, draft.given.conflict, warning=True)


def _advance(draft: Draft) -> None:
    count(draft)
    confirm_route(draft)
    if _superseded(draft):
        return
    for _ in range(len(draft.steps) + len(PHASES)):
        here = (draft.release.phase, draft.release.step)
        _act(draft)
        if draft.status.release is None or here == (draft.release.phase, draft.release.step):
            return


def _act(draft: Draft) -> None:
    """One phase does what it can. While a step is under way, the candidate's pods and its users come first."""
    release = draft.release
    if release.phase in STEP_PHASES:
        if unhealthy(draft):
            return
        if release.phase is not Phase.CANARY:
            counted = draft.counted
            if release.weight and counted and condemned(draft, verdict(draft, *counted)):
                return
            if release.skips_steps:
                next_step(draft)
                return
    PHASES[release.phase](draft)


def _superseded(draft: Draft) -> bool:
    """The spec changed in mid-release: traffic leaves the candidate first, then the new target gets its turn."""
    release = draft.release
    if release.revision == draft.target.name or release.phase is Phase.ROLLING_BACK:
        return False
    asks = "the spec now asks" if draft.status.override is None else "somebody asked by hand"
    message = f"{asks} for version {draft.target.version}"
    if release.weight == 0:
        finish(draft, Outcome.SUPERSEDED, "SpecChanged", message)
        settled.settle(draft)
        if draft.status.release is not None:
            _advance(draft)
    else:
        roll_back(draft, "SpecChanged", message)
    return True
