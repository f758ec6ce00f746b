"""After the promotion: the live revision is tested on, for as long as its predecessor is warm.

The error budget burns too fast where the share of bad requests is above what the SLO allows. Fixed burn-rate
thresholds (14.4 times over an hour and five minutes, in Google's SRE workbook) are made for a month's budget and much
traffic. Here two windows are tested at a level that holds for any traffic: the whole rollback window, and each twelfth
of it anew, so that a revision which served well for long is caught as soon as it turns bad. They share what of `alpha`
is left to the time after the promotion.
"""

from __future__ import annotations

from datetime import datetime

from serinus.api.shown import Counts, Recent
from serinus.api.status import Phase, ReleaseStatus, Watch
from serinus.api.units import Duration
from serinus.evidence.verdict import SLOW_FRACTION, Finding, SequentialJudge, Verdict, questions
from serinus.release.draft import Draft
from serinus.release.gates import add
from serinus.release.readiness import REASON, overdue, unavailable_since

SLICES = 12
"""Parts of the window that are tested anew."""
CRASHES = frozenset({"OOMKilled", "CrashLoop"})
"""Failures of pods that are the version's own doing. What a pod that died was asked, nobody counts."""


def watch(draft: Draft) -> None:
    """Adds what the live revision answered, and goes back to its predecessor where the SLO is broken."""
    live, previous = draft.status.live, draft.status.previous
    window = draft.spec.release.rollback_window.seconds
    if draft.status.release is not None or live is None or previous is None or window <= 0 or _left_by_hand(draft):
        draft.update(watch=None)
        return
    known = draft.status.watch
    if known is None or known.revision != live.revision:
        known = Watch(revision=live.revision, since=live.since or draft.now)
        draft.update(watch=known)
    kept = draft.given.observed.state(previous.revision)
    broken = draft.given.observed.state(live.revision).failure
    warm = kept.ready > 0
    if warm and broken is not None and broken.reason in CRASHES and broken.since(_began(draft, known)):
        _go_back(draft, known, broken.reason, broken.message)
        return
    if (since := unavailable_since(draft, known)) != known.unavailable_since:
        known = known.model_copy(update={"unavailable_since": since})
        draft.update(watch=known)
    if (why := overdue(draft, known, kept)) is not None:
        _go_back(draft, known, REASON, why)
        return
    evidence = draft.given.evidence
    fresh = evidence.counts.get(live.revision, Counts())
    if not evidence.available or fresh.requests == 0:
        return
    blocks, before = evidence.blocks.get(live.revision, (fresh,)), evidence.before.get(live.revision, ())
    known = _counted(draft, known, fresh, blocks, before, window)
    draft.update(watch=known)
    found = _verdict(draft, known)
    if warm and found is not None:
        _go_back(draft, known, found.reason, f"{found.message}; {_burn(draft, known, window)}", found.message)


def _left_by_hand(draft: Draft) -> bool:
    """Whether a person has taken the users from the warm revision: nobody but a person gives them back to it."""
    override, previous = draft.status.override, draft.status.previous
    return override is not None and previous is not None and override.instead_of == previous.revision


def _began(draft: Draft, known: Watch) -> datetime:
    """When the release began that made the live revision live: what its pods did before, nobody judges it by."""
    last = draft.status.last_release
    return last.started_at if last is not None and last.revision == known.revision else known.since


def _counted(
    draft: Draft, known: Watch, fresh: Counts, blocks: tuple[Counts, ...], before: tuple[Counts, ...], window: float
) -> Watch:
    elapsed = _elapsed(known.since, draft.now)
    now = min(SLICES - 1, int(elapsed / window * SLICES))
    anew = now != known.slice
    judge, nobody = _judge(draft), Recent()
    part = SLICES * elapsed / window - now
    return known.model_copy(
        update={
            "slice": now,
            "counts": add(known.counts, fresh),
            "lately": fresh if anew else add(known.lately, fresh),
            "tests": judge.observe(known.tests, blocks, Counts(), nobody, elapsed / window, before),
            "tests_lately": judge.observe({} if anew else known.tests_lately, blocks, Counts(), nobody, part, before),
        }
    )


def _verdict(draft: Draft, known: Watch) -> Verdict | None:
    judge, nobody = _judge(draft), Counts()
    for tests, counts in ((known.tests_lately, known.lately), (known.tests, known.counts)):
        found = judge.judge(tests, counts, nobody, Recent(), 1)
        if found.finding is Finding.FAIL:
            return found
    return None


def _judge(draft: Draft) -> SequentialJudge:
    return SequentialJudge(questions(draft.spec.slo), draft.alpha(len(draft.steps)) / (SLICES + 1))


def _go_back(draft: Draft, known: Watch, reason: str, message: str, evidence: str | None = None) -> None:
    """The roles swap again in one route write; then it ends as any roll-back does."""
    bad, good = draft.status.live, draft.status.previous
    if bad is None or good is None:
        return
    release = ReleaseStatus(
        revision=bad.revision,
        phase=Phase.ROLLING_BACK,
        started_at=known.since,
        phase_since=draft.now,
        served=known.counts.requests,
        reason=reason,
        message=message,
        evidence=evidence,
    )
    restored = good.model_copy(update={"since": draft.now, "until": None, "replicas": None})
    draft.update(release=release, live=restored, candidate=bad, previous=None, watch=None)
    text = f"{reason} after the promotion: {message}. All requests go back to version {good.version}"
    draft.note("RollingBack", text, warning=True)


def _burn(draft: Draft, known: Watch, window: float) -> str:
    """How many times faster than allowed the error budget burns, over both windows."""

    def rate(counts: Counts) -> float:
        errors = counts.errors / draft.spec.slo.error_rate.fraction
        return max(errors, counts.slow / SLOW_FRACTION) / max(1, counts.requests)

    elapsed = _elapsed(known.since, draft.now)
    lately = max(1.0, elapsed - known.slice * window / SLICES)
    times = ((known.lately, lately), (known.counts, max(1.0, elapsed)))
    shown = " and ".join(f"{rate(counts):.3g} times over {Duration.of(round(seconds))}" for counts, seconds in times)
    return f"the error budget burns {shown}"


def _elapsed(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())
