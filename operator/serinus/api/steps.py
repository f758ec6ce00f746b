"""The steps of a release: one list, each step of one kind."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.experiment import Experiment
from serinus.api.preview import Preview
from serinus.api.shadow import Shadow
from serinus.api.smoke import SmokeTest
from serinus.api.units import Duration, Limits


class StepKind(StrEnum):
    """What a step does, named after the field that chooses it."""

    SMOKE_TEST = "smokeTest"
    SHADOW = "shadow"
    PREVIEW = "preview"
    WEIGHT = "weight"
    EXPERIMENT = "experiment"


class PassOn(StrEnum):
    VERDICT = "Verdict"
    READINESS = "Readiness"


_KINDS = " or ".join(StepKind)
_ONE_KIND = f"each step is one of: {_KINDS}. Write one of them, and another step for another"

_NOT_IN_SHADOW = "a shadow has shadow.duration and shadow.minPairs: write them in place of hold and minRequests"
_NO_REQUESTS = "passOn: Readiness waits for no requests, and is for weights: remove minRequests, or remove passOn"
_NO_HOLD = "an experiment lasts until its metric gives an answer: remove hold and minRequests, or set maxDuration"


class Step(ApiModel):
    """One step of a release: the field that is set says which kind."""

    smoke_test: SmokeTest | None = None
    """Requests to the candidate's own pods, before any user: the first step."""
    shadow: Shadow | None = None
    """Mirror users' requests to the candidate and compare what both answer."""
    preview: Preview | None = None
    """An address of its own for the candidate, before any user."""
    weight: Annotated[int, Field(ge=1, le=100)] | None = None
    """Percent of the users' requests that the candidate serves, 1 to 100, without a percent sign."""
    experiment: Experiment | None = None
    """An A/B test of a business metric."""
    hold: Annotated[Duration, Limits(Duration, "<=", "52w", "write 52w or less")] = Duration("10m")
    """Shortest time at this weight, or of the preview."""
    min_requests: Annotated[int, Field(ge=1, le=100_000_000)] = 100
    """Requests the candidate must have answered at this weight before it may pass. A preview needs none unless set."""
    pass_on: PassOn = PassOn.VERDICT
    """Verdict: requests and evidence. Readiness: pods and the gateway; a clear verdict rolls back all the same."""
    approval: bool = False
    """Wait here, once all else speaks for it, until somebody approves (annotation `serving.serinus.dev/approve`)."""
    rules = (
        Cel(f"[{', '.join(f'has(self.{kind})' for kind in StepKind)}].filter(x, x).size() == 1", _ONE_KIND),
        Cel("!has(self.shadow) || !(has(self.hold) || has(self.minRequests))", _NOT_IN_SHADOW, field_path=".shadow"),
        Cel(
            "!has(self.passOn) || self.passOn != 'Readiness' || (has(self.weight) && !has(self.minRequests))",
            _NO_REQUESTS,
        ),
        Cel("!has(self.experiment) || (!has(self.hold) && !has(self.minRequests))", _NO_HOLD),
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.pass_on is PassOn.READINESS and (self.weight is None or "min_requests" in self.model_fields_set):
            raise PydanticCustomError("step", _NO_REQUESTS)
        if self.experiment is not None and {"hold", "min_requests"} & self.model_fields_set:
            raise PydanticCustomError("step", _NO_HOLD)
        if sum(getattr(self, _attribute(kind)) is not None for kind in StepKind) != 1:
            raise PydanticCustomError("step", _ONE_KIND)
        if self.shadow is not None and not self.model_fields_set.isdisjoint({"hold", "min_requests"}):
            raise PydanticCustomError("step", _NOT_IN_SHADOW)
        return self

    @property
    def kind(self) -> StepKind:
        return next(kind for kind in StepKind if getattr(self, _attribute(kind)) is not None)

    @property
    def share(self) -> int:
        """Percent of the users' requests that the candidate serves while the step lasts."""
        return self.experiment.share if self.experiment else self.weight or 0

    @property
    def load(self) -> int:
        """Percent of the users' requests that the candidate needs pods for, seen or unseen."""
        return self.shadow.percent if self.shadow is not None else self.share

    @property
    def needs_live(self) -> bool:
        """Compares with a live revision, or takes requests from it: the first release of all has no such step."""
        return self.load > 0 or self.preview is not None

    @property
    def needs_route(self) -> bool:
        return self.load > 0


def _attribute(kind: StepKind) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)


WEIGHTS = (Step(weight=5), Step(weight=25), Step(weight=50))
"""The steps of a canary that declares none."""
ROLLING = tuple(Step(weight=weight, hold=Duration("10s"), pass_on=PassOn.READINESS) for weight in (25, 50, 75))
"""The steps of `strategy: Rolling`."""
