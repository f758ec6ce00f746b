"""One simulated release, and many: the operator's own `decide` with invented time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median, quantiles

from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus, Moment, Outcome
from serinus.release.machine import TICK, decide
from serinus.release.observed import Input
from serinus.release.revisions import Revision
from serinus.simulation.scenario import Scenario
from serinus.simulation.world import World

BEGAN = datetime(2000, 1, 1, tzinfo=UTC)
"""Time zero of every simulation."""
IDLE = 15.0
"""Seconds between two looks while no release is under way, as the operator's."""
UNDECIDED = "Undecided"


@dataclass(frozen=True)
class Run:
    """How one simulated release went. Times in seconds since it began."""

    outcome: str
    """Promoted, RolledBack, Failed, or Undecided where the time was up."""
    reason: str
    message: str
    seconds: float
    """Until the outcome."""
    detected: float | None
    """From the moment at which the candidate first could be bad to the roll-back; None where there was none."""
    exposed: int
    """Users' requests that the candidate answered until the end of what was simulated or its roll-back."""
    bad: int
    """Those of them that failed or were too slow."""
    timeline: tuple[Moment, ...]


def run(spec: ModelDeploymentSpec, scenario: Scenario, seed: int, name: str = "model") -> Run:
    """Releases what `spec` declares in place of an earlier version, and watches it until its predecessor is let go."""
    target = Revision.target(name, spec)
    # Another digest makes another revision of the same model.
    older = spec.model.model_copy(update={"version": "live", "digest": "sha256:" + "0" * 64})
    live = Revision.of(name, older, spec.runtime)
    status = ModelDeploymentStatus(live=live.ref(since=BEGAN), observed_generation=1)
    world = World(spec, scenario, live, target, Random(seed))  # noqa: S311 - dice, not keys
    while world.now < scenario.limit:
        now = BEGAN + timedelta(seconds=world.now)
        given = Input(name, 2, spec, status, world.observed(), world.evidence(), now)
        decision = decide(given)
        status = decision.status
        world.obey(decision.plan)
        if status.release is None and status.previous is None and status.last_release is not None:
            break
        # While settled, only the counts move the machine: the operator looks less often then.
        world.serve(TICK if status.release is not None else IDLE)
    return _told(status, world)


def _told(status: ModelDeploymentStatus, world: World) -> Run:
    last = status.last_release
    if last is None:
        release = status.release
        return Run(
            UNDECIDED, (release and release.reason) or "", (release and release.message) or "", world.now, None,
            world.exposed, world.failed, tuple(release.timeline) if release else (),
        )  # fmt: skip
    ended = (last.finished_at - BEGAN).total_seconds()
    detected = None
    if last.outcome is Outcome.ROLLED_BACK:
        began = next((each.at for each in status.history[0].timeline if each.phase == "RollingBack"), last.finished_at)
        bad_from = (world.first_request or 0.0) + world.scenario.bad_after
        detected = (began - BEGAN).total_seconds() - bad_from
    elif last.outcome is Outcome.FAILED:
        detected = ended
    moments = tuple(each for record in reversed(status.history) for each in record.timeline)
    return Run(
        str(last.outcome), last.reason, last.message, ended, detected, world.exposed, world.failed, moments
    )  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """A figure over many runs."""

    median: float
    p95: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None where there are none."""
        found = sorted(values)
        if not found:
            return None
        p95 = quantiles(found, n=20, method="inclusive")[-1] if len(found) > 1 else found[0]
        return cls(median(found), p95, found[-1])


@dataclass(frozen=True)
class Summary:
    """What many runs of one scenario come to."""

    runs: int
    should_roll_back: bool
    """The candidate breaks the SLO, is worse than live by more than the margin, or does not even start."""
    outcomes: dict[str, int]
    reasons: dict[str, int]
    wrong: int
    """Runs that ended otherwise than the candidate deserves: a good one rolled back, a bad one promoted."""
    wrong_share_below: float
    """Upper end of the 95 % confidence interval of the share of such runs (Clopper-Pearson)."""
    seconds: Spread | None
    detection: Spread | None
    exposed: Spread | None
    bad: Spread | None


def summary(runs: Sequence[Run], should_roll_back: bool) -> Summary:
    """The distribution over `runs`."""
    kept = {str(Outcome.PROMOTED)} if should_roll_back else {str(Outcome.ROLLED_BACK), str(Outcome.FAILED)}
    wrong = sum(each.outcome in kept for each in runs)
    return Summary(
        runs=len(runs),
        should_roll_back=should_roll_back,
        outcomes=dict(Counter(each.outcome for each in runs).most_common()),
        reasons=dict(Counter(each.reason for each in runs).most_common()),
        wrong=wrong,
        wrong_share_below=upper(wrong, len(runs)),
        seconds=Spread.of(each.seconds for each in runs),
        detection=Spread.of(each.detected for each in runs if each.detected is not None),
        exposed=Spread.of(each.exposed for each in runs),
        bad=Spread.of(each.bad for each in runs),
    )


def upper(hits: int, number: int, beyond: float = 0.025) -> float:
    """Upper end of the Clopper-Pearson interval: the share at which so few hits have the chance `beyond`."""
    if hits >= number:
        return 1.0
    low, high = hits / number, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        chance = math.fsum(
            math.exp(
                math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1)
                + k * math.log(middle) + (number - k) * math.log1p(-middle)
            )
            for k in range(hits + 1)
        )  # fmt: skip
        low, high = (middle, high) if chance > beyond else (low, middle)
    return high
