"""After the promotion: pods of the live revision that run on and are not ready any more.

A worker that hangs, or a readiness probe that fails, ends no container, and requests that no pod takes are counted by
nobody: neither what Kubernetes reports as a failure nor the counts of the watch can tell. The revision is held to what
a candidate is held to: `release.progressDeadline` with too few ready pods, and not that long without a single one.

It must be the version's own doing: as many of its pods as are missing run and were ready before. What the cluster takes
away (nodes, evictions, pods that find no node, pods that start again) is missing otherwise, and is not held against it.
"""

from __future__ import annotations

from datetime import datetime

from serinus.api.status import Watch
from serinus.api.units import Duration
from serinus.release.draft import Draft
from serinus.release.observed import RevisionState

REASON = "ReadinessLost"
OUTAGE = 30.0
"""Longest time with too few, in seconds, where none is ready: no user is served. Not 0 as for a candidate: a moment's
stall of all pods is no verdict on a version that has passed its steps."""


def unavailable_since(draft: Draft, known: Watch) -> datetime | None:
    """Since when the live revision has fewer ready pods than `scaling.min` by its own doing; None where it has not.

    Never before the operator saw it, nor before the pods say it: an operator that was away saw no recovery, and the
    clocks of nodes differ.
    """
    state, needed = draft.given.observed.state(known.revision), draft.spec.scaling.min
    lost = sorted(state.unready.values())
    spare = state.ready + len(lost) - needed
    if state.ready >= needed or spare < 0:
        return None
    return max(known.unavailable_since or draft.now, lost[spare])


def overdue(draft: Draft, known: Watch, previous: RevisionState) -> str | None:
    """Why the live revision is to be replaced by its predecessor, whose pods are `previous`; None where it is not.

    A predecessor that has no more ready pods could do no better: then it may be something that both depend on.
    """
    since, state = known.unavailable_since, draft.given.observed.state(known.revision)
    if since is None or previous.ready <= state.ready:
        return None
    deadline = draft.spec.release.progress_deadline
    limit, source = deadline.seconds, "spec.release.progressDeadline"
    if state.ready == 0 and limit > OUTAGE:
        limit, source = OUTAGE, "without a ready pod no version is given more"
    lasted = (draft.now - since).total_seconds()
    if lasted < limit:
        draft.wake.append(max(limit - lasted, 0.1))
        return None
    first = min(state.unready, key=lambda name: (state.unready[name], name))
    return (
        f"{state.ready} of {draft.spec.scaling.min} pods are ready, and too few were for {Duration.of(round(lasted))} "
        f"({source}): {len(state.unready)} run on and are not ready any more, the first of them {first}; its events "
        "say what its readiness probe got"
    )
