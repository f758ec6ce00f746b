"""The steps of a release: one list, each step of one kind."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.smoke import SmokeTest
from serinus.api.units import Duration, Limits


class StepKind(StrEnum):
    """What a step does, named after the field that chooses it."""

    SMOKE_TEST = "smokeTest"
    WEIGHT = "weight"


_KINDS = " or ".join(StepKind)
_ONE_KIND = f"each step is one of: {_KINDS}. Write one of them, and another step for another"


class Step(ApiModel):
    """One step of a release: the field that is set says which kind."""

    smoke_test: SmokeTest | None = None
    """Requests to the candidate's own pods, before any user: the first step."""
    weight: Annotated[int, Field(ge=1, le=100)] | None = None
    """Percent of the users' requests that the candidate serves, 1 to 100, without a percent sign."""
    hold: Annotated[Duration, Limits(Duration, "<=", "52w", "write 52w or less")] = Duration("10m")
    """Shortest time at this weight."""
    min_requests: Annotated[int, Field(ge=1, le=100_000_000)] = 100
    """Requests the candidate must have answered at this weight before it may pass."""
    approval: bool = False
    """Wait here, once all else speaks for it, until somebody approves (annotation `serving.serinus.dev/approve`)."""
    rules = (Cel(f"[{', '.join(f'has(self.{kind})' for kind in StepKind)}].filter(x, x).size() == 1", _ONE_KIND),)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, _attribute(kind)) is not None for kind in StepKind) != 1:
            raise PydanticCustomError("step", _ONE_KIND)
        return self

    @property
    def kind(self) -> StepKind:
        return next(kind for kind in StepKind if getattr(self, _attribute(kind)) is not None)

    @property
    def share(self) -> int:
        """Percent of the users' requests that the candidate serves while the step lasts."""
        return self.weight or 0

    @property
    def needs_live(self) -> bool:
        """Compares with a live revision, or takes requests from it: the first release of all has no such step."""
        return self.kind is StepKind.WEIGHT

    @property
    def needs_route(self) -> bool:
        return self.kind is StepKind.WEIGHT


def _attribute(kind: StepKind) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)


WEIGHTS = (Step(weight=5), Step(weight=25), Step(weight=50))
"""The steps of a canary that declares none."""
