"""What happened, pieced together from the ModelDeployment's status, its Events and the load generator's records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fraud.records import Figures, Record, figures

SETTLE_SECONDS = 20.0
"""Length of the "before" and "after" windows of a release."""


@dataclass(frozen=True)
class Snapshot:
    """The parts of a ModelDeployment's status that the demo shows, and when it saw them (seconds since the epoch)."""

    at: float
    phase: str = ""
    live: str = ""
    candidate: str = ""
    weight: int = 0
    p99: str = ""
    errors: str = ""
    ready: bool = False
    last_version: str = ""
    last_outcome: str = ""
    last_reason: str = ""
    last_message: str = ""
    last_finished: str = ""

    @property
    def last(self) -> tuple[str, str]:
        """Names the last release that ended."""
        return self.last_version, self.last_finished


def snapshot(resource: dict[str, Any], at: float) -> Snapshot:
    """Reads a ModelDeployment as `kubectl get -o json` gives it. Missing parts are empty."""
    status = resource.get("status") or {}
    last = status.get("lastRelease") or {}
    shown = status.get("metrics") or {}
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True" and _current(c, resource)
        for c in status.get("conditions") or []
    )
    return Snapshot(
        at=at,
        phase=str(status.get("phase") or ""),
        live=str((status.get("live") or {}).get("version") or ""),
        candidate=str((status.get("candidate") or {}).get("version") or ""),
        weight=_percent(status.get("weight")),
        p99=str(shown.get("p99") or ""),
        errors=str(shown.get("errorRate") or ""),
        ready=ready,
        last_version=str(last.get("version") or ""),
        last_outcome=str(last.get("outcome") or ""),
        last_reason=str(last.get("reason") or ""),
        last_message=str(last.get("message") or ""),
        last_finished=str(last.get("finishedAt") or ""),
    )


def _current(condition: dict[str, Any], resource: dict[str, Any]) -> bool:
    observed = condition.get("observedGeneration")
    return observed is None or observed == resource.get("metadata", {}).get("generation", observed)


def _percent(value: Any) -> int:
    text = str(value or "0").rstrip("%")
    return round(float(text)) if text else 0


@dataclass(frozen=True)
class Moment:
    """Something worth a line in the picture. `kind` is applied, weight, promoted, rolledback or failed."""

    at: float
    kind: str
    version: str
    label: str


@dataclass
class Story:
    """All that was seen. `applied` holds when each version was applied, `events` (time, reason, message)."""

    snapshots: list[Snapshot] = field(default_factory=list)
    applied: dict[str, float] = field(default_factory=dict)
    events: list[tuple[float, str, str]] = field(default_factory=list)

    def weights(self) -> list[tuple[float, str, int]]:
        """Changes of the candidate's weight: (time, candidate, percent)."""
        result: list[tuple[float, str, int]] = []
        candidate, weight = "", 0
        for seen in self.snapshots:
            now = seen.weight if seen.candidate and seen.candidate != seen.live else 0
            who = seen.candidate or candidate
            if now != weight or (now and who != candidate):
                result.append((seen.at, who, now))
                weight = now
            candidate = who
        return result

    def moments(self) -> list[Moment]:
        """Decisions in the order of time."""
        result = [Moment(at, "applied", v, f"{v} applied") for v, at in self.applied.items()]
        result += [Moment(at, "weight", v, f"{v} {w} %") for at, v, w in self.weights() if w]
        start = self.snapshots[0].last if self.snapshots else ("", "")
        words = {"Promoted": ("promoted", "promoted"), "RolledBack": ("rolledback", "rolled back")}
        for seen in self.snapshots:
            if seen.last != start and seen.last_version:
                kind, word = words.get(seen.last_outcome, ("failed", "rejected"))
                at = self._decided(seen.last_version, seen.at) if kind == "rolledback" else seen.at
                result.append(Moment(at, kind, seen.last_version, f"{seen.last_version} {word}"))
                start = seen.last
        return sorted(result, key=lambda moment: moment.at)

    def _decided(self, version: str, finished: float) -> float:
        """When the traffic was taken away: the release ends later, after the pods have drained."""
        away = [at for at, who, weight in self.weights() if who == version and weight == 0 and at <= finished]
        return away[-1] if away else finished

    def ended(self, version: str) -> Snapshot | None:
        """The first snapshot in which this version's release, applied in this story, is over."""
        since = self.applied.get(version, math.inf)
        before = [s for s in self.snapshots if s.at <= since]
        old = before[-1].last if before else ("", "")
        for seen in self.snapshots:
            if seen.at > since and seen.last_version == version and seen.last != old:
                return seen
        return None


@dataclass(frozen=True)
class Release:
    """One version's release in figures. Times in seconds, latencies in milliseconds, NaN where there was nothing."""

    version: str
    outcome: str
    reason: str
    message: str
    served: Figures
    seconds: float
    """From `kubectl apply` to the end of the release."""
    detect_seconds: float
    """From the first request it answered to the decision to take it away (weight back to 0)."""
    rollback_seconds: float
    """From that decision to the last request it answered."""
    exposed_seconds: float
    """From the first request it answered to the last."""
    failed_anywhere: int
    """Failed requests of all users, whoever answered, while the release ran and SETTLE_SECONDS after."""
    before: Figures
    during: Figures
    after: Figures


def release(story: Story, records: Sequence[Record], version: str) -> Release:
    """Sums up one version. Records count for the version that their answer named."""
    applied = story.applied.get(version, math.nan)
    end = story.ended(version)
    over = end.at if end else math.inf
    own = [r for r in records if r.version == version]
    first = min((r.at for r in own), default=math.nan)
    last = max((r.at + r.latency_ms / 1000 for r in own), default=math.nan)
    taken_away = next(
        (at for at, who, weight in story.weights() if who == version and weight == 0 and at >= applied), math.nan
    )
    bad = end is not None and end.last_outcome != "Promoted"
    during = [r for r in records if applied <= r.at <= over]
    after = [r for r in records if over < r.at <= over + SETTLE_SECONDS]
    return Release(
        version=version,
        outcome=end.last_outcome if end else "Unfinished",
        reason=end.last_reason if end else "",
        message=end.last_message if end else "",
        served=figures(own),
        seconds=over - applied if end else math.nan,
        detect_seconds=taken_away - first if bad else math.nan,
        rollback_seconds=max(0.0, last - taken_away) if bad else math.nan,
        exposed_seconds=last - first,
        failed_anywhere=sum(r.failed for r in during) + sum(r.failed for r in after),
        before=figures(r for r in records if applied - SETTLE_SECONDS <= r.at < applied),
        during=figures(during),
        after=figures(after),
    )


@dataclass(frozen=True)
class Expectation:
    """What the demo promises, whether it was kept, and the figures that say so."""

    name: str
    kept: bool
    detail: str


def expectations(releases: dict[str, Release]) -> list[Expectation]:
    """The promises: v2 promoted without a failed request, v3 rolled back, v4 and v5 meet no user."""
    v2, v3 = releases["v2"], releases["v3"]
    result = [
        Expectation("v2 promotes itself", v2.outcome == "Promoted", f"outcome {v2.outcome} {v2.reason}".strip()),
        Expectation(
            "no request fails meanwhile",
            v2.failed_anywhere == 0 and v2.during.requests > 0,
            f"{v2.failed_anywhere} of {v2.during.requests + v2.after.requests} failed",
        ),
        Expectation(
            "v3 is rolled back by itself",
            v3.outcome == "RolledBack" and v3.served.requests > 0,
            f"outcome {v3.outcome} {v3.reason}, {v3.served.requests} requests in {v3.exposed_seconds:.1f} s",
        ),
    ]
    for version in ("v4", "v5"):
        item = releases[version]
        result.append(
            Expectation(
                f"{version} meets no user",
                item.served.requests == 0 and item.outcome in ("Failed", "RolledBack"),
                f"outcome {item.outcome} {item.reason}, {item.served.requests} requests",
            )
        )
    return result


def result_line(releases: dict[str, Release], records: Sequence[Record], extra: dict[str, float]) -> str:
    """`RESULT name=value ...`, for scripts."""
    total = figures(records)
    v2, v3 = releases["v2"], releases["v3"]
    values: dict[str, float] = {
        "requests": total.requests,
        "failed": total.failed,
        "v2_promote_s": v2.seconds,
        "v2_requests": v2.during.requests + v2.after.requests,
        "v2_failed": v2.failed_anywhere,
        "p99_before_ms": v2.before.p99,
        "p99_during_ms": v2.during.p99,
        "p99_after_ms": v2.after.p99,
        "v3_requests": v3.served.requests,
        "v3_failed": v3.served.failed,
        "v3_detect_s": v3.detect_seconds,
        "v3_rollback_s": v3.rollback_seconds,
        "v3_first_to_last_s": v3.exposed_seconds,
        "v4_requests": releases["v4"].served.requests,
        "v5_requests": releases["v5"].served.requests,
        "v4_reject_s": releases["v4"].seconds,
        "v5_reject_s": releases["v5"].seconds,
        **extra,
    }
    return "RESULT " + " ".join(f"{name}={_short(value)}" for name, value in values.items())


def _short(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "none" if math.isnan(value) else f"{value:.2f}"
