"""One decision under construction: what it was given, the status as it stands so far, and what to tell."""

from __future__ import annotations

from serinus.api.spec import Step
from serinus.api.status import ModelDeploymentStatus, ReleaseStatus
from serinus.evidence.verdict import Judge, SequentialJudge
from serinus.release.observed import Input, Note
from serinus.release.revisions import Revision


class Draft:
    """Starts as the stored status; each phase moves it on. Nothing leaves it before the decision is made."""

    def __init__(self, given: Input) -> None:
        self.given = given
        self.now = given.now
        self.spec = given.spec
        self.status: ModelDeploymentStatus = given.status
        self.target = Revision.target(given.name, given.spec)
        self.notes: list[Note] = []
        self.wake: list[float] = []
        """Seconds until time alone may change something."""
        steps = self.spec.release.canary_steps()
        self.steps: tuple[Step, ...] = steps if self.spec.route else ()
        self.judge: Judge = SequentialJudge(self.spec.release.alpha.fraction, len(self.steps) + 1)

    @property
    def release(self) -> ReleaseStatus:
        """The release under way.

        Raises:
            RuntimeError: there is none.
        """
        release = self.status.release
        if release is None:
            raise RuntimeError("no release is under way")
        return release

    @property
    def version(self) -> str:
        """The candidate's version."""
        return self.status.candidate.version if self.status.candidate else self.release.revision

    @property
    def route_message(self) -> str:
        return self.given.observed.route.message or "waiting for the route to be accepted"

    def update(self, **fields: object) -> None:
        self.status = self.status.model_copy(update=fields)

    def update_release(self, **fields: object) -> None:
        self.update(release=self.release.model_copy(update=fields))

    def note(self, reason: str, message: str, *, warning: bool = False) -> None:
        """An event to be told."""
        self.notes.append(Note("Warning" if warning else "Normal", reason, message))

    def say(self, reason: str, message: str, evidence: str | None = None) -> None:
        """Why nothing moves. An event on the first time only."""
        if self.release.reason != reason and reason == "EvidenceMissing":
            self.note(reason, message, warning=True)
        self.update_release(reason=reason, message=message, evidence=evidence or self.release.evidence)

    def say_keeping_reason(self, message: str) -> None:
        if self.release.evidence is None:
            self.update_release(evidence=message)

    def tell_weight(self, weight: int, step: int) -> None:
        self.note("WeightChanged", f"version {self.version} gets {weight}% (step {step + 1} of {len(self.steps)})")
