"""Testing: the candidate answers requests that nobody depends on, before its first user's."""

from __future__ import annotations

from datetime import timedelta

from serinus.api.shown import Counts
from serinus.api.smoke import SmokeState, SmokeTest, SmokeTestStatus
from serinus.api.status import Outcome
from serinus.api.units import Duration
from serinus.release.draft import Draft
from serinus.release.errands import Errand
from serinus.release.passing import may_not_pass
from serinus.release.retries import SMOKE_TEST
from serinus.release.smoke import SmokeReport, SmokeTask, judge, told
from serinus.release.transitions import finish, next_step

REASON = "SmokeTestFailed"
COUNTING = 30.0
"""Seconds that Prometheus is given to count the test's own requests, so that they are not taken for users'."""


def testing(draft: Draft) -> None:
    """Asks for the test, keeps what it found, and goes on or ends the release."""
    step = draft.step
    if step is None or step.smoke_test is None:
        next_step(draft)
        return
    known = draft.release.smoke_test
    if known is None:
        known = SmokeTestStatus(started_at=draft.now)
    known = _counted(draft, known)
    if known.state is SmokeState.RUNNING:
        known = _attempt(draft, step.smoke_test, known)
    draft.update_release(smoke_test=known)
    if known.state is SmokeState.FAILED:
        finish(draft, Outcome.FAILED, REASON, known.message or "")
    elif known.state is SmokeState.PASSED:
        _go_on(draft, known)


def _attempt(draft: Draft, test: SmokeTest, known: SmokeTestStatus) -> SmokeTestStatus:
    left = test.timeout.seconds - (draft.now - known.started_at).total_seconds()
    if known.retry_at is not None and left > 0:
        pause = (known.retry_at - draft.now).total_seconds()
        if pause > 0:
            draft.wake.append(min(pause, left))
            return known
    if left <= 0:
        message = f"no result after {test.timeout} (smokeTest.timeout): {known.error or 'the test is not finished'}"
        return _failed(draft, known, message)
    release = draft.release
    key = f"{release.revision}/{release.started_at.timestamp():.0f}/{release.step}/smokeTest/{known.attempt}"
    # The limit does not shrink as time goes by: that would be another errand.
    errand = Errand(key, _task(draft, test), test.timeout.seconds)
    result = draft.ask(errand)
    if result is None:
        draft.say("Testing", f"the smoke test is under way: {test.requests} requests, attempt {known.attempt}")
        draft.wake.append(max(left, 0.1))
        return known
    if isinstance(result.value, SmokeReport):
        return _finished(draft, test, known, result.value)
    pause = SMOKE_TEST.pause(known.attempt)
    draft.say("SmokeTestRetried", f"the smoke test could not be made: {result.problem}; once more in {pause:g} s")
    draft.wake.append(pause)
    return known.model_copy(
        update={
            "attempt": known.attempt + 1,
            "error": result.problem,
            "retry_at": draft.now + timedelta(seconds=pause),
        }
    )


def _task(draft: Draft, test: SmokeTest) -> SmokeTask:
    live = draft.status.live
    beside = draft.given.observed.snapshots.get(live.revision) if live is not None else None
    return SmokeTask(
        test=test,
        model=draft.target.model.name or draft.given.name,
        revision=draft.target.name,
        live=beside.name if beside else None,
        live_model=(beside.model.name or draft.given.name) if beside else "",
        keyed=draft.target.runtime.api_keys is not None,
        live_keyed=beside is not None and beside.runtime.api_keys is not None,
    )


def _finished(draft: Draft, test: SmokeTest, known: SmokeTestStatus, report: SmokeReport) -> SmokeTestStatus:
    found = known.model_copy(
        update={
            "retry_at": None,
            "finished_at": draft.now,
            "source": report.source,
            "requests": report.requests,
            "errors": report.errors,
            "error": report.error,
            "p50": None if report.p50 is None else str(Duration.of(report.p50)),
            "p95": None if report.p95 is None else str(Duration.of(report.p95)),
            "expected": report.expected,
            "parity": report.parity,
            "differences": list(report.differences),
        }
    )
    if wrong := judge(test, report):
        return _failed(draft, found, wrong)
    message = told(report)
    draft.note("SmokeTestPassed", f"version {draft.version}: {message}")
    return found.model_copy(update={"state": SmokeState.PASSED, "message": message})


def _failed(draft: Draft, known: SmokeTestStatus, message: str) -> SmokeTestStatus:
    draft.note(REASON, f"version {draft.version}: {message}; no user's request reached it", warning=True)
    update = {"state": SmokeState.FAILED, "message": message, "finished_at": draft.now, "retry_at": None}
    return known.model_copy(update=update)


def _counted(draft: Draft, known: SmokeTestStatus) -> SmokeTestStatus:
    """Adds what Prometheus has counted of the candidate: nobody but the test asks it."""
    evidence = draft.given.evidence
    fresh = evidence.counts.get(draft.release.revision, Counts()) if evidence.available else Counts()
    if fresh.requests == 0:
        return known
    return known.model_copy(update={"counted": known.counted + fresh.requests})


def _go_on(draft: Draft, known: SmokeTestStatus) -> None:
    left = COUNTING - (draft.now - (known.finished_at or draft.now)).total_seconds()
    if draft.status.live is not None and known.counted < known.requests and left > 0:
        draft.say("SmokeTestPassed", f"passed: {known.message}; waiting until Prometheus has counted its requests")
        draft.wake.append(max(left, 0.1))
        return
    if draft.paused and draft.status.live is not None:
        draft.say("Paused", "tested, and held before its first request: remove the annotation pause to go on")
        return
    if not may_not_pass(draft, known.message):
        next_step(draft)
