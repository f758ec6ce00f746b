"""From a status to what people and tools read: phase, conditions, columns."""

from __future__ import annotations

from serinus.api.spec import Slo
from serinus.api.status import FlagStatus, Metrics, ModelDeploymentStatus, Outcome, Phase
from serinus.api.units import Duration, Percent
from serinus.release.conditions import Wanted, merge
from serinus.release.flags import Resolved, resolve
from serinus.release.observed import Input, Rates
from serinus.release.revisions import Revision

ROUTE_CONFLICT = "RouteConflict"
NOTABLE_FACTOR = 2.0
NOTABLE_SHARE = 0.1
"""Between releases the latency and error columns follow a change only where it crosses the SLO, or where the figure
doubles or halves by more than this share of its limit: a settled ModelDeployment is not written to for noise."""


def report(given: Input, status: ModelDeploymentStatus, target: Revision) -> ModelDeploymentStatus:
    """`status` with its phase, weight, metrics, replica counts and conditions filled in."""
    release, live = status.release, status.live
    state = given.observed.state(live.revision if live else None)
    phase = _phase(status, target)
    flags = resolve(given, status, target)
    filled = status.model_copy(
        update={
            "observed_generation": given.generation,
            "phase": phase,
            "weight": f"{release.weight}%" if release else None,
            "flags": [_flag(each) for each in flags],
            "metrics": _metrics(given, status, live.revision if live else None, status.metrics),
            "candidate_metrics": _metrics(given, status, release.revision, None) if release else None,
            "replicas": state.desired,
            "ready_replicas": state.ready,
            "selector": f"serving.serinus.dev/deployment={given.name},serving.serinus.dev/revision={live.revision}"
            if live
            else "",
        }
    )
    wanted = [_ready(given, status), *_conflict(given), *_progress(status, target, phase), *_unresolved(flags)]
    conditions = merge(status.conditions, wanted, given.generation, given.now)
    return filled.model_copy(update={"conditions": conditions})


def _conflict(given: Input) -> list[Wanted]:
    return [Wanted(ROUTE_CONFLICT, True, ROUTE_CONFLICT, given.conflict)] if given.conflict else []


def _phase(status: ModelDeploymentStatus, target: Revision) -> Phase:
    if status.release is not None:
        return status.release.phase
    if status.held is not None:
        return Phase.WAITING
    if target.name in status.failed_revisions:
        last = status.last_release
        rolled_back = last is not None and last.revision == target.name and last.outcome is Outcome.ROLLED_BACK
        return Phase.ROLLED_BACK if rolled_back else Phase.FAILED
    if status.override is not None:
        return Phase.ROLLED_BACK
    return Phase.LIVE if status.live else Phase.PENDING


def _ready(given: Input, status: ModelDeploymentStatus) -> Wanted:
    live = status.live
    if live is None:
        return Wanted("Ready", False, "NoLiveRevision", "no version is live yet")
    state = given.observed.state(live.revision)
    needed = given.spec.scaling.min
    if state.ready < needed:
        return Wanted(
            "Ready",
            False,
            "MinimumReplicasUnavailable",
            f"{state.ready} of {needed} pods of version {live.version} are ready",
        )
    if given.spec.route and not given.observed.route.accepted and status.release is None:
        return Wanted("Ready", False, "RouteNotAccepted", given.observed.route.message or "the route is not accepted")
    return Wanted("Ready", True, "Serving", f"version {live.version} is live")


def _progress(status: ModelDeploymentStatus, target: Revision, phase: Phase) -> list[Wanted]:
    release, last = status.release, status.last_release
    if release is not None:
        message = release.message or f"version {target.version}: {phase} at {release.weight}%"
        wanted = [Wanted("Reconciling", True, release.reason or str(phase), message)]
        if evidence_missing(status):
            unavailable = release.reason == "EvidenceMissing"
            reason = "PrometheusUnavailable" if unavailable else release.reason or "Inconclusive"
            wanted.append(Wanted("EvidenceMissing", True, reason, message))
        return wanted
    if status.held is not None:
        message = f"version {target.version} waits: {status.held.message}"
        return [Wanted("Reconciling", True, status.held.reason, message)]
    if status.override is not None:
        message = f"version {target.version} serves by hand, although the spec asks for another"
        hint = "change the spec, or set the annotation serving.serinus.dev/retry to a new value"
        return [Wanted("Stalled", True, "RolledBackByHand", f"{message}; {hint}")]
    if target.name in status.failed_revisions:
        known = last is not None and last.revision == target.name
        reason = last.reason if last and known else "RevisionFailed"
        message = last.message if last and known else "this revision failed before"
        hint = "change the spec, or set the annotation serving.serinus.dev/retry to a new value"
        return [Wanted("Stalled", True, reason, f"version {target.version}: {message}; {hint}")]
    return []


def _flag(found: Resolved) -> FlagStatus:
    if found.ready:
        return FlagStatus(name=found.flag.name, revision=found.revision)
    return FlagStatus(name=found.flag.name, reason=found.reason, message=found.message)


def _unresolved(flags: tuple[Resolved, ...]) -> list[Wanted]:
    """Flags that lead nowhere and will not by waiting: their users get what everybody gets."""
    bad = [each for each in flags if each.problem]
    if not bad:
        return []
    text = "; ".join(f"flag {each.flag.name}: {each.message}" for each in bad)
    return [Wanted("FlagsUnresolved", True, bad[0].reason, f"{text}; its users are served as everybody else")]


_NO_EVIDENCE = frozenset({"EvidenceMissing", "EvidencePartial", "EvidenceStale", "MetricMissing"})


def evidence_missing(status: ModelDeploymentStatus) -> bool:
    """Whether a release holds because nothing can be said of its candidate. Too few requests are no reason at first."""
    release = status.release
    if release is None:
        return False
    return release.inconclusive or release.reason in _NO_EVIDENCE


def _metrics(
    given: Input, status: ModelDeploymentStatus, revision: str | None, shown: Metrics | None
) -> Metrics | None:
    if revision is None:
        return None
    rates = given.evidence.rates.get(revision)
    if rates is None or not given.evidence.available:
        return shown
    fresh = _columns(rates)
    quiet = status.release is None and shown is not None
    if shown is not None and quiet and not _differs(shown, fresh, given.spec.slo):
        return shown
    return fresh


def _columns(rates: Rates) -> Metrics:
    def latency(seconds: float | None) -> str | None:
        return None if seconds is None else str(Duration.of(seconds))

    return Metrics(
        p99=latency(rates.p99),
        p95=latency(rates.p95),
        p50=latency(rates.p50),
        error_rate=None if rates.error_rate is None else str(Percent.of(rates.error_rate)),
        requests_per_second=None if rates.requests_per_second is None else f"{rates.requests_per_second:.3g}",
    )


def _differs(shown: Metrics, fresh: Metrics, slo: Slo) -> bool:
    """A change that people would want to see: one side is empty, the SLO is crossed, or it is large."""
    if (shown.p99 is None) != (fresh.p99 is None) or (shown.error_rate is None) != (fresh.error_rate is None):
        return True
    if shown.p99 is not None and fresh.p99 is not None:
        old, new = Duration(shown.p99).seconds, Duration(fresh.p99).seconds
        if _notable(old, new, slo.p99.seconds):
            return True
    if shown.error_rate is not None and fresh.error_rate is not None:
        old, new = Percent(shown.error_rate).fraction, Percent(fresh.error_rate).fraction
        return _notable(old, new, slo.error_rate.fraction)
    return False


def _notable(old: float, new: float, limit: float) -> bool:
    if (old > limit) != (new > limit):
        return True
    low, high = sorted((old, new))
    return high > NOTABLE_FACTOR * low and high - low > NOTABLE_SHARE * limit
