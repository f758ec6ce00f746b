"""Promoting: all traffic goes to the candidate; once the gateway serves that, the roles swap."""

from __future__ import annotations

from serinus.release import measurements
from serinus.release.draft import Draft
from serinus.release.gates import SETTLE, condemned, needed, unhealthy, verdict, waits_for_pods
from serinus.release.permits import held
from serinus.release.transitions import promote


def promoting(draft: Draft) -> None:
    """Raises the weight to 100 %, waits for the gateway, swaps the pointers."""
    release = draft.release
    if draft.status.live is not None:
        if unhealthy(draft):
            return
        counted = draft.counted
        if counted and release.evidence:
            measurements.measure(draft)
            measured = measurements.verdict(draft)
            if condemned(draft, verdict(draft, *counted)) or (measured and condemned(draft, measured)):
                return
    live = draft.given.observed.state(draft.status.live.revision if draft.status.live else None)
    wanted = max(needed(draft, 100), 1)
    if release.weight != 100:
        if draft.paused and draft.status.live is not None:
            draft.say("Paused", f"held at {release.weight}%: remove the annotation pause to go on")
            return
        if draft.status.live is not None and held(draft):
            return
        if waits_for_pods(draft, wanted, " for all traffic"):
            return
        draft.update_release(weight=100, phase_since=draft.now, serving_since=None)
        return
    if draft.spec.route is not None:
        if release.serving_since is None:
            draft.say("WaitingForGateway", f"the gateway has not confirmed 100% yet: {draft.route_message}")
            return
        left = SETTLE - (draft.now - release.serving_since).total_seconds()
        if left > 0:
            draft.wake.append(left)
            return
    promote(draft, live.desired)
