"""What the state machine sees of the world, and what it wants: plain values, no Kubernetes objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from serinus.api.matching import Match
from serinus.api.notifications import Notification
from serinus.api.shadow import Shadow
from serinus.api.shown import Counts
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import Author, ModelDeploymentStatus
from serinus.release.errands import Errand, Result
from serinus.release.form import Form
from serinus.release.revisions import Revision
from serinus.release.sticky import Split


@dataclass(frozen=True)
class Failure:
    """Something that Kubernetes itself shows and that waiting does not mend."""

    reason: str
    message: str
    at: datetime | None = None
    """When it was, where it is over for now: the container runs again. None where it lasts, or nobody knows."""

    def since(self, moment: datetime) -> bool:
        """Whether it lasts, or was at `moment` or later."""
        return self.at is None or self.at >= moment


@dataclass(frozen=True)
class RevisionState:
    """Pods of one revision."""

    desired: int = 0
    ready: int = 0
    failure: Failure | None = None
    unschedulable_since: datetime | None = None
    unschedulable_message: str = ""
    unready: Mapping[str, datetime] = field(default_factory=dict)
    """Pods by name that were ready and are not any more, although their containers run on; and since when."""


@dataclass(frozen=True)
class RouteState:
    """The HTTPRoute as the gateway reports it."""

    weights: Mapping[str, int] = field(default_factory=dict)
    """Weight by revision in the stored route."""
    accepted: bool = False
    """Every gateway accepted and resolved the stored generation of the route."""
    message: str = ""
    """Why it is not accepted."""
    mirrored: str | None = None
    """The revision that the stored route mirrors requests to."""
    refused: bool = False
    """A gateway has seen the stored generation, and refuses it."""
    formed: bool = True
    """The stored route has all rules that the spec may need, in their places."""


@dataclass(frozen=True)
class Observed:
    """One ModelDeployment's children."""

    revisions: Mapping[str, RevisionState] = field(default_factory=dict)
    snapshots: Mapping[str, Revision] = field(default_factory=dict)
    route: RouteState = RouteState()

    def state(self, revision: str | None) -> RevisionState:
        return self.revisions.get(revision or "", RevisionState())


@dataclass(frozen=True)
class Rates:
    """One revision over the last minute; None where nothing was measured. Latencies in seconds."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    error_rate: float | None = None
    requests_per_second: float | None = None


@dataclass(frozen=True)
class Mirrored:
    """What a joiner told since the last decision, and how far apart it finds the two revisions."""

    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Pairs: agreed, disagreed, candidate_failed, live_failed, both_failed, incomparable."""
    unpaired: Mapping[str, int] = field(default_factory=dict)
    """Predictions without a partner: live_only, candidate_only, duplicate, evicted, lost."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """psi, ks, input_psi, input_ks, latency_ratio; those that are known."""
    pods: Mapping[str, int] = field(default_factory=dict)
    """Pods that it reads: live, candidate."""


@dataclass(frozen=True)
class Evidence:
    """What Prometheus said since the last decision."""

    available: bool = False
    message: str = "Prometheus has not been asked yet"
    """Why evidence is not available."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """Requests by revision since the last decision that was stored."""
    blocks: Mapping[str, tuple[Counts, ...]] = field(default_factory=dict)
    """The same by revision and pod: requests of one pod between two looks stand and fall together."""
    rates: Mapping[str, Rates] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, float] | str] = field(default_factory=dict)
    """Answers to users' own PromQL: values by revision, or why there are none, by query."""
    scraped: Mapping[str, int] | None = None
    """Pods that Prometheus has series of, by revision; None where nobody knows."""
    shadows: Mapping[str, Mirrored] = field(default_factory=dict)
    """What joiners told, by the candidate's revision."""
    before: Mapping[str, tuple[Counts, ...]] = field(default_factory=dict)
    """What each pod of `blocks` answered in the last look that had requests; trouble may straddle two looks."""


@dataclass(frozen=True)
class Input:
    """Everything a decision depends on."""

    name: str
    generation: int
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    observed: Observed
    evidence: Evidence
    now: datetime
    asked: Mapping[str, str] = field(default_factory=dict)
    """What people ask for by annotation: verb and value."""
    frozen: str | None = None
    """Why nothing may start or gain weight in the whole cluster; None where it may."""
    results: Mapping[str, Result] = field(default_factory=dict)
    """What came of errands that were asked for, by their keys."""
    notifications: tuple[Notification, ...] = ()
    """Who is told of every ModelDeployment's releases."""
    author: Author | None = None
    """Who last wrote the spec."""
    conflict: str | None = None
    """Who else has the same address, and is older."""


@dataclass(frozen=True)
class RevisionPlan:
    """One revision that should have pods."""

    revision: Revision
    floor: int
    """Fewest replicas."""


@dataclass(frozen=True)
class Pin:
    """Users who go to one revision, whatever the weights are."""

    revision: str
    match: tuple[Match, ...]
    """Requests that fulfil any of these."""
    flag: str = ""
    """Name of the flag."""


@dataclass(frozen=True)
class Mirror:
    """Copies of users' requests for a candidate, and a joiner that compares the answers."""

    live: str
    candidate: str
    shadow: Shadow


@dataclass(frozen=True)
class Plan:
    """What should exist in the cluster."""

    revisions: tuple[RevisionPlan, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    """Weight by revision in the route; 0 keeps a revision in the route without traffic."""
    stable: str | None = None
    """Revision behind the stable Service."""
    keep: frozenset[str] = frozenset()
    """Revisions whose objects stay as they are, because what they serve is no longer known."""
    pins: tuple[Pin, ...] = ()
    """Rules of the route that come before the weights, the first one first."""
    preview: str | None = None
    """Revision behind the preview address."""
    users: Match | None = None
    """Whom the weights are for, where not for everybody: the others are served by `stable`."""
    sticky: Split | None = None
    """Who of the users behind the weights stays where; None draws for each request."""
    mirror: Mirror | None = None
    """While a shadow lasts."""
    form: Form | None = None
    """Rules that the route has besides, whether they are in use or not."""


@dataclass(frozen=True)
class Note:
    """A Kubernetes Event to be written."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What follows from an input."""

    status: ModelDeploymentStatus
    plan: Plan
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
    """Seconds until time alone may change the decision."""
    errands: tuple[Errand, ...] = ()
    """What is to be done outside: started where it is new, dropped where it is no longer named."""
