"""What happened in a release, kept in its status: for `serinus report`, long after the events are gone.

A moment is kept when the phase, the step, the weight or the reason changes, and now and then in between, so that the
evidence can be drawn as a line. The list is bounded: where it is full, a moment goes whose neighbours say nearly the
same, and never one at which a phase, a step or a weight began.
"""

from __future__ import annotations

import math

from serinus.api.shown import Capital
from serinus.api.status import Moment, ReleaseRecord, ReleaseStatus
from serinus.evidence.sequential import log_evidence
from serinus.release.draft import Draft

MOST = 40
"""Moments of one release."""
TOLD_RELEASES = 5
"""Ended releases that keep their moments: status is rewritten often, and must stay small."""
TEXT = 240
"""Longest text of a moment."""
PARTS = 6
"""Moments per hold time in between."""
SHORTEST = 10.0
"""Seconds between two moments at which nothing changed."""


def keep(draft: Draft) -> None:
    """Adds what this decision changed to the release under way, or to the record of the one that just ended."""
    before, after = draft.given.status.release, draft.status.release
    history = draft.status.history
    if history and history[:1] != draft.given.status.history[:1]:
        ended = _ended(draft, before, history[0])
        draft.update(history=[ended, *(_short(place, each) for place, each in enumerate(history[1:], 1))])
    if after is None:
        return
    same = before is not None and (before.revision, before.started_at) == (after.revision, after.started_at)
    known = list(before.timeline) if before is not None and same else []
    moment = _moment(draft, after)
    if known and not _news(draft, known[-1], moment):
        return
    draft.update_release(timeline=bounded([*known, moment]))


def bounded(moments: list[Moment]) -> list[Moment]:
    """At most `MOST` of them: what tells least goes."""
    kept = list(moments)
    while len(kept) > MOST:
        plain = [n for n in range(1, len(kept) - 1) if _place(kept[n]) == _place(kept[n - 1])]
        # Where each moment is a change, the oldest ones after the start go.
        kept.pop(min(plain, key=lambda n: (kept[n + 1].at - kept[n - 1].at, n)) if plain else 1)
    return kept


def _short(place: int, record: ReleaseRecord) -> ReleaseRecord:
    return record if place < TOLD_RELEASES or not record.timeline else record.model_copy(update={"timeline": []})


def _ended(draft: Draft, before: ReleaseStatus | None, record: ReleaseRecord) -> ReleaseRecord:
    known: list[Moment] = []
    weight, step = 0, 0
    if before is not None and before.revision == record.revision:
        known, weight, step = list(before.timeline), before.weight, before.step
    end = Moment(
        at=draft.now,
        phase=str(record.outcome),
        step=step,
        weight=100 if draft.status.live and draft.status.live.revision == record.revision else 0,
        reason=record.reason,
        message=record.message[:TEXT],
        requests=record.requests,
        against=known[-1].against if known and weight else {},
    )
    return record.model_copy(update={"timeline": bounded([*known, end])})


def _moment(draft: Draft, release: ReleaseStatus) -> Moment:
    text = release.message or release.evidence or ""
    return Moment(
        at=draft.now,
        phase=str(release.phase),
        step=release.step,
        weight=release.weight,
        reason=release.reason,
        message=text[:TEXT] or None,
        requests=release.served,
        against=against(draft, release),
    )


def against(draft: Draft, release: ReleaseStatus) -> dict[str, float]:
    """How far each sequential test is on its way to a roll-back: 0 where it began, 1 where it condemns."""
    counted = draft.counted
    if not release.tests or counted is None:
        return {}
    judge = draft.judge(counted[0])
    threshold = math.log(max(1, len(judge.questions)) / judge.alpha)
    return {name: share(capital, threshold) for name, capital in release.tests.items() if capital.invested}


def share(capital: Capital, threshold: float) -> float:
    """Logarithm of a test's capital, as a share of the logarithm at which it condemns; not below -1."""
    return round(max(-1.0, log_evidence(capital.invested, capital.held_back) / threshold), 3)


def _news(draft: Draft, last: Moment, moment: Moment) -> bool:
    if (*_place(last), last.reason) != (*_place(moment), moment.reason):
        return True
    step = draft.step
    hold = step.hold.seconds if step is not None else 0.0
    return (moment.at - last.at).total_seconds() >= max(SHORTEST, hold / PARTS)


def _place(moment: Moment) -> tuple[str, int, int]:
    return moment.phase, moment.step, moment.weight
