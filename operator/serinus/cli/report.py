"""`serinus report`: one HTML file that tells a stranger what was released, what was measured, and what followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from serinus import __version__
from serinus.api.analysis import Metric
from serinus.api.shown import Counts, MetricStatus
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus, Moment, ReleaseRecord
from serinus.api.units import Duration, Percent
from serinus.cli import figures, history, nested
from serinus.cli.charts import Band, chart
from serinus.cli.picture import Picture
from serinus.cli.view import parse
from serinus.objects.read import observe

_SHOWN = frozenset({
    "revision", "phase", "startedAt", "step", "weight", "phaseSince", "servingSince", "candidate", "live", "tests",
    "recent", "evidenceAt", "metrics", "inconclusiveSince", "inconclusive", "served", "reason", "message", "evidence",
    "skipsSteps", "approved", "timeline", "version", "digest", "insteadOf", "outcome", "finishedAt", "requests", "by",
    "told",
})  # fmt: skip
"""Fields that this page shows in a way of their own; every other part of a release is shown as it is."""
_GOOD = frozenset({"Promoted", "Live"})
_BAD = frozenset({"RolledBack", "Failed", "RollingBack", "Invalid"})


def html(picture: Picture) -> str:
    """The page, with nothing in it that a browser would have to fetch."""
    spec, status = parse(picture)
    environment = Environment(
        loader=PackageLoader("serinus.cli"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown, older = _releases(picture, spec, status)
    return environment.get_template("report.html.j2").render(
        name=picture.name,
        namespace=picture.owner["metadata"]["namespace"],
        generation=picture.owner["metadata"].get("generation", 0),
        phase=str(status.phase),
        now=_time(picture.now),
        slo=spec.slo,
        alpha=spec.release.alpha,
        roles=_roles(status),
        conditions=status.conditions,
        releases=shown,
        older=older,
        events=_events(picture),
        serinus_version=__version__,
        tone=lambda word: "good" if word in _GOOD else "bad" if word in _BAD else "soft",
    )


def _roles(status: ModelDeploymentStatus) -> list[dict[str, str]]:
    rows = []
    weight = status.release.weight if status.release else 0
    seen = {"live": status.metrics, "candidate": status.candidate_metrics, "previous": None}
    weights = {"live": 100 - weight, "candidate": weight, "previous": 0}
    for role, ref in (("live", status.live), ("candidate", status.candidate), ("previous", status.previous)):
        if ref is None:
            continue
        figures = seen[role]
        rows.append(
            {
                "role": role,
                "version": ref.version,
                "revision": ref.revision,
                "weight": f"{weights[role]}%",
                "p99": (figures and figures.p99) or "-",
                "errors": (figures and figures.error_rate) or "-",
                "since": _time(ref.since),
                "digest": ref.digest,
            }
        )
    return rows


def _releases(
    picture: Picture, spec: ModelDeploymentSpec, status: ModelDeploymentStatus
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Releases told in full, and those of which only the end is known."""
    raw = picture.owner.get("status") or {}
    told = [_under_way(picture, spec, status, raw["release"])] if status.release is not None else []
    older = []
    for record, stored in zip(status.history, raw.get("history", []), strict=True):
        if record.timeline:
            told.append(_ended(picture, spec, record, stored))
        else:
            older.append(
                {
                    "version": record.version, "outcome": str(record.outcome), "ended": _time(record.finished_at),
                    "requests": f"{record.requests:,}", "reason": record.reason, "message": record.message,
                }
            )  # fmt: skip
    return told, older


def _under_way(
    picture: Picture, spec: ModelDeploymentSpec, status: ModelDeploymentStatus, raw: dict[str, Any]
) -> dict[str, Any]:
    release = status.release
    assert release is not None
    version = status.candidate.version if status.candidate else release.revision
    live = status.live.version if status.live else None
    counts = (("candidate", release.candidate), ("live, over the same time", release.live))
    return {
        **_told(picture, release.revision, live, list(release.timeline), picture.now, raw),
        "extras": extras(raw, figures.pictures(spec, release.shadow, release.experiment)),
        "version": version,
        "outcome": str(release.phase),
        "instead_of": live,
        "started": _time(release.started_at),
        "took": f"under way for {_span(release.started_at, picture.now)}",
        "requests": f"{release.served:,}",
        "reason": release.reason,
        "message": release.message,
        "evidence": release.evidence,
        "counts": [_counted(who, each) for who, each in counts if each.requests],
        "metrics": [_metric(each, spec) for each in release.metrics],
    }


def _ended(picture: Picture, spec: ModelDeploymentSpec, record: ReleaseRecord, raw: dict[str, Any]) -> dict[str, Any]:
    return {
        **_told(picture, record.revision, record.instead_of, list(record.timeline), record.finished_at, raw),
        "extras": extras(raw, figures.pictures(spec, record.shadow, record.experiment)),
        "version": record.version,
        "outcome": str(record.outcome),
        "instead_of": record.instead_of if record.instead_of != record.version else None,
        "started": _time(record.started_at),
        "took": f"ended after {_span(record.started_at, record.finished_at)}",
        "requests": f"{record.requests:,}",
        "reason": record.reason,
        "message": record.message,
        "evidence": record.evidence,
        "counts": [],
        "metrics": [],
    }


def _told(
    picture: Picture, revision: str, live: str | None, moments: list[Moment], end: datetime, raw: dict[str, Any]
) -> dict[str, Any]:
    """What a release under way and one that ended have in common."""
    bands = _bands(moments, end)
    tests = sorted({name for moment in moments for name in moment.against})
    capital = {name: [(each.at, each.against[name]) for each in moments if name in each.against] for name in tests}
    weights = {"weight": [(each.at, float(each.weight)) for each in moments]} if moments else {}
    return {
        "weights": chart(
            "Weight of the candidate over time",
            weights,
            bands=bands,
            bounds=(0.0, 100.0),
            unit="%",
            stepped=True,
            end=end,
        ),
        "capital": chart(
            "Evidence against the candidate over time",
            capital,
            limits={"rolls back": 1.0},
            bands=bands,
            bounds=(-1.0, 1.0),
            start=moments[0].at if moments else None,
            end=end,
        ),
        "moments": [
            {
                "at": _time(each.at),
                "phase": each.phase,
                "weight": f"{each.weight}%",
                "requests": f"{each.requests:,}",
                "reason": each.reason or "",
                "message": each.message or "",
            }
            for each in moments
        ],
        "diff": _diff(picture, revision, live),
        "by": history.author(raw.get("by")),
    }


def extras(raw: dict[str, Any], drawn: Mapping[str, Markup] | None = None) -> list[dict[str, Any]]:
    """Parts of a release as it is stored, such as the result of a smoke test, and the pictures of those with one."""
    return [
        {"title": nested.words(key), "html": nested.html(value), "picture": (drawn or {}).get(key, Markup())}
        for key, value in raw.items()
        if key not in _SHOWN and value not in (None, {}, [])
    ]


def _bands(moments: Sequence[Moment], end: datetime) -> list[Band]:
    bands: list[Band] = []
    for number, moment in enumerate(moments):
        until = moments[number + 1].at if number + 1 < len(moments) else end
        if bands and bands[-1].name == moment.phase:
            bands[-1] = Band(bands[-1].start, until, moment.phase)
        else:
            bands.append(Band(moment.at, until, moment.phase))
    return bands


def _counted(who: str, counts: Counts) -> dict[str, str]:
    def share(bad: int) -> str:
        return f"{bad:,} ({Percent.of(min(1.0, bad / counts.requests))})"

    return {
        "who": who,
        "requests": f"{counts.requests:,}",
        "errors": share(counts.errors),
        "slow": share(counts.slow),
    }


def _metric(status: MetricStatus, spec: ModelDeploymentSpec) -> dict[str, Any]:
    declared = next((each for each in spec.release.analysis.metrics if each.name == status.name), None)
    limits = _limits(declared) if declared else {}
    points = [(each.at, each.value) for each in status.measurements if each.value is not None]
    unit = f" {declared.unit}".rstrip() if declared else ""
    return {
        "name": status.name,
        "dry_run": status.dry_run,
        "bad_in_a_row": status.bad_in_a_row,
        "limits": "allowed is " + " and ".join(limits) if limits else "no longer in the specification",
        "chart": chart(f"Measurements of {status.name}", {status.name: points}, limits=limits, unit=unit),
        "problems": sorted({each.problem for each in status.measurements if each.problem}),
    }


def _limits(metric: Metric) -> dict[str, float]:
    unit = f" {metric.unit}".rstrip()
    limits = {f"at least {metric.min:g}{unit}": metric.min} if metric.min is not None else {}
    return limits | ({f"at most {metric.max:g}{unit}": metric.max} if metric.max is not None else {})


def _diff(picture: Picture, revision: str, live: str | None) -> Markup | None:
    """What changed from the version that was live to this one; None where one of them is no longer kept."""
    kept = observe(picture.name, picture.children).snapshots
    new = kept.get(revision)
    old = next((each for each in kept.values() if each.version == live and each.name != revision), None)
    if new is None or old is None:
        return None
    shown = []
    for line in history.diff(old, new).splitlines():
        tone = "plus" if line.startswith("+") else "minus" if line.startswith("-") else ""
        shown.append(Markup('<span class="{}">{}</span>').format(tone, line) if tone else Markup.escape(line))
    return Markup("\n").join(shown)


def _events(picture: Picture) -> list[dict[str, Any]]:
    rows = []
    for event in picture.events:
        at = event.get("eventTime") or event["metadata"].get("creationTimestamp")
        rows.append(
            {
                "at": _time(datetime.fromisoformat(at)) if at else "",
                "reason": event.get("reason", ""),
                "note": event.get("note", ""),
                "warning": event.get("type") == "Warning",
            }
        )
    return rows


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def _span(start: datetime, end: datetime) -> str:
    return str(Duration.of(round(max(0.0, (end - start).total_seconds()))))
