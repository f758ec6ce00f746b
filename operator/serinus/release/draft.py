"""One decision under construction: what it was given, the status as it stands so far, and what to tell."""

from __future__ import annotations

from serinus.api.status import ModelDeploymentStatus, Override, Phase, ReleaseStatus
from serinus.api.steps import Step
from serinus.evidence.verdict import SequentialJudge, questions, share_of_alpha
from serinus.release.errands import Errand, Result
from serinus.release.observed import Input, Note
from serinus.release.revisions import Revision
from serinus.release.steps import upcoming_share

_TOLD = frozenset({"EvidenceMissing", "EvidencePartial", "Frozen", "OutsideWindow", "Paused", "WaitingForApproval"})
"""Reasons to hold that are worth an event when they begin."""


class Draft:
    """Starts as the stored status; each phase moves it on. Nothing leaves it before the decision is made."""

    def __init__(self, given: Input) -> None:
        self.given = given
        self.now = given.now
        self.spec = given.spec
        self.status: ModelDeploymentStatus = given.status
        self.declared = Revision.target(given.name, given.spec)
        """What the spec asks for."""
        self.target = self.declared
        """What is to be live: what the spec asks for, unless somebody rolled back by hand since it did."""
        self._heed_override()
        self.notes: list[Note] = []
        self.wake: list[float] = []
        """Seconds until time alone may change something."""
        self.errands: dict[str, Errand] = {}
        """What is to be done outside, by key."""
        self.steps: tuple[Step, ...] = self.spec.release.plan_steps()

    def judge(self, stage: int) -> SequentialJudge:
        """Judges one stage of a release: a step, by its index, or what follows the promotion."""
        return SequentialJudge(questions(self.spec.slo, self.spec.release.analysis.worse_than_live), self.alpha(stage))

    def alpha(self, stage: int) -> float:
        """What a step, by its index, or what follows the promotion may use of the accepted chance of a mistake.

        Steps without users use none of it.
        """
        stages = [number for number, step in enumerate(self.steps) if step.share]
        number = stages.index(stage) if stage in stages else len(stages)
        return self.spec.release.alpha.fraction * share_of_alpha(number, len(stages) + 1)

    @property
    def step(self) -> Step | None:
        """The step under way; the last one while promoting."""
        return self.steps[min(self.release.step, len(self.steps) - 1)] if self.steps else None

    @property
    def counted(self) -> tuple[int, Step] | None:
        """The step that requests are counted for, and its index: a preview while it lasts, else the last one that gave
        the candidate a share of the users."""
        here = min(self.release.step, len(self.steps) - 1)
        if self.release.phase is Phase.PREVIEWING and self.steps:
            return here, self.steps[here]
        weights = (n for n in range(here, -1, -1) if self.steps[n].share)
        return next(((n, self.steps[n]) for n in weights if self.applies(self.steps[n])), None)

    def applies(self, step: Step) -> bool:
        """Whether the step makes sense here: some need a route, some a live revision beside the candidate."""
        without_route = step.needs_route and self.spec.route is None
        return not without_route and not (step.needs_live and self.status.live is None)

    def _heed_override(self) -> None:
        override = self.status.override
        if override is None:
            return
        chosen = self.given.observed.snapshots.get(override.revision)
        if override.instead_of == self.declared.name and chosen is not None:
            self.target = chosen
        else:
            self.update(override=None)

    def choose(self, chosen: Revision | None) -> None:
        """Makes `chosen` the target in place of what the spec asks for; None ends that."""
        self.target = chosen or self.declared
        override = Override(revision=chosen.name, instead_of=self.declared.name) if chosen else None
        self.update(override=override)

    @property
    def upcoming_share(self) -> int:
        """Percent of the users' requests that the candidate gets next, or has."""
        if self.status.live is None or self.spec.route is None:
            return 100
        return upcoming_share(self.steps, self.release.step)

    @property
    def paused(self) -> bool:
        """Somebody holds the release where it is."""
        return self.given.asked.get("pause", "false") not in ("false", "")

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

    def ask(self, errand: Errand) -> Result | None:
        """What came of an errand; None while it is under way, and then the decision asks for it."""
        found = self.given.results.get(errand.key)
        if found is None:
            self.errands[errand.key] = errand
        return found

    def note(self, reason: str, message: str, *, warning: bool = False) -> None:
        """An event to be told."""
        self.notes.append(Note("Warning" if warning else "Normal", reason, message))

    def say(self, reason: str, message: str, evidence: str | None = None) -> None:
        """Why nothing moves. An event on the first time only."""
        if self.release.reason != reason and reason in _TOLD:
            self.note(reason, message, warning=reason.startswith("Evidence"))
        self.update_release(reason=reason, message=message, evidence=evidence or self.release.evidence)

    def say_keeping_reason(self, message: str) -> None:
        if self.release.evidence is None:
            self.update_release(evidence=message)

    def tell_weight(self, weight: int, step: int) -> None:
        self.note("WeightChanged", f"version {self.version} gets {weight}% (step {step + 1} of {len(self.steps)})")
