"""The release state machine: `decide(input) -> decision`.

One release moves through

    Starting -> Canary (one or more steps) -> Promoting -> Live
        \\            |                          |
         +--> Failed  +------> RollingBack <-----+ --> RolledBack

and every transition depends only on the input: the spec, the stored status, what the cluster shows, what Prometheus
said, and `now`. So a release resumes wherever it was when the operator was killed, and two weeks pass in a test in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from serinus.api.spec import Step
from serinus.api.status import (
    Counts,
    ModelDeploymentStatus,
    Outcome,
    Phase,
    ReleaseRecord,
    ReleaseStatus,
)
from serinus.evidence.verdict import Finding, Judge, SequentialJudge, Verdict
from serinus.release.capacity import floor_for
from serinus.release.observed import Decision, Failure, Input, Note
from serinus.release.plan import plan_for
from serinus.release.report import report
from serinus.release.revisions import Revision

SETTLE = 3.0
"""Seconds a route that the gateway has accepted is given to reach every proxy before something depends on it."""
DRAIN = 8.0
"""Seconds between taking the last traffic from a revision and removing its pods."""
TICK = 2.0
"""Seconds between two looks at a release under way."""
MAX_FAILED = 20


def decide(given: Input) -> Decision:
    """The next status, what should exist in the cluster, the events to tell, and when to look again."""
    return _Machine(given).run()


class _Machine:
    """One decision under construction."""

    def __init__(self, given: Input) -> None:
        self.given = given
        self.now = given.now
        self.spec = given.spec
        self.status: ModelDeploymentStatus = given.status
        self.target = Revision.target(given.name, given.spec)
        self.notes: list[Note] = []
        self.wake: list[float] = []
        steps = self.spec.release.canary_steps()
        self.steps: tuple[Step, ...] = steps if self.spec.route else ()
        self.judge: Judge = SequentialJudge(self.spec.release.alpha.fraction, len(self.steps) + 1)

    def run(self) -> Decision:
        self._retry()
        self._expire_previous()
        if self.status.release is None:
            self._settled()
        if (release := self.status.release) is not None:
            self._advance(release)
        status = report(self.given, self.status, self.target)
        if status.release is not None:
            self.wake.append(TICK)
        return Decision(
            status, plan_for(self.given, status, self.target), tuple(self.notes), min(self.wake, default=None)
        )

    # -- between releases ------------------------------------------------------------------------------------------

    def _retry(self) -> None:
        if self.given.retry is None or self.given.retry == self.status.retried:
            return
        failed = [name for name in self.status.failed_revisions if name != self.target.name]
        self._update(retried=self.given.retry, failed_revisions=failed)

    def _expire_previous(self) -> None:
        previous = self.status.previous
        if previous is None or previous.until is None:
            return
        left = (previous.until - self.now).total_seconds()
        if left <= 0 and not (self.status.release and self.status.release.revision == previous.revision):
            self._update(previous=None)
        else:
            self.wake.append(max(left, 0.1))

    def _settled(self) -> None:
        live = self.status.live
        if live is not None and live.revision == self.target.name:
            self._update(candidate=None)
        elif self.target.name not in self.status.failed_revisions:
            self._start()

    def _start(self) -> None:
        previous = self.status.previous
        back = previous is not None and previous.revision == self.target.name
        release = ReleaseStatus(
            revision=self.target.name,
            phase=Phase.PROMOTING if back else Phase.STARTING,
            started_at=self.now,
            phase_since=self.now,
        )
        self._update(release=release, candidate=self.target.ref(since=self.now))
        what = f"version {self.target.version} (revision {self.target.name}, {self.target.model.digest[:19]})"
        if back:
            self._note("ReturningToPrevious", f"{what} is still warm: every request goes back to it, without steps")
        else:
            self._note("ReleaseStarted", f"starting {what}")

    # -- a release under way ---------------------------------------------------------------------------------------

    def _advance(self, release: ReleaseStatus) -> None:
        self._count()
        self._confirm_route()
        if self._superseded():
            return
        phase: dict[Phase, Callable[[ReleaseStatus], None]] = {
            Phase.STARTING: self._starting,
            Phase.CANARY: self._canary,
            Phase.PROMOTING: self._promoting,
            Phase.ROLLING_BACK: self._rolling_back,
        }
        phase[self._release.phase](self._release)

    def _superseded(self) -> bool:
        """The spec changed in mid-release: traffic leaves the candidate first, then the new target gets its turn."""
        release = self._release
        if release.revision == self.target.name or release.phase is Phase.ROLLING_BACK:
            return False
        message = f"the spec now asks for version {self.target.version}"
        if release.weight == 0:
            self._finish(Outcome.SUPERSEDED, "SpecChanged", message)
            self._settled()
            if self.status.release is not None:
                self._advance(self.status.release)
        else:
            self._roll_back("SpecChanged", message)
        return True

    def _starting(self, release: ReleaseStatus) -> None:
        if failure := self._failure():
            self._finish(Outcome.FAILED, failure.reason, failure.message)
            return
        state = self.given.observed.state(release.revision)
        waited = (self.now - release.phase_since).total_seconds()
        weight = self.steps[0].weight if self.steps else 100
        needed = self._needed(weight)
        if state.ready >= needed:
            self._note("CandidateReady", f"{state.ready} pods of version {self._version} are verified, warm and ready")
            if self.steps and self.status.live is not None:
                self._enter(Phase.CANARY, weight=self.steps[0].weight)
                self._tell_weight(self.steps[0].weight, 0)
            else:
                self._enter(Phase.PROMOTING)
                self._promoting(self._release)
            return
        deadline = self.spec.release.progress_deadline
        if waited >= deadline.seconds:
            self._finish(
                Outcome.FAILED,
                "ProgressDeadlineExceeded",
                f"{state.ready} of {needed} pods were ready after {deadline} (spec.release.progressDeadline)",
            )
            return
        self._say("WaitingForPods", f"{state.ready} of {needed} pods are ready")
        self.wake.append(max(deadline.seconds - waited, 0.1))

    def _canary(self, release: ReleaseStatus) -> None:
        if self._unhealthy(release):
            return
        step = self.steps[min(release.step, len(self.steps) - 1)] if self.steps else None
        if step is None:
            self._enter(Phase.PROMOTING, weight=release.weight)
            return
        verdict = self._verdict(release, step)
        if self._condemned(verdict):
            return
        if release.weight != step.weight:
            self._raise_to(step)
            return
        if release.serving_since is None:
            self._say("WaitingForGateway", f"the gateway has not confirmed {step.weight}% yet: {self._route_message}")
            return
        held = (self.now - release.serving_since).total_seconds()
        if not self.given.evidence.available:
            self._say("EvidenceMissing", f"holding at {step.weight}%: {self.given.evidence.message}")
            return
        if verdict.finding is Finding.NOT_YET:
            self._say(verdict.reason, f"holding at {step.weight}%: {verdict.message}", verdict.message)
            return
        if held < step.hold.seconds:
            self._say("Holding", f"{step.weight}% for {step.hold}: {verdict.message}", verdict.message)
            self.wake.append(max(step.hold.seconds - held, 0.1))
            return
        self._note("StepPassed", f"{step.weight}% passed: {verdict.message}")
        if release.step + 1 < len(self.steps):
            self._update_release(step=release.step + 1, phase_since=self.now, evidence=verdict.message)
            self._raise_to(self.steps[release.step + 1])
        else:
            self._enter(Phase.PROMOTING, weight=release.weight, step=release.step)
            self._update_release(evidence=verdict.message)
            self._promoting(self._release)

    def _raise_to(self, step: Step) -> None:
        """More traffic only once there are pods for it."""
        release = self._release
        needed = self._needed(step.weight)
        ready = self.given.observed.state(release.revision).ready
        if ready < needed:
            self._say("WaitingForPods", f"{ready} of {needed} pods for {step.weight}% are ready")
            return
        self._enter(Phase.CANARY, weight=step.weight, step=release.step)
        self._tell_weight(step.weight, release.step)

    def _promoting(self, release: ReleaseStatus) -> None:
        if self.status.live is not None:
            if self._unhealthy(release):
                return
            if self.steps and release.evidence and self._condemned(self._verdict(release, self.steps[-1])):
                return
        live = self.given.observed.state(self.status.live.revision if self.status.live else None)
        candidate = self.given.observed.state(release.revision)
        needed = max(self._needed(100), 1)
        if release.weight != 100:
            if candidate.ready < needed:
                self._say("WaitingForPods", f"{candidate.ready} of {needed} pods for all traffic are ready")
                return
            self._update_release(weight=100, phase_since=self.now, serving_since=None)
            return
        if self.spec.route is not None:
            if release.serving_since is None:
                self._say("WaitingForGateway", f"the gateway has not confirmed 100% yet: {self._route_message}")
                return
            left = SETTLE - (self.now - release.serving_since).total_seconds()
            if left > 0:
                self.wake.append(left)
                return
        self._promote(live.desired)

    def _rolling_back(self, release: ReleaseStatus) -> None:
        if self.status.live is not None and self.spec.route is not None and release.serving_since is None:
            self._say_keeping_reason(f"the gateway has not confirmed 0% yet: {self._route_message}")
            return
        since = release.serving_since or release.phase_since
        left = DRAIN - (self.now - since).total_seconds()
        if left > 0:
            self.wake.append(left)
            return
        superseded = release.reason == "SpecChanged"
        self._finish(
            Outcome.SUPERSEDED if superseded else Outcome.ROLLED_BACK,
            release.reason or "Unknown",
            release.message or "",
        )

    # -- transitions -----------------------------------------------------------------------------------------------

    def _promote(self, live_replicas: int) -> None:
        release, old = self._release, self.status.live
        window = self.spec.release.rollback_window.seconds
        previous = None
        if old is not None and window > 0:
            until = self.now + timedelta(seconds=window)
            previous = old.model_copy(update={"since": self.now, "until": until, "replicas": max(live_replicas, 1)})
            self.wake.append(window)
        took = (self.now - release.started_at).total_seconds()
        message = f"version {self._version} serves every request after {took:.0f} s"
        self._record(Outcome.PROMOTED, "Promoted", message)
        live = self.target.ref(since=self.now)
        self._update(live=live, previous=previous, candidate=None, release=None)
        self._note("Promoted", message + (f"; version {old.version} stays warm" if previous and old else ""))

    def _roll_back(self, reason: str, message: str, evidence: str | None = None) -> None:
        weight = self._release.weight
        self._enter(Phase.ROLLING_BACK, weight=0, step=self._release.step)
        self._update_release(reason=reason, message=message, evidence=evidence or self._release.evidence)
        live = self.status.live.version if self.status.live else "none"
        text = f"{reason}: {message}. All requests go back from {weight}% to version {live}"
        self._note("RollingBack", text, warning=reason != "SpecChanged")

    def _finish(self, outcome: Outcome, reason: str, message: str) -> None:
        revision = self._release.revision
        self._record(outcome, reason, message)
        failed = self.status.failed_revisions
        if outcome is not Outcome.SUPERSEDED:
            failed = [*(name for name in failed if name != revision), revision][-MAX_FAILED:]
        name = {Outcome.ROLLED_BACK: "RolledBack", Outcome.FAILED: "ReleaseFailed", Outcome.SUPERSEDED: "Superseded"}
        text = f"version {self._version}: {reason}: {message}"
        self._note(name[outcome], text, warning=outcome is not Outcome.SUPERSEDED)
        self._update(release=None, candidate=None, failed_revisions=failed)

    def _record(self, outcome: Outcome, reason: str, message: str) -> None:
        release = self._release
        record = ReleaseRecord(
            revision=release.revision,
            version=self._version,
            outcome=outcome,
            reason=reason,
            message=message,
            started_at=release.started_at,
            finished_at=self.now,
            requests=release.served,
            evidence=release.evidence,
        )
        self._update(last_release=record)

    def _enter(self, phase: Phase, *, weight: int = 0, step: int = 0) -> None:
        """A phase or step begins: its clock and its counts start anew, once the gateway serves the weight.

        Promotion goes on with the counts of the last step: at 100 % there is no live revision left to compare with.
        """
        changed = weight != self._release.weight
        if phase is Phase.CANARY:
            self._update_release(candidate=Counts(), live=Counts())
        self._update_release(
            phase=phase,
            step=step,
            weight=weight,
            phase_since=self.now,
            serving_since=None if changed else self._release.serving_since,
            reason=None,
            message=None,
        )

    # -- what the world says ---------------------------------------------------------------------------------------

    def _confirm_route(self) -> None:
        release, route = self._release, self.given.observed.route
        if release.serving_since is not None or not route.accepted:
            return
        total = sum(route.weights.values())
        share = 100 * route.weights.get(release.revision, 0) / total if total else 0
        if abs(share - release.weight) < 0.5 and (total or release.weight == 0):
            self._update_release(serving_since=self.now)
            if release.phase is Phase.CANARY:
                self._update_release(candidate=Counts(), live=Counts())

    def _count(self) -> None:
        release, evidence = self._release, self.given.evidence
        if not evidence.available:
            return
        fresh = evidence.counts.get(release.revision, Counts())
        served = release.served + fresh.requests
        if release.serving_since is None:
            self._update_release(served=served)
            return
        live = self.status.live.revision if self.status.live else ""
        self._update_release(
            served=served,
            candidate=_add(release.candidate, fresh),
            live=_add(release.live, evidence.counts.get(live, Counts())),
        )

    def _verdict(self, release: ReleaseStatus, step: Step) -> Verdict:
        return self.judge.judge(release.candidate, release.live, self.spec.slo, step.min_requests)

    def _condemned(self, verdict: Verdict) -> bool:
        """Rolls back where the verdict is clear."""
        if verdict.finding is not Finding.FAIL:
            return False
        self._roll_back(verdict.reason, verdict.message, verdict.message)
        return True

    def _failure(self) -> Failure | None:
        state = self.given.observed.state(self._release.revision)
        if state.failure is not None:
            return state.failure
        limit = self.spec.release.unschedulable_timeout
        if state.unschedulable_since is None:
            return None
        waited = (self.now - state.unschedulable_since).total_seconds()
        if waited >= limit.seconds:
            return Failure("Unschedulable", f"no node for {limit}: {state.unschedulable_message}")
        self.wake.append(max(limit.seconds - waited, 0.1))
        return None

    def _unhealthy(self, release: ReleaseStatus) -> bool:
        """Rolls back a candidate whose pods fail, or that has none left to serve its share."""
        failure = self._failure()
        if failure is None and release.weight > 0 and self.given.observed.state(release.revision).ready == 0:
            failure = Failure("CandidateUnavailable", "none of its pods is ready any more")
        if failure is None:
            return False
        if release.weight > 0:
            self._roll_back(failure.reason, failure.message)
        else:
            self._finish(Outcome.FAILED, failure.reason, failure.message)
        return True

    def _needed(self, weight: int) -> int:
        live = self.given.observed.state(self.status.live.revision if self.status.live else None)
        return floor_for(weight, self.spec.scaling, live.desired)

    # -- small things ----------------------------------------------------------------------------------------------

    @property
    def _release(self) -> ReleaseStatus:
        release = self.status.release
        if release is None:
            raise RuntimeError("no release is under way")
        return release

    @property
    def _version(self) -> str:
        return self.status.candidate.version if self.status.candidate else self._release.revision

    @property
    def _route_message(self) -> str:
        return self.given.observed.route.message or "waiting for the route to be accepted"

    def _say(self, reason: str, message: str, evidence: str | None = None) -> None:
        """Why nothing moves. An event on the first time only."""
        if self._release.reason != reason and reason == "EvidenceMissing":
            self._note(reason, message, warning=True)
        self._update_release(reason=reason, message=message, evidence=evidence or self._release.evidence)

    def _say_keeping_reason(self, message: str) -> None:
        if self._release.evidence is None:
            self._update_release(evidence=message)

    def _tell_weight(self, weight: int, step: int) -> None:
        self._note("WeightChanged", f"version {self._version} gets {weight}% (step {step + 1} of {len(self.steps)})")

    def _note(self, reason: str, message: str, *, warning: bool = False) -> None:
        self.notes.append(Note("Warning" if warning else "Normal", reason, message))

    def _update(self, **fields: object) -> None:
        self.status = self.status.model_copy(update=fields)

    def _update_release(self, **fields: object) -> None:
        self._update(release=self._release.model_copy(update=fields))


def _add(total: Counts, more: Counts) -> Counts:
    return Counts(
        requests=total.requests + more.requests, errors=total.errors + more.errors, slow=total.slow + more.slow
    )
