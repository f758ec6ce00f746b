"""How a new revision replaces the live one: `ModelDeployment.spec.release`."""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.analysis import Analysis
from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.notifications import Notification
from serinus.api.shadow import Shadow
from serinus.api.smoke import SmokeTest
from serinus.api.steps import ROLLING, WEIGHTS, Step, StepKind
from serinus.api.sticky import MAX_SHARES, Sticky
from serinus.api.units import Duration, Limits, Percent
from serinus.api.webhooks import Webhook
from serinus.api.windows import Window


class Strategy(StrEnum):
    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    SHADOW = "Shadow"
    AB = "AB"
    ROLLING = "Rolling"


_AT_ONCE = (
    "BlueGreen moves all users at once, and Rolling as pods are ready: remove the weights from steps, "
    "or write strategy: Canary"
)
_PREVIEW_FIRST = "a preview is for the time before the first user: write it once, and before every weight"
_NO_EXPERIMENT = (
    "AB decides by a business metric: write steps with an experiment (metric, baseline, minimumEffect), "
    "or strategy: Canary"
)
_OTHER_DIGITS = "experiment.users.hash and release.sticky.header read the same header: write the same digits for both"
_SAME_SIGN = "experiment.users names the header or cookie of release.sticky: choose another for one of them"
_BETWEEN_1S_AND_1W = (
    Limits(Duration, ">=", "1s", "write 1s or more, for example 10m"),
    Limits(Duration, "<=", "1w", "write 1w or less"),
)


SMOKE_FIRST = "the smoke test comes before everything else, and once: make it the first step, or write smokeTest"
_TWO_SHADOWS = "release.shadow is short for a shadow before all steps: write one or the other"


class Release(ApiModel):
    """How a new revision replaces the live one."""

    strategy: Strategy = Strategy.CANARY
    """Canary: in steps of weight. BlueGreen: all users at once when the new revision is ready and has passed the steps
    it has, such as a preview. Shadow: first a shadow, then the canary's steps. AB: steps with an experiment on a
    business metric. Rolling: in quarters as pods are ready, without waiting for evidence."""
    steps: Annotated[list[Step], Field(max_length=20)] | None = None
    """What the candidate goes through, in order; weights rise. Default: 5, 25, 50 percent, ten minutes each."""
    shadow: Shadow | None = None
    """A shadow before the first of the steps."""
    sticky: Sticky | None = None
    """Users stay with their version for as long as the release lasts, instead of being drawn for each request."""
    smoke_test: SmokeTest | None = None
    """Short for a first step `smokeTest`; {} for 20 generated requests. Works with BlueGreen and without a route."""
    windows: Annotated[list[Window], Field(max_length=8)] = []
    """When a release may start and the candidate get more users. Default: always. A roll-back never waits."""
    webhooks: Annotated[list[Webhook], Field(max_length=8)] = []
    """Who is asked before the release goes on, or told how it ended."""
    alpha: Annotated[
        Percent,
        Limits(Percent, ">=", "0.0001%", "write a chance above 0, for example 1%; 0 would never roll back"),
        Limits(Percent, "<=", "50%", "write 50% or less, for example 1%"),
    ] = Percent("1%")
    """Accepted chance that a release of a good model is rolled back by mistake."""
    analysis: Analysis = Analysis()
    """What speaks against a candidate beyond the SLO, and what to do when nothing speaks at all."""
    progress_deadline: Annotated[Duration, *_BETWEEN_1S_AND_1W] = Duration("10m")
    """Longest time until the candidate's pods are ready."""
    unschedulable_timeout: Annotated[Duration, *_BETWEEN_1S_AND_1W] = Duration("1m")
    """Longest time a candidate's pod may find no node (a GPU, say) before the release fails."""
    rollback_window: Annotated[Duration, Limits(Duration, "<=", "52w", "write 52w or less")] = Duration("1h")
    """How long the previous revision stays warm after a promotion."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """Old revisions kept as ControllerRevisions."""
    notifications: Annotated[list[Notification], Field(max_length=8)] = []
    """Who is told of releases, beside those whom the operator tells of all."""
    rules = (
        Cel(
            "!has(self.webhooks) || self.webhooks.all(a, self.webhooks.exists_one(b, a.name == b.name))",
            "each webhook needs a name of its own",
            field_path=".webhooks",
        ),
        Cel(
            "!has(self.steps) || !(self.?strategy.orValue('Canary') in ['BlueGreen', 'Rolling'])"
            " || self.steps.all(s, !has(s.weight) && !has(s.experiment))",
            _AT_ONCE,
            field_path=".steps",
        ),
        Cel(
            "!has(self.steps) || (self.steps.filter(s, has(s.preview)).size() <= 1 && self.steps.filter(s,"
            " has(s.preview) || has(s.weight) || has(s.experiment)).map(s, has(s.preview) ? 0 : 1).isSorted())",
            _PREVIEW_FIRST,
            field_path=".steps",
        ),
        Cel(
            "!has(self.steps) || size(self.steps) > 0",
            "write at least one step, remove steps for the default ones, or write strategy: BlueGreen for none",
            field_path=".steps",
        ),
        Cel(
            "!has(self.steps) || (self.steps.filter(s, has(s.weight)).map(s, s.weight).isSorted()"
            " && self.steps.filter(s, has(s.weight)).all(a,"
            " self.steps.exists_one(b, has(b.weight) && a.weight == b.weight)))",
            "weights must rise from step to step, for example 5, 25, 50",
            field_path=".steps",
        ),
        Cel(
            "!has(self.shadow) || !has(self.steps) || !self.steps.exists(s, has(s.shadow))",
            _TWO_SHADOWS,
            field_path=".shadow",
        ),
        Cel(
            "self.?strategy.orValue('Canary') != 'AB' || (has(self.steps) && self.steps.exists(s, has(s.experiment)))",
            _NO_EXPERIMENT,
            field_path=".steps",
        ),
        Cel(
            "!has(self.sticky) || !has(self.steps) || self.steps.all(s, !has(s.experiment) || !has(s.experiment.users)"
            " || ((!has(self.sticky.header) || !has(s.experiment.users.headers) || s.experiment.users.headers.all(h,"
            " h.name.lowerAscii() != self.sticky.header.name.lowerAscii())) && (!has(self.sticky.cookie)"
            " || !has(s.experiment.users.cookie) || s.experiment.users.cookie.name != self.sticky.cookie.name)))",
            _SAME_SIGN,
            field_path=".steps",
        ),
        Cel(
            "!has(self.sticky) || !has(self.sticky.header) || !has(self.steps) || self.steps.all(s, !has(s.experiment)"
            " || !has(s.experiment.users) || !has(s.experiment.users.hash) || !has(s.experiment.users.hash.header)"
            " || s.experiment.users.hash.header.lowerAscii() != self.sticky.header.name.lowerAscii()"
            " || (s.experiment.users.hash.?digits.orValue('Hex') == 'Hex')"
            " == (self.sticky.header.?digits.orValue('Decimal') == 'Hex'))",
            _OTHER_DIGITS,
            field_path=".steps",
        ),
        Cel(
            "!has(self.sticky) || self.?strategy.orValue('Canary') != 'BlueGreen'",
            "BlueGreen moves all users at once: remove sticky, or choose a strategy with weights",
            field_path=".sticky",
        ),
        Cel(
            f"!has(self.sticky) || !has(self.sticky.cookie) || !has(self.steps) || size(self.steps) <= {MAX_SHARES}",
            f"users with a cookie are divided at the weights of the steps, and a route holds {MAX_SHARES} of them: "
            "write fewer steps, or sticky.header",
            field_path=".sticky",
        ),
        Cel(
            "!has(self.steps) || (self.steps.filter(s, has(s.smokeTest)).size() + (has(self.smokeTest) ? 1 : 0) <= 1"
            " && (self.steps.all(s, !has(s.smokeTest)) || has(self.steps[0].smokeTest)))",
            SMOKE_FIRST,
            field_path=".steps",
        ),
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        steps = self.steps or []
        if self.strategy in (Strategy.BLUE_GREEN, Strategy.ROLLING) and any(step.share for step in steps):
            raise PydanticCustomError("steps", _AT_ONCE)
        order = [0 if step.preview else 1 for step in steps if step.preview or step.share]
        if order.count(0) > 1 or order != sorted(order):
            raise PydanticCustomError("steps", _PREVIEW_FIRST)
        return self

    @model_validator(mode="after")
    def _experiments(self) -> Self:
        experiments = [step.experiment for step in self.steps or () if step.experiment is not None]
        if self.strategy is Strategy.AB and not experiments:
            raise PydanticCustomError("steps", _NO_EXPERIMENT)
        sign = self.sticky
        for users in (each.users for each in experiments if each.users is not None):
            names = {header.name.lower() for header in users.headers}
            if sign and (
                (sign.header and sign.header.name.lower() in names)
                or (sign.cookie and users.cookie and users.cookie.name == sign.cookie.name)
            ):
                raise PydanticCustomError("steps", _SAME_SIGN)
            by, same = users.hash, sign.header if sign else None
            if by and same and by.header.lower() == same.name.lower() and by.digits is not same.digits:
                raise PydanticCustomError("steps", _OTHER_DIGITS)
        return self

    @model_validator(mode="after")
    def _weights_rise(self) -> Self:
        weights = [step.weight for step in self.steps or () if step.weight is not None]
        if any(earlier >= later for earlier, later in itertools.pairwise(weights)):
            raise PydanticCustomError("steps", "weights must rise from step to step, for example 5, 25, 50")
        tests = [number for number, step in enumerate(self.steps or ()) if step.kind is StepKind.SMOKE_TEST]
        if tests not in ([], [0]) or (tests and self.smoke_test is not None):
            raise PydanticCustomError("steps", SMOKE_FIRST)
        if self.shadow is not None and any(step.shadow is not None for step in self.steps or ()):
            raise PydanticCustomError("shadow", _TWO_SHADOWS)
        return self

    def plan_steps(self) -> tuple[Step, ...]:
        """The steps in force, in order: what is declared, or what the strategy brings along."""
        steps: tuple[Step, ...] = () if self.strategy in (Strategy.BLUE_GREEN, Strategy.ROLLING) else WEIGHTS
        if self.steps is not None:
            steps = tuple(self.steps)
        if self.strategy is Strategy.ROLLING:
            steps = (*steps, *ROLLING)
        if self.smoke_test is not None:
            steps = (Step(smoke_test=self.smoke_test), *steps)
        declared = any(step.shadow is not None for step in steps)
        if self.shadow is not None or (self.strategy is Strategy.SHADOW and not declared):
            tested = int(bool(steps) and steps[0].kind is StepKind.SMOKE_TEST)
            steps = (*steps[:tested], Step(shadow=self.shadow or Shadow()), *steps[tested:])
        return steps
