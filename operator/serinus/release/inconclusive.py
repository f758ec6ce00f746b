"""When no verdict comes: hold and say so, and after a while do what the user chose."""

from __future__ import annotations

from serinus.api.analysis import Then
from serinus.release.draft import Draft
from serinus.release.transitions import stop

WITHOUT_EVIDENCE = frozenset(
    {
        "EvidenceMissing",
        "EvidencePartial",
        "EvidenceStale",
        "NoRequests",
        "TooFewRequests",
        "MetricMissing",
        "NoPairs",
        "TooFewPairs",
        "NothingToCompare",
        "FigureMissing",
    }
)
"""Reasons to hold that more time alone may never end."""
STALE = 60.0
"""Seconds without a new request after which the counts of a step are old news: nothing passes on them."""


def hold(draft: Draft, reason: str, message: str, evidence: str | None = None) -> None:
    """Keeps the weight for `reason`; rolls back where it has lasted too long and the user wants that."""
    draft.say(reason, message, evidence)
    if reason not in WITHOUT_EVIDENCE:
        conclusive(draft)
        return
    since = draft.release.inconclusive_since
    if since is None:
        draft.update_release(inconclusive_since=draft.now)
        since = draft.now
    chosen = draft.spec.release.analysis.inconclusive
    left = chosen.after.seconds - (draft.now - since).total_seconds()
    if left > 0:
        draft.wake.append(max(left, 0.1))
        return
    if chosen.then is Then.ROLL_BACK:
        stop(draft, "Inconclusive", f"no verdict for {chosen.after}: {message}")
    elif not draft.release.inconclusive:
        draft.update_release(inconclusive=True)
        draft.note("Inconclusive", f"no verdict for {chosen.after}: {message}", warning=True)


def conclusive(draft: Draft) -> None:
    """Evidence speaks again, or it is people that the step waits for."""
    if draft.release.inconclusive_since is not None or draft.release.inconclusive:
        draft.update_release(inconclusive_since=None, inconclusive=False)
