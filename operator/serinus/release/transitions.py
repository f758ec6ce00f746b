"""How a release enters a phase, and the ways it ends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from serinus.api.shown import Counts
from serinus.api.status import Outcome, Phase, ReleaseRecord
from serinus.release.draft import Draft
from serinus.release.informing import inform
from serinus.release.steps import COUNTED_PHASES, PHASE_OF

MAX_FAILED = 20
"""Failed revisions that are remembered."""
MAX_HISTORY = 20
"""Releases that are remembered."""
NOTHING_COUNTED: Mapping[str, object] = {"candidate": Counts(), "live": Counts(), "tests": {}}
"""Fields of a release when a step begins to count. What the live revision did lately stays known."""


def enter(draft: Draft, phase: Phase, *, weight: int = 0, step: int = 0) -> None:
    """A phase or step begins: its clock and its counts start anew, once the gateway serves the weight.

    Promotion goes on with the counts of the last step: at 100 % there is no live revision left to compare with.
    """
    changed = weight != draft.release.weight
    if phase in COUNTED_PHASES:
        draft.update_release(**NOTHING_COUNTED)
    draft.update_release(
        phase=phase,
        step=step,
        weight=weight,
        phase_since=draft.now,
        serving_since=None if changed else draft.release.serving_since,
        reason=None,
        message=None,
    )


def next_step(draft: Draft) -> None:
    """The present step has passed: the next one that applies begins, or the promotion after the last."""
    begin_step(draft, draft.release.step + 1)


def begin_step(draft: Draft, index: int) -> None:
    """The first step from `index` on that applies begins. The weight stays until the step itself changes it."""
    weight = draft.release.weight
    while index < len(draft.steps) and not draft.applies(draft.steps[index]):
        index += 1
    if index >= len(draft.steps) or draft.release.skips_steps:
        enter(draft, Phase.PROMOTING, weight=weight, step=draft.release.step)
        return
    phase = PHASE_OF[draft.steps[index].kind]
    if phase is draft.release.phase:
        # Users' requests are counted for the step before until the weight changes.
        draft.update_release(step=index, phase_since=draft.now)
    else:
        enter(draft, phase, weight=weight, step=index)


def pass_step(draft: Draft, name: str, evidence: str) -> None:
    """The present step has passed for what `evidence` says: told, kept, and the next one begins."""
    draft.note("StepPassed", f"{name} passed: {evidence}")
    next_step(draft)
    draft.update_release(evidence=evidence)


def promote(draft: Draft, live_replicas: int) -> None:
    """The candidate becomes the live revision; the old one stays warm for its window."""
    release, old = draft.release, draft.status.live
    window = draft.spec.release.rollback_window.seconds
    previous = None
    if old is not None and window > 0:
        until = draft.now + timedelta(seconds=window)
        previous = old.model_copy(update={"since": draft.now, "until": until, "replicas": max(live_replicas, 1)})
        draft.wake.append(window)
    took = (draft.now - release.started_at).total_seconds()
    message = f"version {draft.version} serves every request after {took:.0f} s"
    record(draft, Outcome.PROMOTED, "Promoted", message)
    live = draft.target.ref(since=draft.now)
    draft.update(live=live, previous=previous, candidate=None, release=None)
    draft.note("Promoted", message + (f"; version {old.version} stays warm" if previous and old else ""))


def roll_back(draft: Draft, reason: str, message: str, evidence: str | None = None) -> None:
    """Every request goes back to the live revision, before anything else happens."""
    weight = draft.release.weight
    enter(draft, Phase.ROLLING_BACK, weight=0, step=draft.release.step)
    draft.update_release(reason=reason, message=message, evidence=evidence or draft.release.evidence)
    live = draft.status.live.version if draft.status.live else "none"
    text = f"{reason}: {message}. All requests go back from {weight}% to version {live}"
    draft.note("RollingBack", text, warning=reason != "SpecChanged")


def stop(draft: Draft, reason: str, message: str, evidence: str | None = None) -> None:
    """The release ends because of its candidate: a roll-back where that has users, else it has failed."""
    if draft.release.weight > 0:
        roll_back(draft, reason, message, evidence)
    else:
        finish(draft, Outcome.FAILED, reason, message)


def finish(draft: Draft, outcome: Outcome, reason: str, message: str) -> None:
    """The release ends without its candidate becoming live."""
    revision = draft.release.revision
    record(draft, outcome, reason, message)
    failed = draft.status.failed_revisions
    if outcome is not Outcome.SUPERSEDED:
        failed = [*(name for name in failed if name != revision), revision][-MAX_FAILED:]
    name = {Outcome.ROLLED_BACK: "RolledBack", Outcome.FAILED: "ReleaseFailed", Outcome.SUPERSEDED: "Superseded"}
    text = f"version {draft.version}: {reason}: {message}"
    draft.note(name[outcome], text, warning=outcome is not Outcome.SUPERSEDED)
    draft.update(release=None, candidate=None, failed_revisions=failed)


def record(draft: Draft, outcome: Outcome, reason: str, message: str) -> None:
    """What is remembered of a release that ended."""
    release = draft.release
    entry = ReleaseRecord(
        revision=release.revision,
        version=draft.version,
        digest=draft.status.candidate.digest if draft.status.candidate else None,
        instead_of=draft.status.live.version if draft.status.live else None,
        outcome=outcome,
        reason=reason,
        message=message,
        started_at=release.started_at,
        finished_at=draft.now,
        requests=release.served,
        smoke_test=release.smoke_test.message if release.smoke_test else None,
        evidence=release.evidence,
        shadow=release.shadow.model_copy(update={"tests": {}, "above": {}, "joiner": None}) if release.shadow else None,
        experiment=release.experiment,
        by=release.by,
    )
    draft.update(last_release=entry, history=[entry, *draft.status.history][:MAX_HISTORY])
    inform(draft, entry)
