"""What the operator reports and resumes from: `ModelDeployment.status`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue

from serinus.api.base import ATOMIC, ApiModel
from serinus.api.notifications import Happening
from serinus.api.shown import Capital, Counts, ExperimentStatus, MetricStatus, Recent, ShadowStatus
from serinus.api.smoke import SmokeTestStatus
from serinus.api.webhooks import HookCall, Notice

_BY_TYPE: dict[str, JsonValue] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class Phase(StrEnum):
    """What is happening; the PHASE column."""

    PENDING = "Pending"
    WAITING = "Waiting"
    STARTING = "Starting"
    TESTING = "Testing"
    SHADOWING = "Shadowing"
    PREVIEWING = "Previewing"
    CANARY = "Canary"
    EXPERIMENTING = "Experimenting"
    PROMOTING = "Promoting"
    ROLLING_BACK = "RollingBack"
    LIVE = "Live"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"
    INVALID = "Invalid"


class Outcome(StrEnum):
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"


class Condition(ApiModel):
    """A condition as in metav1.Condition, after kstatus."""

    type: Annotated[str, Field(max_length=316)]
    status: Annotated[str, Field(pattern=r"^(True|False|Unknown)$")]
    reason: Annotated[str, Field(max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""
    last_transition_time: datetime
    observed_generation: int | None = None


class RevisionRef(ApiModel):
    """A revision and what it pins."""

    revision: str
    """Hash of `spec.model` and `spec.runtime`; names the revision's Deployment and Service."""
    version: str
    digest: str
    since: datetime | None = None
    """When it reached its present role."""
    until: datetime | None = None
    """Previous revision only: how long it stays warm."""
    replicas: int | None = None
    """Previous revision only: replicas kept warm."""


class Moment(ApiModel):
    """Something that happened in a release, or how it stood at a time in between."""

    at: datetime
    phase: str
    """The phase it was in; for the last one how it ended."""
    step: int = 0
    weight: int = 0
    reason: str | None = None
    message: Annotated[str, Field(max_length=256)] | None = None
    requests: int = 0
    """Users' requests the candidate had answered."""
    against: Annotated[dict[str, float], Field(max_length=8, json_schema_extra=ATOMIC)] = {}
    """By sequential test, how far it is on its way to a roll-back: at 1 it condemns."""


class Watch(ApiModel):
    """The live revision while its predecessor is warm: the SLO is tested on, and it is rolled back if it breaks it."""

    revision: str
    since: datetime
    unavailable_since: datetime | None = None
    """Since when it has had fewer ready pods than spec.scaling.min, because pods of it that run are not ready any more.
    Left out while it has enough, or lacks them for another reason."""
    counts: Counts = Counts()
    """Since the promotion."""
    slice: int = 0
    """Which twelfth of spec.release.rollbackWindow it is."""
    lately: Counts = Counts()
    """In this twelfth."""
    tests: Annotated[dict[str, Capital], Field(max_length=8, json_schema_extra=ATOMIC)] = {}
    tests_lately: Annotated[dict[str, Capital], Field(max_length=8, json_schema_extra=ATOMIC)] = {}


class Author(ApiModel):
    """Who asked for a release, as far as anybody can know without an admission webhook."""

    manager: Annotated[str, Field(max_length=256)] | None = None
    """The program that last wrote the spec, from metadata.managedFields: written by the API server."""
    at: datetime | None = None
    """When it did."""
    cause: Annotated[str, Field(max_length=256)] | None = None
    """The annotation kubernetes.io/change-cause, as somebody wrote it."""
    asked: Annotated[str, Field(max_length=256)] | None = None
    """For a roll-back by hand: what its annotation says of who asked and when; not verified."""


class ReleaseStatus(ApiModel):
    """The release under way; everything needed to resume it."""

    revision: str
    phase: Phase
    started_at: datetime
    step: int = 0
    """Index into spec.release.steps."""
    weight: int = 0
    """Percent of the users' requests that the route gives to the candidate."""
    phase_since: datetime
    """When the present phase or step began."""
    serving_since: datetime | None = None
    """When the gateway confirmed the present weight; hold times and counts start here."""
    unavailable_since: datetime | None = None
    """Since when it waits for pods; spec.release.progressDeadline counts from here."""
    candidate: Counts = Counts()
    live: Counts = Counts()
    tests: Annotated[dict[str, Capital], Field(max_length=8, json_schema_extra=ATOMIC)] = {}
    """Sequential tests of this step, by name."""
    recent: Recent = Recent()
    """What the live revision did lately: trouble that hits both is not held against the candidate."""
    evidence_at: datetime | None = None
    """When the candidate's counts last grew."""
    experiment: ExperimentStatus | None = None
    """The A/B test."""
    metrics: Annotated[list[MetricStatus], Field(max_length=10)] = []
    """Threshold metrics and what they measured."""
    inconclusive_since: datetime | None = None
    """Since when the step holds for want of evidence."""
    inconclusive: bool = False
    """It has held so for longer than spec.release.analysis.inconclusive.after."""
    shadow: ShadowStatus | None = None
    """What the last shadow step found."""
    served: int = 0
    """Users' requests the candidate answered in the whole release."""
    reason: str | None = None
    """Why it is rolling back, or holds."""
    message: str | None = None
    evidence: str | None = None
    """The numbers that speak, as a sentence."""
    smoke_test: SmokeTestStatus | None = None
    """What the smoke test found."""
    webhooks: Annotated[list[HookCall], Field(max_length=8)] = []
    """Webhooks asked at this step."""
    skips_steps: bool = False
    """Somebody promoted it by hand."""
    approved: int | None = None
    """The step that somebody approved."""
    timeline: Annotated[list[Moment], Field(max_length=40)] = []
    """What happened so far, the oldest first."""
    by: Author | None = None
    """Who asked for it."""
    told: Annotated[list[str], Field(max_length=40)] = []
    """What people were told of once, and are not told of again in the same step."""


class FlagStatus(ApiModel):
    """Where the users of one of spec.route.flags go."""

    name: str
    revision: str | None = None
    """The revision they are pinned to; left out while they are served as everybody else."""
    reason: str | None = None
    """Why they are not pinned."""
    message: str | None = None


class Message(ApiModel):
    """A message to people that waits to be delivered."""

    id: int
    """Counts the messages of this ModelDeployment."""
    to: str
    """Short name of the receiver, made from its type and address."""
    event: Happening
    at: datetime
    version: str
    revision: str
    weight: int = 0
    step: int = 0
    reason: str | None = None
    message: Annotated[str, Field(max_length=1024)] = ""
    attempts: int = 0
    next_at: datetime | None = None
    """Not tried again before."""


class Held(ApiModel):
    """A release that may not start yet."""

    reason: str
    message: str
    since: datetime
    until: datetime | None = None
    """When it will start, where that is known."""


class Override(ApiModel):
    """Somebody rolled back by hand: this revision serves, although the spec asks for another."""

    revision: str
    instead_of: str
    """The revision that the spec asked for then; with another spec the override is over."""


class ReleaseRecord(ApiModel):
    """A release that ended."""

    revision: str
    version: str
    digest: str | None = None
    instead_of: str | None = None
    """The version that was live when it ended."""
    outcome: Outcome
    reason: str
    message: str
    started_at: datetime
    finished_at: datetime
    requests: int = 0
    """Users' requests the candidate answered."""
    smoke_test: str | None = None
    """What the smoke test found, as a sentence."""
    evidence: str | None = None
    shadow: ShadowStatus | None = None
    """What its shadow found."""
    experiment: ExperimentStatus | None = None
    """How its A/B test ended."""
    by: Author | None = None
    """Who asked for it."""
    timeline: Annotated[list[Moment], Field(max_length=40)] = []
    """What happened, the oldest first; of the last five releases only."""


class Metrics(ApiModel):
    """The revision that serves most users over the last minute, as the columns show it."""

    p99: str | None = None
    p95: str | None = None
    p50: str | None = None
    error_rate: str | None = None
    requests_per_second: str | None = None


class ModelDeploymentStatus(ApiModel):
    """What is live, what is happening, is it well."""

    observed_generation: int = -1
    phase: Phase = Phase.PENDING
    live: RevisionRef | None = None
    candidate: RevisionRef | None = None
    previous: RevisionRef | None = None
    """The last live revision while it is kept warm."""
    watch: Watch | None = None
    """How the live revision does while the previous one is warm."""
    weight: str | None = None
    """Share of the users' requests that the candidate gets, for example 5%."""
    release: ReleaseStatus | None = None
    notices: Annotated[list[Notice], Field(max_length=16)] = []
    """Webhooks that are still to be told how a release ended."""
    held: Held | None = None
    """Why the version that the spec asks for is not released yet."""
    last_release: ReleaseRecord | None = None
    history: Annotated[list[ReleaseRecord], Field(max_length=20)] = []
    """Releases that ended, the newest first."""
    failed_revisions: Annotated[list[str], Field(max_length=20)] = []
    """Not tried again until the spec changes or somebody asks for it (annotation `retry`)."""
    acted: Annotated[dict[str, str], Field(max_length=8, json_schema_extra=ATOMIC)] = {}
    """By verb, the last value of its annotation that was acted on."""
    flags: Annotated[list[FlagStatus], Field(max_length=8)] = []
    """Where flags lead at the moment."""
    outbox: Annotated[list[Message], Field(max_length=20)] = []
    """Messages to people that are not delivered yet."""
    messages: int = 0
    """How many there have been."""
    override: Override | None = None
    """A roll-back by hand, in force until the spec changes."""
    metrics: Metrics | None = None
    candidate_metrics: Metrics | None = None
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=_BY_TYPE)] = []
    """Ready, Reconciling, Stalled and Progressing, as kstatus has them."""
